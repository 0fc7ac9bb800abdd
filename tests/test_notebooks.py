"""Notebooks are pages: thin, committed unrun, strict about what they are asked."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from psannlm import ROOT
from psannlm.evidence.runs import load
from psannlm.run.check import check
from tests.synthetic import throughput_run
from tests.trainings import training_run

PAGES = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
ONE_BASE = ["-p", "base", "respsann", "-p", "min_seconds", "0.01", "-p", "min_steps", "2"]
FEW_STEPS = [
    "-y", "{train_megabytes: 0.02, validation_megabytes: 0.02, vocab_size: 300, d_model: 16}",
    "-y", "{context_length: 32, ngram_order: 2, sample_tokens: 8}",
]  # fmt: skip
NO_PACKAGE = [
    "-y", "{peer: psannlm, base: respsann, d_model: 16, setting: defaults, work: [forward, saved]}",
]  # fmt: skip
"""A package without a version, which is refused before the network is asked for it."""

NAMED = rb"gr(\xc3\xb6|.{2,9})\xc3?.{1,9}ere Texte|" + re.escape(os.fsencode(ROOT))
"""The folder of a text, however its umlauts are written, and that of the project."""

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


def papermill(tmp_path: Path, *arguments: str, name: str = "throughput", cwd: Path = ROOT):
    """papermill as a user types it; whatever is written goes to tmp_path."""
    command = [sys.executable, "-m", "papermill", "--no-progress-bar"]
    command += [str(ROOT / "notebooks" / f"{name}.ipynb"), str(tmp_path / "out.ipynb")]
    folders = {
        f"PSANNLM_{folder.upper()}": str(tmp_path / folder)
        for folder in ("reports", "cache", "checkpoints")
    }
    known = os.environ | folders | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, *arguments], cwd=cwd, env=known, capture_output=True, text=True
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
    private = tmp_path / "größere Texte"
    if name == "tiny_corpus":  # on a text of one's own, somewhere else
        private.mkdir()
        shutil.copy(ROOT / "datasets" / "lm" / "sample.txt", private / "notes.txt")
        arguments = [*arguments, "-p", "corpus", str(private / "notes.txt")]

    # One is run from another folder than the project's: its own.
    where = ROOT / "notebooks" if name == "throughput" else ROOT
    done = papermill(tmp_path, *arguments, name=name, cwd=where)

    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "reports" / "benchmarks").iterdir()
    evidence = load(folder)
    check(evidence)
    assert evidence.is_complete
    kept = set(evidence.manifest["artifacts"])
    assert kept - {n for n in kept if n.endswith(".svg") and name == "tiny_corpus"} == (
        files | COMMON | {f"{name}.ipynb"}
    )
    assert f" notebooks/{name}.ipynb out.ipynb " in evidence.manifest["command"]
    for file in (path for path in folder.rglob("*") if path.is_file()):
        assert not re.search(NAMED, file.read_bytes()), file
    look_at(name, folder)


def look_at(name: str, folder: Path) -> None:
    """What the small run of a notebook must have found."""
    if name == "throughput":  # text that papermill passes for a flag is understood
        assert load(folder).manifest["parameters"]["compile"] is False
    elif name == "memory":
        entries = json.loads((folder / "memory.json").read_text())
        assert [(entry["variant"], entry["grad_checkpoint"]) for entry in entries] == [
            ("default", False), ("default", True), ("plain_loss", False), ("plain_sine", False),
        ]  # fmt: skip
        assert all(entry["saved_verdict"] == "within 2%" for entry in entries)
    elif name == "peer":  # a package that cannot be installed is told, and ours are measured
        rows = pd.read_csv(folder / "peer.csv").set_index("side")
        assert set(rows.loc["published", "status"]) == {"failed"}
        assert all("NAME==VERSION" in reason for reason in rows.loc["published", "reason"])
        assert set(rows.loc["ours", "verdict"]) == {"not compared"}
        assert (rows.loc["ours", "value"] > 0).all()
    else:  # the text is known by its name, and weights stay outside the evidence
        assert load(folder).manifest["corpus"]["path"] == "notes.txt"
        assert [p.name for p in (folder.parents[2] / "checkpoints").iterdir()] == [folder.name]
        assert not list(folder.rglob("*.safetensors"))


@pytest.mark.slow
def test_results_show_the_chosen_page_and_make_no_run(tmp_path):
    speed, training = throughput_run(tmp_path / "reports"), training_run(tmp_path / "reports")
    before = sorted((tmp_path / "reports").rglob("*"))

    refused = papermill(tmp_path, "-p", "bsae", "respsann", name="results")
    done = papermill(tmp_path, "-p", "page", "throughput", name="results")

    assert done.returncode == 0, done.stderr
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    shown = "".join(str(cell.get("outputs", "")) for cell in cells)
    assert "Chosen: page throughput; 1 of 2 runs." in shown
    assert speed.name in shown
    assert training.name not in shown
    assert "bsae: unknown, did you mean 'base'?" in refused.stderr
    assert sorted((tmp_path / "reports").rglob("*")) == before


FEW_ARMS = (
    "-y",
    "{base: [respsann, waveresnet, gelu], wave: none, ablation: [], scale_arms: [], "
    "train_megabytes: 0.02, context_length: 32}",
)
"""A shootout of a dozen short trainings, two of whose arms are one network."""


@pytest.mark.slow
def test_a_shootout_leaves_the_files_of_the_plan_and_two_names_of_one_network_share_a_place(
    tmp_path,
):
    done = papermill(tmp_path, *FEW_ARMS, name="shootout")

    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "checkpoints").iterdir()) == []
    [folder] = (tmp_path / "reports" / "benchmarks").iterdir()
    evidence = load(folder)
    check(evidence)
    assert evidence.is_complete
    assert folder.name.endswith("_base_shootout")
    files = {f"runs/{a}_seed{s}/metrics.json" for a in ("respsann", "gelu") for s in (0, 1)}
    files |= {"summary.json", "summary.csv", "leaderboard.md", "gates.csv"}
    assert files <= set(evidence.manifest["artifacts"])
    metrics = json.loads((folder / "runs" / "gelu_seed0" / "metrics.json").read_text())
    assert list(metrics)[:3] == ["val_loss", "val_ppl", "val_top1_acc"]
    assert {"train_tokens_per_s", "peak_cuda_mem_gb"} <= set(metrics)
    assert str(ROOT) not in (folder / "shootout.ipynb").read_text()
    rows = pd.read_csv(folder / "summary.csv").set_index("base")
    assert rows.loc["waveresnet", "same_as"] == "respsann"
    shared = ["place", "val_loss"]
    assert rows.loc["waveresnet", shared].equals(rows.loc["respsann", shared])
    assert "A/A comparison" in (folder / "leaderboard.md").read_text()


@pytest.mark.slow
def test_a_shootout_that_cannot_be_is_refused_before_its_first_training(tmp_path):
    tasks = ("-p", "with_lm_eval", "True", "-p", "lm_eval_folder", "no/such")

    done = papermill(tmp_path, *tasks, name="shootout")

    assert done.returncode != 0
    assert "does not exist" in done.stderr
    assert not list((tmp_path / "reports").rglob("cells/*.json"))
