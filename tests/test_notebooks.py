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
from psannlm.pages.shootout.tables import SUMMARY, TIMED
from psannlm.run import check as identities

PAGES = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
SMALL = ["-p", "n_repeats", "1", "-p", "d_model", "16", "-p", "min_seconds", "0.01"]
FILES = {
    "README.md",
    "ceiling_forward_fp32.svg",
    "ceiling_training_step_fp32.svg",
    "cells.csv",
    "config_used.yaml",
    "samples.csv",
    "system.json",
    "throughput.csv",
    "throughput.ipynb",
    "throughput_forward_fp32.svg",
    "throughput_training_step_fp32.svg",
}


def code_cells(path):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


@each_page
def test_a_page_is_committed_unrun(path):
    assert all(c.execution_count is None and not c.outputs for c in code_cells(path))
    assert "papermill" not in json.loads(path.read_text())["metadata"]


@each_page
def test_a_page_opens_with_its_parameters(path):
    tags = [c.metadata.get("tags", []) for c in code_cells(path)]

    assert "parameters" in tags[0]
    assert not any("parameters" in later for later in tags[1:])


@each_page
def test_a_page_defines_nothing(path):
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    for cell in code_cells(path):
        nodes = list(ast.walk(ast.parse(cell.source)))
        assert not any(isinstance(node, definitions) for node in nodes), cell.source


TRAINING_FILES = {
    "README.md", "config_used.yaml", "loss.csv", "loss_curve.png", "metrics.json", "samples.json",
    "sine.csv", "speed.csv", "system.json", "tiny_corpus.ipynb", "tokenizer.json", "yardsticks.csv",
}  # fmt: skip


@each_page
def test_a_page_runs_on_any_python_kernel(path):
    assert json.loads(path.read_text())["metadata"]["kernelspec"]["name"] == "python3"


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
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-p", "base", "respsan"), "unknown base 'respsan', did you mean 'respsann'?"),
        (("-p", "setps", "3"), "setps: unknown, did you mean 'min_steps'?"),
        (("-p", "n_heads", "3"), "d_model must be a multiple of n_heads, got 64 and 3"),
        (("-p", "batch_tokens", "100"), "batch_tokens must be multiples of context_length"),
        (("-p", "compile", "maybe"), "compile: expected true or false, got 'maybe'"),
        (("-y", "{learning_rate: fast}"), "learning_rate: expected a number, got 'fast'"),
    ],
    ids=["base", "parameter", "rule", "multiple", "bool", "type"],
)
def test_what_cannot_be_met_is_refused_and_nothing_is_written(tmp_path, arguments, message):
    done = papermill(tmp_path, *arguments)

    assert done.returncode != 0
    assert message in done.stderr
    assert not (tmp_path / "reports").exists()


@pytest.mark.slow
def test_a_run_leaves_every_file_with_its_hash(tmp_path):
    done = papermill(tmp_path, "-p", "base", "respsann", *SMALL)

    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "reports" / "benchmarks").iterdir()
    evidence = load(folder)
    identities.check(evidence)
    assert evidence.is_complete
    assert set(evidence.manifest["artifacts"]) == FILES
    assert " notebooks/throughput.ipynb out.ipynb " in evidence.manifest["command"]
    assert str(ROOT) not in (folder / "throughput.ipynb").read_text()
    assert str(ROOT) not in (folder / "run.json").read_text()


