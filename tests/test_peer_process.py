"""A process of either side is told what to measure, or there is a reason why none ran."""

import subprocess
import sys
from pathlib import Path

import pytest

from psannlm.bench import processes
from psannlm.model.cost import Shape
from psannlm.pages.peer import process as peer_process
from psannlm.pages.peer.cells import AGAIN, OURS, PUBLISHED
from psannlm.pages.peer.process import WORKER, Sides, SideTask
from tests.peers import peer_config, side_task

CONFIG = peer_config()


@pytest.fixture
def started(monkeypatch):
    tasks = []

    def run_task(task, **options):
        tasks.append((task, options))
        return [{"mode": mode, "status": "failed", "reason": "pretended"} for mode in task.modes]

    monkeypatch.setattr(peer_process, "run_task", run_task)
    monkeypatch.setattr(peer_process, "environment", lambda *_: Path("other/python"))
    return tasks


def run(sides: Sides, side: str, base: str = "respsann") -> list[dict]:
    return sides.run(
        side, CONFIG.network_of(base), Shape(2, 8), setting="best", precision="bf16",
        modes=("forward", "saved"), measures="works",
    )  # fmt: skip


def test_both_interpreters_run_the_same_script_and_neither_looks_beside_it():
    ours, other = SideTask(**side_task()), SideTask(**side_task(python="other/python"))

    assert ours.worker == (sys.executable, "-P", str(WORKER))
    assert other.worker == ("other/python", "-I", str(WORKER))
    assert WORKER.exists()


def test_a_process_is_told_the_network_the_batch_and_the_setting(started, tmp_path):
    run(Sides(CONFIG, tmp_path, tmp_path), PUBLISHED)

    [(task, options)] = started
    assert (task.python, task.setting, task.precision) == ("other/python", "best", "bf16")
    assert (task.batch, task.tokens, task.device) == (2, 8, "cpu")
    assert task.modes == ("forward", "saved")
    assert task.model == CONFIG.network_of("respsann").model_dump()
    assert options["timeout_seconds"] == CONFIG.timeout_seconds


def test_what_fails_without_a_word_has_a_moment_all_the_same(started, tmp_path):
    rows = run(Sides(CONFIG, tmp_path, tmp_path), OURS)

    assert [row["reason"] for row in rows] == ["pretended"] * 2
    assert all(row["started_at"].endswith("+00:00") for row in rows)


def test_only_the_same_package_finds_code_that_was_compiled(started, tmp_path):
    sides = Sides(CONFIG, tmp_path, tmp_path)

    for side in (OURS, AGAIN, PUBLISHED):
        run(sides, side)

    ours, again, published = (options["cache"] for _, options in started)
    assert ours == again
    assert ours != published


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("disk is full"), "OSError: disk is full"),
        (subprocess.TimeoutExpired("pip", 600), "TimeoutExpired: Command 'pip' timed out"),
    ],
)
def test_whatever_keeps_the_package_away_is_its_reason(
    error, reason, started, tmp_path, monkeypatch
):
    def fails(*_):
        raise error

    monkeypatch.setattr(peer_process, "environment", fails)

    rows = run(Sides(CONFIG, tmp_path, tmp_path), PUBLISHED)

    assert {row["status"] for row in rows} == {"failed"}
    assert all(row["reason"].startswith(reason) for row in rows)
    assert started == []


def test_what_cannot_fit_is_not_tried(started, tmp_path, monkeypatch):
    needed = 2 * 16 * CONFIG.vocab_size
    monkeypatch.setattr(processes, "available_memory_bytes", lambda device: needed - 1)

    rows = run(Sides(CONFIG, tmp_path, tmp_path), OURS)

    assert started == []
    assert [row["mode"] for row in rows] == ["forward", "saved"]
    assert all(row["reason"].startswith("out of memory: needs at least") for row in rows)

    monkeypatch.setattr(processes, "available_memory_bytes", lambda device: needed)
    run(Sides(CONFIG, tmp_path, tmp_path), OURS)
    assert len(started) == 1
