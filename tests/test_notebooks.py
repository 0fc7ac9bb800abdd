"""Notebooks are pages: thin, committed unrun, strict about what they are asked."""

import ast
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest

from psannlm import ROOT
from psannlm.evidence.runs import load
from psannlm.evidence.session import RESUME
from psannlm.pages.shootout.tables import SUMMARY
from psannlm.run import check as identities

PAGES = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
ONE_BASE = ["-p", "base", "respsann", "-p", "min_seconds", "0.01", "-p", "min_steps", "2"]
FEW_STEPS = ["-y", "{train_megabytes: 0.02, validation_megabytes: 0.02, vocab_size: 300}"]
NO_PACKAGE = [
    "-y", "{peer: psannlm, base: respsann, d_model: 16, setting: defaults, work: [forward, saved]}",
]  # fmt: skip
"""A package without a version, which is refused before the network is asked for it."""

COMMON = {"README.md", "config_used.yaml", "system.json"}
RUNS = {
    "throughput": (
        [*ONE_BASE, "-p", "n_repeats", "1", "-p", "d_model", "16", "-p", "compile", "false"],
        {"ceiling_forward_fp32.svg", "ceiling_training_step_fp32.svg", "cells.csv", "samples.csv",
         "throughput.csv", "throughput_forward_fp32.svg", "throughput_training_step_fp32.svg"},
    ),
    "memory": (
        ONE_BASE,
        {"breakdown_fp32.svg", "memory.json", "memory_records.json", "peer.csv",
         "peer_records.json", "samples.csv", "savings.csv"},
    ),
    "peer": (
        [*ONE_BASE, *NO_PACKAGE],
        {"cells.csv", "peer.csv", "protocol.csv", "protocol_records.csv", "samples.csv"},
    ),
    "tiny_corpus": (
        FEW_STEPS,
        {"loss.csv", "loss_curve.png", "metrics.json", "samples.json", "sine.csv", "speed.csv",
         "tokenizer.json", "yardsticks.csv"},
    ),
}  # fmt: skip
"""Small runs of notebooks, and the files they leave beside the common ones."""


def code_cells(path):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


@each_page
def test_a_page_is_committed_unrun_for_any_kernel_and_opens_with_its_parameters(path):
    metadata = json.loads(path.read_text())["metadata"]
    tagged = ["parameters" in c.metadata.get("tags", []) for c in code_cells(path)]

    assert all(c.execution_count is None and not c.outputs for c in code_cells(path))
    assert "papermill" not in metadata
    assert metadata["kernelspec"]["name"] == "python3"
    assert tagged == [True] + [False] * (len(tagged) - 1)


@each_page
def test_a_page_defines_nothing(path):
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    for cell in code_cells(path):
        nodes = list(ast.walk(ast.parse(cell.source)))
        assert not any(isinstance(node, definitions) for node in nodes), cell.source


def command(tmp_path: Path, name: str, *arguments: str) -> list[str]:
    """papermill as a user types it."""
    called = [sys.executable, "-m", "papermill", "--no-progress-bar"]
    paths = [str(ROOT / "notebooks" / f"{name}.ipynb"), str(tmp_path / "out.ipynb")]
    return [*called, *paths, *arguments]


def elsewhere(tmp_path: Path) -> dict[str, str]:
    """An environment in which whatever is written goes to tmp_path."""
    return os.environ | {
        "PSANNLM_REPORTS": str(tmp_path / "reports"),
        "PSANNLM_CACHE": str(tmp_path / "cache"),
        "PSANNLM_CHECKPOINTS": str(tmp_path / "checkpoints"),
    }


