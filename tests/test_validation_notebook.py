"""The validation page by papermill: what it leaves, and how it ends when a check fails."""

import json
import os
import subprocess
import sys

import nbformat
import pytest

from psannlm import ROOT
from psannlm.evidence.runs import load
from psannlm.run import check as identities
from psannlm.run import preset as runner
from tests.validations import made_up_checks

FILES = {
    "README.md", "config_used.yaml", "measures.csv", "stdout.log", "strain_measures.svg",
    "summary.json", "system.json", "validation.ipynb",
}  # fmt: skip
PATCH = """
import sys

if any("ipykernel_launcher" in word for word in sys.orig_argv):
    from psannlm.checks import suite
    from tests.validations import ENTRIES

    suite.CHECKS = dict(ENTRIES)
"""
"""Runs when an interpreter starts: the kernel of a notebook gets made-up checks."""


@pytest.fixture
def surroundings(tmp_path, monkeypatch):
    """Runs go to tmp_path; the fixture's value is where they go."""
    for name in ("OUT_DIR", "BENCH_OUT", "TINY_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PSANNLM_REPORTS", str(tmp_path / "reports"))
    return tmp_path / "reports" / "gpu"


@pytest.fixture
def made_up(tmp_path, monkeypatch, surroundings):
    """The checks of notebooks, and of this process, are made up."""
    made_up_checks(monkeypatch)
    site = tmp_path / "site" / "sitecustomize.py"
    site.parent.mkdir()
    site.write_text(PATCH)
    monkeypatch.setenv("PYTHONPATH", f"{site.parent}{os.pathsep}{ROOT}")


def papermill(tmp_path, *arguments):
    """papermill as a user types it."""
    command = [sys.executable, "-m", "papermill", "--no-progress-bar"]
    command += ["notebooks/validation.ipynb", str(tmp_path / "out.ipynb"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def sound(folder):
    """The evidence of a complete run."""
    evidence = load(folder)
    identities.check(evidence)
    assert evidence.is_complete
    return evidence


def findings_of(folder):
    return json.loads((folder / "summary.json").read_text())["findings"]


@pytest.mark.slow
def test_an_unknown_check_is_refused_with_the_valid_ones_before_anything_is_written(
    tmp_path, surroundings
):
    done = papermill(tmp_path, "-p", "only", "GPU-3")

    assert done.returncode != 0
    assert "only: must be one of GPU-01, GPU-02, GPU-03, GPU-04, GPU-05" in done.stderr
    assert "did you mean 'GPU-03'?, got 'GPU-3'" in done.stderr
    assert not surroundings.exists()


@pytest.mark.slow
def test_one_check_of_the_suite_leaves_every_file_with_its_hash(tmp_path, surroundings):
    done = papermill(tmp_path, "-p", "only", "GPU-08", "-p", "base", "transformer")

    assert done.returncode == 0, done.stderr
    [folder] = surroundings.iterdir()
    evidence = sound(folder)
    assert set(evidence.manifest["artifacts"]) == FILES
    assert [finding["check"] for finding in findings_of(folder)] == ["GPU-08"]
    assert str(ROOT) not in "".join(evidence.text(name) for name in FILES)


@pytest.mark.slow
@pytest.mark.usefixtures("made_up")
def test_a_failed_check_is_sound_evidence_and_a_failed_command(tmp_path, monkeypatch):
    monkeypatch.setenv("OUT_DIR", str(tmp_path / "mine"))
    output = runner.EXECUTED / "test_validation.ipynb"

    outcome = runner.run_notebook("validation", [], output)

    reason = "CheckFailedError: GPU-02 failed on respsann: loss is inf, must be at most 0.5"
    assert outcome.reason.splitlines()[0] == reason
    assert "--resume" not in outcome.reason
    [folder] = (tmp_path / "mine").iterdir()
    sound(folder)
    kept = nbformat.read(folder / "validation.ipynb", as_version=4)
    assert kept.cells[-1].id == "finish"
    outputs = [out for cell in kept.cells for out in cell.get("outputs", ())]
    shown = "".join(out.get("data", {}).get("text/html", "") for out in outputs)
    assert "✗ failed" in shown
    assert "#b3261e" in shown
    assert "<svg" in shown
    last = nbformat.read(output, as_version=4).cells[-1].outputs[0]
    assert (last.ename, len(last.traceback)) == ("CheckFailedError", 1)
