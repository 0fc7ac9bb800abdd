"""The script that measures either side makes sure of its package, and leaves a line a mode."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import psannlm
from psannlm.bench import saved, timing
from psannlm.pages.peer import saved_worker as peer_worker
from psannlm.pages.peer import worker as peer_side_worker
from psannlm.pages.peer.ours import Ours
from psannlm.pages.peer.worker import load, main, side_of
from tests.peers import TOOLS, side_task, stand_in
from tests.standing_alone import foreign_imports


def test_our_side_is_our_package():
    assert isinstance(side_of(side_task(), TOOLS), Ours)


def test_another_package_is_never_taken_for_ours(monkeypatch):
    other = SimpleNamespace(__file__="/elsewhere/psannlm/__init__.py")
    monkeypatch.setitem(sys.modules, "psannlm", other)

    with pytest.raises(ImportError, match="is not ours"):
        side_of(side_task(), TOOLS)


def test_our_package_is_never_taken_for_the_other(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))

    with pytest.raises(ImportError, match="not the one that was installed"):
        side_of(side_task(python="other"), TOOLS)


def test_the_other_package_is_the_one_of_its_interpreter(monkeypatch, tmp_path):
    package = stand_in(monkeypatch)
    package.__file__ = str(tmp_path / "lib" / "psannlm" / "__init__.py")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setitem(sys.modules, "psannlm", package)

    side = side_of(side_task(python="other", setting="best"), TOOLS)

    assert type(side).__name__ == "Published"
    assert side.plain is peer_worker
    assert side.attention == "sdpa attention"


def test_what_is_shared_is_loaded_from_its_file(monkeypatch):
    monkeypatch.setattr(sys, "modules", dict(sys.modules))

    loaded = load("saved")

    assert loaded is not saved
    assert Path(str(loaded.__file__)) == Path(str(saved.__file__))
    assert foreign_imports(timing) == foreign_imports(saved) == set()
    assert foreign_imports(peer_worker) == foreign_imports(peer_side_worker) == set()


@pytest.fixture
def rows(monkeypatch, tmp_path):
    """Runs a task of these modes with this measure; tells its lines."""

    def run(measure, *modes: str) -> list[dict]:
        works = SimpleNamespace(measure=measure)
        upkeep = SimpleNamespace(
            stop_when_orphaned=lambda: None,
            release_memory=lambda: None,
            reason_of=TOOLS.upkeep.reason_of,
        )

        def load(stem: str) -> ModuleType | SimpleNamespace:
            return {"works": works, "upkeep": upkeep}.get(stem, getattr(TOOLS, stem))

        monkeypatch.setattr(peer_side_worker, "load", load)
        (tmp_path / "task").write_text(json.dumps(side_task(modes=modes)))
        main([str(tmp_path / "task"), str(tmp_path / "result")])
        return [json.loads(line) for line in (tmp_path / "result").read_text().splitlines()]

    return run


def test_a_failed_mode_does_not_take_the_next_with_it(rows):
    def measure(side, task, mode, tools):
        assert isinstance(side, Ours)
        if mode == "forward":
            raise MemoryError("full")
        return {"tokens": task["new_tokens"]}

    first, second = rows(measure, "forward", "generate")

    assert (first["mode"], first["status"]) == ("forward", "failed")
    assert first["reason"] == "out of memory: full"
    assert (second["mode"], second["status"], second["reason"]) == ("generate", "ok", "")
    assert second["tokens"] == 5
    assert first["started_at"].endswith("+00:00")


def test_a_wrong_package_is_the_reason_of_every_mode(rows, monkeypatch):
    monkeypatch.setattr(psannlm, "__file__", "/elsewhere/psannlm/__init__.py")

    found = rows(lambda *_: {}, "forward", "saved")

    assert [row["status"] for row in found] == ["failed"] * 2
    assert all("not ours" in row["reason"] for row in found)