def papermill(tmp_path: Path, *arguments: str, name: str = "throughput", cwd: Path = ROOT):
    return subprocess.run(
        command(tmp_path, name, *arguments),
        cwd=cwd,
        env=elsewhere(tmp_path),
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_what_cannot_be_met_is_refused_all_at_once_and_nothing_is_written(tmp_path):
    wrong = ["-p", "base", "respsan", "-p", "setps", "3", "-p", "n_heads", "3"]
    wrong += ["-p", "compile", "maybe", "-y", "{learning_rate: fast}"]

    done = papermill(tmp_path, *wrong)

    assert done.returncode != 0
    assert not (tmp_path / "reports").exists()
    for message in (
        "unknown base 'respsan', did you mean 'respsann'?",
        "setps: unknown, did you mean 'min_steps'?",
        "d_model must be a multiple of n_heads, got 64 and 3",
        "compile: expected true or false, got 'maybe'",
        "learning_rate: expected a number, got 'fast'",
    ):
        assert message in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_leaves_every_file_with_its_hash_and_names_no_folder(tmp_path, name):
    arguments, files = RUNS[name]

    done = papermill(tmp_path, *arguments, name=name, cwd=WHERE.get(name, ROOT))

    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "reports" / "benchmarks").iterdir()
    evidence = load(folder)
    identities.check(evidence)
    assert evidence.is_complete
    kept = set(evidence.manifest["artifacts"])
    assert kept - {n for n in kept if n.endswith(".svg") and name == "tiny_corpus"} == (
        files | COMMON | {f"{name}.ipynb"}
    )
    path = f"{name}.ipynb" if name in WHERE else f"notebooks/{name}.ipynb"
    assert f" {path} out.ipynb " in evidence.manifest["command"]
    for file in (f"{name}.ipynb", "run.json"):
        assert str(ROOT) not in (folder / file).read_text()
    FOUND[name](folder)


def found_throughput(folder: Path) -> None:
    """Text that papermill passes for a flag is understood."""
    assert load(folder).manifest["parameters"]["compile"] is False


def found_memory(folder: Path) -> None:
    entries = json.loads((folder / "memory.json").read_text())
    assert [(entry["variant"], entry["grad_checkpoint"]) for entry in entries] == [
        ("default", False), ("default", True), ("plain_loss", False), ("plain_sine", False),
    ]  # fmt: skip
    assert all(entry["saved_verdict"] == "within 2%" for entry in entries)


def found_peer(folder: Path) -> None:
    """A package that cannot be installed is told in its rows, and ours are measured."""
    rows = pd.read_csv(folder / "peer.csv").set_index("side")
    assert set(rows.loc["published", "status"]) == {"failed"}
    assert all("NAME==VERSION" in reason for reason in rows.loc["published", "reason"])
    assert set(rows.loc["ours", "verdict"]) == {"not compared"}
    assert (rows.loc["ours", "value"] > 0).all()


def found_training(folder: Path) -> None:
    """Weights stay outside the evidence."""
    assert [p.name for p in (folder.parents[2] / "checkpoints").iterdir()] == [folder.name]
    assert not list(folder.rglob("*.safetensors"))


WHERE = {"throughput": ROOT / "notebooks"}
"""Notebooks that are run from another folder than the project's: their own."""

FOUND = {
    "throughput": found_throughput,
    "memory": found_memory,
    "peer": found_peer,
    "tiny_corpus": found_training,
}


@pytest.mark.slow
def test_a_training_on_a_text_that_is_not_there_names_the_way_to_one(tmp_path):
    done = papermill(tmp_path, "-p", "corpus", "datasets/lm/no_such.txt", name="tiny_corpus")

    assert done.returncode != 0
    assert "no_such.txt does not exist; build one: python -m psannlm corpus from" in done.stderr


FEW_ARMS = (
    "-y",
    "{base: [respsann, waveresnet, gelu], wave: none, ablation: [], scale_arms: [], "
    "train_megabytes: 0.02, context_length: 32}",
)
"""A shootout of a dozen short trainings, two of whose arms are one network."""


@pytest.fixture(scope="module")
def shootout(tmp_path_factory):
    """Folder of a run that nobody disturbed."""
    tmp_path = tmp_path_factory.mktemp("shootout")
    done = papermill(tmp_path, *FEW_ARMS, name="shootout")
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "reports" / "benchmarks").iterdir()
    assert list((tmp_path / "checkpoints").iterdir()) == []
    return folder


