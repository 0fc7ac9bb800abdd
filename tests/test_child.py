"""Inside a measuring process: every mode leaves a line, a failed one with its reason."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from psannlm.bench import processes, upkeep


@dataclass(frozen=True)
class Errand:
    worker: ClassVar[tuple[str, ...]] = ()
    modes: tuple[str, ...]
    factor: int


@pytest.fixture(autouse=True)
def collections(monkeypatch):
    """Nothing watches, and what would be collected is counted: here it takes a second each time."""
    made = []
    monkeypatch.setattr(processes, "stop_when_orphaned", lambda: None)
    monkeypatch.setattr(upkeep.gc, "collect", lambda: made.append(1))
    return made


def served(folder: Path, measure, errand: Errand = Errand(("first", "second"), 3)):
    (folder / "task").write_text(json.dumps(asdict(errand)))
    processes.serve(Errand, measure, [str(folder / "task"), str(folder / "result")])
    return [json.loads(line) for line in (folder / "result").read_text().splitlines()]


def test_the_task_arrives_as_it_was_sent(tmp_path):
    arrived = []

    served(tmp_path, lambda errand, mode: arrived.append(errand) or {})

    assert arrived == [Errand(("first", "second"), 3)] * 2


def test_a_failed_mode_does_not_take_the_other_with_it(tmp_path):
    def measure(errand, mode):
        if mode == "first":
            raise torch.OutOfMemoryError("tried to allocate 8 GiB\nmore words")
        return {"value": errand.factor}

    first, second = served(tmp_path, measure)

    assert (first["mode"], first["status"]) == ("first", "failed")
    assert first["reason"] == "out of memory: tried to allocate 8 GiB"
    assert (second["mode"], second["status"], second["reason"]) == ("second", "ok", "")
    assert second["value"] == 3
    assert first["started_at"].endswith("+00:00")


def test_each_line_is_there_before_the_next_mode_begins(tmp_path):
    seen = []

    def measure(errand, mode):
        seen.append((tmp_path / "result").read_text().count("\n"))
        return {}

    served(tmp_path, measure)

    assert seen == [0, 1]


def test_what_a_mode_held_is_given_back_before_the_next(tmp_path, collections):
    found = served(tmp_path, lambda errand, mode: {"collected": len(collections)})

    assert [row["collected"] for row in found] == [0, 1]


def test_what_is_more_than_free_is_refused(monkeypatch):
    monkeypatch.setattr(processes, "available_memory_bytes", lambda device: 2**30)
    cpu = torch.device("cpu")

    processes.refuse_what_cannot_fit(2**30, "all of it", cpu)
    with pytest.raises(MemoryError, match=r"needs at least 3\.0 GiB \(all of it\), 1\.0 GiB"):
        processes.refuse_what_cannot_fit(3 * 2**30, "all of it", cpu)
