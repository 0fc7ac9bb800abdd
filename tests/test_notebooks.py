"""Notebooks are pages: thin, committed unrun, strict about what they are asked."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from psannlm import ROOT
from psannlm.report import identities
from psannlm.report.runs import load

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


def papermill(tmp_path: Path, *arguments: str, name: str = "throughput", cwd: Path = ROOT):
    """papermill as a user types it; run folders go to tmp_path."""
    command = [sys.executable, "-m", "papermill", "--no-progress-bar"]
    command += [str(ROOT / "notebooks" / f"{name}.ipynb"), str(tmp_path / "out.ipynb")]
    return subprocess.run(
        [*command, *arguments],
        cwd=cwd,
        env=os.environ
        | {
            "PSANNLM_REPORTS": str(tmp_path / "reports"),
            "PSANNLM_CACHE": str(tmp_path / "cache"),
            "PSANNLM_CHECKPOINTS": str(tmp_path / "checkpoints"),
        },
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