@pytest.mark.slow
def test_a_page_runs_from_its_own_folder_too(tmp_path):
    done = papermill(tmp_path, "-p", "base", "transformer", *SMALL, cwd=ROOT / "notebooks")

    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_another_package_of_that_name_is_told_apart(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "psannlm.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "other"))

    done = papermill(tmp_path, cwd=tmp_path)

    assert done.returncode != 0
    assert "is another package of that name; `make setup`" in done.stderr


@pytest.mark.slow
def test_text_that_papermill_passes_for_a_flag_is_understood(tmp_path):
    done = papermill(tmp_path, "-p", "base", "transformer", "-p", "compile", "false", *SMALL)

    [folder] = (tmp_path / "reports" / "benchmarks").iterdir()
    assert done.returncode == 0, done.stderr
    assert load(folder).manifest["parameters"]["compile"] is False


ONE_BASE = ("-p", "base", "respsann", "-p", "min_seconds", "0.01", "-p", "min_steps", "2")
MEMORY_FILES = {
    "README.md", "breakdown_fp32.svg", "config_used.yaml", "memory.ipynb", "memory.json",
    "memory_records.json", "peer.csv", "peer_records.json", "samples.csv", "savings.csv",
    "system.json",
}  # fmt: skip


@pytest.mark.slow
def test_a_measurement_of_memory_leaves_every_file_and_both_entries(tmp_path):
    done = papermill(tmp_path, *ONE_BASE, name="memory")

    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "reports" / "benchmarks").iterdir()
    evidence = load(folder)
    identities.check(evidence)
    assert evidence.is_complete
    assert set(evidence.manifest["artifacts"]) == MEMORY_FILES
    entries = json.loads((folder / "memory.json").read_text())
    assert [(entry["variant"], entry["grad_checkpoint"]) for entry in entries] == [
        ("default", False),
        ("default", True),
        ("plain_loss", False),
        ("plain_sine", False),
    ]
    assert all(entry["saved_verdict"] == "within 2%" for entry in entries)
    assert str(ROOT) not in (folder / "memory.ipynb").read_text()


PEER_FILES = {
    "README.md", "cells.csv", "config_used.yaml", "peer.csv", "peer.ipynb", "protocol.csv",
    "protocol_records.csv", "samples.csv", "system.json",
}  # fmt: skip
NO_PACKAGE = (
    "-y", "{peer: psannlm, base: respsann, d_model: 16, setting: defaults, work: [forward, saved]}",
)  # fmt: skip
"""A package without a version, which is refused before the network is asked for it."""


@pytest.mark.slow
def test_a_comparison_whose_package_cannot_be_installed_is_complete_and_says_so(tmp_path):
    done = papermill(tmp_path, *ONE_BASE, *NO_PACKAGE, name="peer")

    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "reports" / "benchmarks").iterdir()
    evidence = load(folder)
    identities.check(evidence)
    assert evidence.is_complete
    assert set(evidence.manifest["artifacts"]) == PEER_FILES
    rows = pd.read_csv(folder / "peer.csv").set_index("side")
    assert set(rows.loc["published", "status"]) == {"failed"}
    assert all("NAME==VERSION" in reason for reason in rows.loc["published", "reason"])
    assert set(rows.loc["ours", "verdict"]) == {"not compared"}
    assert (rows.loc["ours", "value"] > 0).all()
    assert str(ROOT) not in (folder / "peer.ipynb").read_text()


FEW = ("-p", "train_megabytes", "0.02", "-p", "vocab_size", "300")
"""A training of a few steps."""


@pytest.mark.slow
def test_a_training_leaves_every_file_with_its_hash(tmp_path):
    done = papermill(tmp_path, *FEW, name="tiny_corpus")

    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "reports" / "benchmarks").iterdir()
    evidence = load(folder)
    identities.check(evidence)
    assert evidence.is_complete
    assert set(evidence.manifest["artifacts"]) >= TRAINING_FILES
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == [folder.name]
    assert not list(folder.rglob("*.safetensors"))
    assert str(ROOT) not in (folder / "tiny_corpus.ipynb").read_text()


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
    columns = [name for name in SUMMARY if name not in TIMED]
    found, whole = (pd.read_csv(one / "summary.csv")[columns] for one in (folder, shootout))
    pd.testing.assert_frame_equal(found, whole, check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-p", "base", "gelo"), "unknown base 'gelo', did you mean 'gelu'?"),
        (("-p", "tuning_seed", "1"), "tuning_seed must be none of seeds, got 1 and 0, 1"),
        (("-y", "{learning_rates: [0.1]}"), "every arm must be tuned with as many settings"),
        (("-p", "scheduler", "tcp://127.0.0.1:1"), "a running dask scheduler, got tcp://127.0.0.1"),
        (("-p", "with_lm_eval", "True", "-p", "lm_eval_folder", "no/such"), "does not exist"),
    ],
    ids=["arm", "seed", "grid", "scheduler", "tasks"],
)
def test_a_shootout_that_cannot_be_is_refused_before_its_first_training(
    tmp_path, arguments, message
):
    done = papermill(tmp_path, *arguments, name="shootout")

    assert done.returncode != 0
    assert message in done.stderr
    assert not list((tmp_path / "reports").rglob("cells/*.json"))
