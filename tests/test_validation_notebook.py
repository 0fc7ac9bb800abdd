"""The validation page by papermill: what it leaves, and how it ends when a check fails."""

import json
import os
import signal
import subprocess
import sys
import time

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

HANG = """
    import pathlib, time

    def hang(case):
        while not pathlib.Path({path!r}).exists():
            time.sleep(0.1)
        return ENTRIES["GPU-01"].run(case)

    suite.CHECKS["GPU-02"] = ENTRIES["GPU-02"]._replace(run=hang)
"""


@pytest.fixture
def surroundings(tmp_path, monkeypatch):
    """Runs go to tmp_path; the fixture's value is where they go."""
    for name in ("OUT_DIR", "BENCH_OUT", "TINY_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PSANNLM_REPORTS", str(tmp_path / "reports"))
    return tmp_path / "reports" / "gpu"


@pytest.fixture
def made_up(tmp_path, monkeypatch, surroundings):
    """The checks of notebooks, and of this process, are made up; returns what makes them so."""
    made_up_checks(monkeypatch)
    site = tmp_path / "site" / "sitecustomize.py"
    site.parent.mkdir()
    site.write_text(PATCH)
    monkeypatch.setenv("PYTHONPATH", f"{site.parent}{os.pathsep}{ROOT}")
    return site


def command(tmp_path, *arguments):
    words = [sys.executable, "-m", "papermill", "--no-progress-bar"]
    words += ["notebooks/validation.ipynb", str(tmp_path / "out.ipynb")]
    return [*words, *arguments]


def papermill(tmp_path, *arguments):
    """papermill as a user types it."""
    return subprocess.run(command(tmp_path, *arguments), cwd=ROOT, capture_output=True, text=True)


def html_of(notebook):
    """All that a notebook shows as HTML."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [out.get("data", {}).get("text/html", "") for c in cells for out in c.outputs]
    return "".join(shown)


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
    evidence = load(folder)
    identities.check(evidence)
    assert evidence.is_complete
    assert set(evidence.manifest["artifacts"]) == FILES
    assert [c["check"] for c in json.loads(evidence.text("summary.json"))["findings"]] == ["GPU-08"]
    assert str(ROOT) not in "".join(evidence.text(name) for name in FILES)


@pytest.mark.slow
def test_a_list_of_checks_runs_where_the_environment_says(tmp_path, made_up, monkeypatch):
    monkeypatch.setenv("OUT_DIR", str(tmp_path / "mine"))

    done = papermill(tmp_path, "-y", "{only: [GPU-06, GPU-01], base: transformer}")

    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "mine").iterdir()
    evidence = load(folder)
    identities.check(evidence)
    found = [
        (f["check"], f["status"]) for f in json.loads(evidence.text("summary.json"))["findings"]
    ]
    assert found == [("GPU-01", "passed"), ("GPU-06", "skipped")]


@pytest.mark.slow
def test_a_failed_check_is_sound_evidence_and_a_failed_command(made_up, surroundings):
    output = runner.EXECUTED / "test_validation.ipynb"

    outcome = runner.run_notebook("validation", [], output)

    reason = "CheckFailedError: GPU-02 failed on respsann: loss is inf, must be at most 0.5"
    assert outcome.reason.splitlines()[0] == reason
    assert "--resume" not in outcome.reason
    [folder] = surroundings.iterdir()
    evidence = load(folder)
    identities.check(evidence)
    assert evidence.is_complete
    kept = nbformat.read(folder / "validation.ipynb", as_version=4)
    assert kept.cells[-1].id == "finish"
    shown = html_of(kept)
    assert "✗ failed" in shown
    assert "#b3261e" in shown
    assert "<svg" in shown
    last = nbformat.read(output, as_version=4).cells[-1].outputs[0]
    assert (last.ename, len(last.traceback)) == ("CheckFailedError", 1)


@pytest.mark.slow
def test_a_killed_validation_goes_on_without_repeating_a_check(tmp_path, made_up, surroundings):
    made_up.write_text(PATCH + HANG.format(path=str(tmp_path / "go on")))
    words = command(tmp_path, "-y", "{only: [GPU-01, GPU-02], base: [transformer]}")
    with subprocess.Popen(
        words, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        while not list(surroundings.glob("*/summary.json")) and process.poll() is None:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    [folder] = surroundings.iterdir()
    before = json.loads((folder / "summary.json").read_text())["findings"]
    (tmp_path / "go on").touch()

    outcome = runner.resume(folder)

    assert outcome.reason == ""
    evidence = load(folder)
    identities.check(evidence)
    after = json.loads(evidence.text("summary.json"))["findings"]
    assert [f["check"] for f in after] == ["GPU-01", "GPU-02"]
    assert after[:1] == before
