"""Processes of a check are told what to do, watched and stopped, and a failed job costs itself."""

import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from psannlm.checks.launcher import Outcome, ProcessError, run_jobs
from tests.checked import validation_config

pytestmark = pytest.mark.slow
WORKER = ("tests.tiny_worker",)


def run(worker: tuple[str, ...], *jobs: str, **options: Any) -> dict[str, Outcome]:
    """What two processes leave, or as many as asked."""
    given = {"config": validation_config(), "device": "cpu", "world": 2, "threads": 1} | options
    return dict(run_jobs(worker, jobs, **given))


def test_all_ranks_do_all_jobs_and_are_told_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "there.txt").write_text("12345")

    found = run(WORKER, "a", "b", config=validation_config(seed=7), beside=tmp_path / "saved")

    assert list(found) == ["a", "b"]
    for outcome in found.values():
        told = [outcome.of(rank)["told"].tolist() for rank in (0, 1)]
        assert told == [[0, 2, 1, 7, 5], [1, 2, 1, 7, 5]]
    assert (tmp_path / "saved" / "there.txt").read_text() == "12345"


def test_a_rank_that_ends_costs_its_job_alone_and_says_why(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    found = run(WORKER, "a", "dies", "b")

    assert (found["a"].reason, found["b"].reason) == ("", "")
    said = "process 1 of 2 ended with status 1; last words: out of ideas"
    with pytest.raises(ProcessError, match=said):
        found["dies"].of(0)
    assert list(tmp_path.iterdir()) == []


def test_processes_that_take_too_long_are_stopped() -> None:
    start = time.monotonic()

    # A module of Python's own, which starts at once and listens for ever.
    server = ("http.server", "0", "--directory")
    found = run(server, "a", config=validation_config(timeout_seconds=0.3))

    assert found["a"].reason.startswith("timed out after 0.3 s; ")
    assert time.monotonic() - start < 10


def test_processes_that_leave_nothing_are_told_from_those_that_fail() -> None:
    silent, failed = (run((module,), "a", world=1)["a"] for module in ("this", "nowhere"))

    assert silent == Outcome((), "the processes ended without a result")
    assert "ended with status 1; last words: " in failed.reason
    assert failed.reason.endswith("No module named nowhere")
