"""The memory page measures each cell once, then the package if asked, and keeps both."""

from pathlib import Path

import pytest
import torch

from psannlm.evidence import cells
from psannlm.evidence.runs import Run
from psannlm.evidence.session import Page
from psannlm.files import MIB
from psannlm.pages.memory import plan as memory_experiment
from psannlm.pages.memory.cells import MEMORY, PEERS
from psannlm.pages.memory.measured import measure
from psannlm.pages.memory.records import read_peers
from psannlm.pages.peer import package as peer
from tests.synthetic import start_manifest
from tests.synthetic_memory import memory_config

N_CELLS = 2 * 2
"""Checkpointing off and on, in two blocks."""

PEER = {"peer": "package==1.0"}


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """Processes that would have run, each answered with known bytes."""
    tasks = []

    def run_task(task, **options):
        tasks.append(task)
        saved = {True: 4 * MIB, False: 10 * MIB}[task.config.grad_checkpoint]
        found = {"status": "ok", "reason": "", "saved_bytes": saved, "seconds": [0.5]}
        return [{"mode": mode, **found} for mode in task.modes]

    monkeypatch.setattr(memory_experiment, "run_task", run_task)
    return tasks


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """Packages that would have been installed; each keeps 25 MiB."""
    names = []

    def environment(requirement, cache):
        names.append(requirement)
        return Path("python")

    def run_task(task, **options):
        return [{"mode": "saved", "status": "ok", "reason": "", "saved_bytes": 25 * MIB}]

    monkeypatch.setattr(peer, "environment", environment)
    monkeypatch.setattr(peer, "run_task", run_task)
    return names


def page_of(reports, **changes) -> Page:
    few = {"base": ("respsann",), "batch_tokens": (32,), "contexts": (), "precision": ("fp32",)}
    config = memory_config(**few | {"variants": (), "n_repeats": 2} | changes)
    run = Run.start("benchmarks", start_manifest("memory", config), reports=reports)
    return Page("memory", config, run, torch.device("cpu"))


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """The page of a run that was killed in its third cell."""
    page = page_of(tmp_path, **PEER)
    answer, begun = memory_experiment.run_task, []

    def killed(task, **options):
        begun.append(task)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return answer(task, **options)

    with monkeypatch.context() as patch:
        patch.setattr(memory_experiment, "run_task", killed)
        with pytest.raises(KeyboardInterrupt):
            measure(page, page.config)
    return page


def resumed(page) -> Page:
    return Page(page.name, page.config, Run.resume(page.run.folder, page.run.manifest), page.device)


def test_what_was_measured_is_in_the_tables_and_names_its_run(tmp_path, measured):
    page = page_of(tmp_path, **PEER)

    found = measure(page, page.config)

    assert len(measured) == N_CELLS
    assert list(found.rows["saved_mib"]) == [10, 4]
    assert list(found.rows["n_ok"]) == [2, 2]
    assert set(found.rows["timestamp"]) == {page.run.folder.name}
    assert set(found.rows["device"]) == {page.device_name}
    assert list(found.savings["saved_less_mib"]) == [6]
    assert list(found.peer["ratio"]) == [0.4]


def test_each_cell_is_kept_before_the_next_and_the_package_comes_last(tmp_path, monkeypatch):
    page, written = page_of(tmp_path, **PEER), []
    write = page.run.write

    def watched(name, content):
        written.append(name)
        write(name, content)

    monkeypatch.setattr(page.run, "write", watched)
    measure(page, page.config)

    assert written == ["samples.csv", "memory_records.json"] * N_CELLS + ["peer_records.json"]


def test_the_package_that_is_named_is_measured_and_kept(tmp_path, asked):
    page = page_of(tmp_path, **PEER, precision=("fp32", "bf16"))

    found = measure(page, page.config)

    assert asked == ["package==1.0"]
    kept = read_peers((page.run.folder / PEERS).read_text(encoding="utf-8"))
    assert [(p.package, p.version, p.precision) for p in kept] == [
        ("package", "1.0", "fp32"),
        ("package", "1.0", "bf16"),
    ]
    assert list(found.peer["peer_saved_mib"]) == [25, 25]


def test_no_package_is_measured_unless_one_is_named(tmp_path, asked):
    page = page_of(tmp_path)

    found = measure(page, page.config)

    assert asked == []
    assert found.peer.empty
    assert read_peers((page.run.folder / PEERS).read_text(encoding="utf-8")) == []


def test_a_killed_run_keeps_the_cells_that_it_had(interrupted, asked):
    assert len(cells.recorded(interrupted.run, MEMORY)) == 2
    assert asked == []
    assert not (interrupted.run.folder / PEERS).exists()


def test_a_resumed_run_measures_only_what_is_missing(interrupted, measured):
    before = cells.recorded(interrupted.run, MEMORY)
    page = resumed(interrupted)
    measured.clear()

    found = measure(page, page.config)

    assert len(measured) == N_CELLS - 2
    records = cells.recorded(page.run, MEMORY)
    assert records[:2] == before
    assert [record.order for record in records] == list(range(N_CELLS))
    assert list(found.rows["n_ok"]) == [2, 2]
    assert list(found.peer["ratio"]) == [0.4]


def test_a_run_that_has_every_cell_measures_none(tmp_path, measured):
    page = page_of(tmp_path)
    first = measure(page, page.config)
    measured.clear()

    again = resumed(page)
    second = measure(again, again.config)

    assert measured == []
    assert second.rows.equals(first.rows)


def test_a_cell_that_failed_is_a_row_with_its_reason(tmp_path, monkeypatch):
    def run_task(task, **options):
        return [{"mode": mode, "status": "failed", "reason": "killed"} for mode in task.modes]

    monkeypatch.setattr(memory_experiment, "run_task", run_task)
    page = page_of(tmp_path, **PEER)

    found = measure(page, page.config)

    assert set(found.rows["status"]) == {"failed"}
    assert set(found.rows["reason"]) == {"killed"}
    assert list(found.peer["peer_saved_mib"]) == [25], "the package is measured all the same"