@pytest.mark.slow
def test_a_shootout_leaves_the_files_of_the_plan_and_they_agree(shootout):
    evidence = load(shootout)

    identities.check(evidence)
    assert evidence.is_complete
    assert shootout.name.endswith("_base_shootout")
    names = set(evidence.manifest["artifacts"])
    assert names >= {"summary.json", "summary.csv", "leaderboard.md", "gates.csv"}
    runs = {f"runs/{a}_seed{s}/metrics.json" for a in ("respsann", "gelu") for s in (0, 1)}
    assert names >= runs
    metrics = json.loads((shootout / "runs" / "gelu_seed0" / "metrics.json").read_text())
    assert list(metrics)[:3] == ["val_loss", "val_ppl", "val_top1_acc"]
    assert {"train_tokens_per_s", "peak_cuda_mem_gb"} <= set(metrics)
    assert str(ROOT) not in (shootout / "shootout.ipynb").read_text()


@pytest.mark.slow
def test_two_names_of_one_network_share_a_place(shootout):
    rows = pd.read_csv(shootout / "summary.csv").set_index("base")

    assert rows.loc["waveresnet", "same_as"] == "respsann"
    assert rows.loc["waveresnet", "place"] == rows.loc["respsann", "place"]
    assert rows.loc["waveresnet", "val_loss"] == rows.loc["respsann", "val_loss"]
    assert "A/A comparison" in (shootout / "leaderboard.md").read_text()


@pytest.mark.slow
def test_a_shootout_that_was_killed_ends_with_the_same_summary(shootout, tmp_path):
    process = subprocess.Popen(
        command(tmp_path, "shootout", *FEW_ARMS), cwd=ROOT, env=elsewhere(tmp_path),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    reports = tmp_path / "reports" / "benchmarks"
    until = time.monotonic() + 60
    while len(kept := list(reports.glob("*/cells/[!.]*.json"))) < 4:
        assert time.monotonic() < until
        time.sleep(0.1)
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
    [folder] = reports.iterdir()
    written = {path: path.stat().st_mtime_ns for path in kept}

    again = subprocess.run(
        command(tmp_path, "shootout", *FEW_ARMS), cwd=ROOT, capture_output=True, text=True,
        env=elsewhere(tmp_path) | {RESUME: str(folder)},
    )  # fmt: skip

    assert again.returncode == 0, again.stderr
    assert load(folder).is_complete
    assert {path: path.stat().st_mtime_ns for path in kept} == written
    timed = (
        "train_tokens_per_s",
        "train_seconds",
        "overhead_seconds",
        "peak_rss_mib",
        "started_at",
    )
    columns = [name for name in SUMMARY.names if name not in timed]
    found, whole = (pd.read_csv(one / "summary.csv")[columns] for one in (folder, shootout))
    pd.testing.assert_frame_equal(found, whole, check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (
            ("-p", "base", "gelo", "-p", "tuning_seed", "1", "-y", "{learning_rates: [0.1]}"),
            [
                "unknown base 'gelo', did you mean 'gelu'?",
                "tuning_seed must be none of seeds, got 1 and 0, 1",
                "every arm must be tuned with as many settings",
            ],
        ),
        (
            ("-p", "scheduler", "tcp://127.0.0.1:1"),
            ["a running dask scheduler, got tcp://127.0.0.1"],
        ),
        (("-p", "with_lm_eval", "True", "-p", "lm_eval_folder", "no/such"), ["does not exist"]),
    ],
    ids=["parameters", "scheduler", "tasks"],
)
def test_a_shootout_that_cannot_be_is_refused_before_its_first_training(
    tmp_path, arguments, messages
):
    done = papermill(tmp_path, *arguments, name="shootout")

    assert done.returncode != 0
    assert all(message in done.stderr for message in messages)
    assert not list((tmp_path / "reports").rglob("cells/*.json"))
