"""The plan of a run of memory, what comes of it, and a row of it measured again."""

from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch

from psannlm.config.schema import ConfigError
from psannlm.evidence.page import RerunRequest
from psannlm.evidence.runs import Run, load
from psannlm.evidence.session import Session
from psannlm.evidence.store import of_type
from psannlm.files import MIB
from psannlm.model.bases import cost_of
from psannlm.pages.memory import plan as memory_plans
from psannlm.pages.memory.page import PAGE
from psannlm.pages.memory.plan import memory, memory_plan, published, task_of
from psannlm.pages.memory.records import PeerRecord
from psannlm.pages.peer import plan as process
from tests.pages import open_session, pretend
from tests.synthetic_memory import SAVED, memory_config, memory_record, memory_run

CONFIG = memory_config(
    base=("respsann", "waveresnet", "transformer"), loss_chunk_tokens=8, n_repeats=3
)
PLAN = memory_plan(CONFIG)
FEW = {"base": ("respsann",), "batch_tokens": (32,), "contexts": (), "precision": ("fp32",)}
FEW |= {"variants": (), "n_repeats": 2}
N_CELLS = 2 * 2
"""Checkpointing off and on, in two blocks."""

PEER = {"peer": "package==1.0"}


def settings_of(repeat: int) -> set[tuple[Any, ...]]:
    return {cell.setting for cell in PLAN if cell.repeat == repeat}


def test_no_cell_is_measured_twice_and_the_seed_decides_the_order():
    overlapping = memory_config(contexts=(16, 8), batch_tokens=(32, 16, 64))

    for plan in (PLAN, memory_plan(overlapping)):
        assert set(Counter((cell.repeat, cell.setting) for cell in plan).values()) == {1}
        assert [cell.order for cell in plan] == list(range(len(plan)))
    assert memory_plan(CONFIG) == PLAN
    assert memory_plan(CONFIG.model_copy(update={"seed": 1})) != PLAN


def test_every_block_compares_bases_checkpointing_and_precisions():
    main = {
        (base, 16, 32, checkpoint, precision, "default")
        for base, checkpoint, precision in product(CONFIG.base, (False, True), ("fp32", "bf16"))
    }

    assert settings_of(1) == settings_of(2) == main
    assert settings_of(0) > main
    steady = {s for s in settings_of(0) if task_of(s, CONFIG).compared}
    assert steady == main, "only times that are compared wait for steady steps"


def test_curves_run_over_batch_and_context_in_the_first_precision():
    curves = {s for s in settings_of(0) if s.variant == "default"} - settings_of(1)

    places = product(CONFIG.base, [(16, 64), (8, 32)], (False, True))
    assert curves == {(base, *place, on, "fp32", "default") for base, place, on in places}


def test_a_plain_sine_is_measured_where_there_is_a_sine():
    found = Counter((s.variant, s.base) for s in settings_of(0) if s.variant != "default")

    expected = {("plain_sine", base) for base in ("respsann", "waveresnet")}
    expected |= {("plain_loss", base) for base in CONFIG.base}
    assert found == dict.fromkeys(expected, 2)
    assert not any(s.grad_checkpoint for s in settings_of(0) if s.variant != "default")


def test_the_process_is_told_the_cell():
    cell = next(c.setting for c in PLAN if c.setting.context_length == 8 and c.setting[3])

    task = task_of(cell, CONFIG)

    assert task.config == CONFIG.network_of(cell.base, context_length=8, grad_checkpoint=True)
    assert (task.shape, task.chunk_tokens, task.precision) == ((4, 8), 8, "fp32")


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    def answer(task):
        return {"saved_bytes": SAVED[task.config.grad_checkpoint], "seconds": [0.5]}

    return pretend(monkeypatch, memory_plans, answer)


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """Of the published package, which saves 25 MiB."""
    monkeypatch.setattr(process, "environment", lambda requirement: requirement)
    return pretend(monkeypatch, process, lambda task: {"saved_bytes": 25 * MIB})


@pytest.fixture
def session(tmp_path):
    """Of a run that compares with the published package."""
    return open_session(PAGE, memory_config(**FEW, **PEER), tmp_path)


def resumed(session) -> Session:
    session.run.lock.release()
    run = Run.resume(session.run.folder, session.run.manifest)
    return Session(PAGE, session.config, run, session.device)


def test_a_failed_cell_is_a_record_that_still_knows_what_was_predicted(monkeypatch):
    pretend(monkeypatch, memory_plans, lambda task: {"status": "failed", "reason": "pretended"})

    records = list(memory(CONFIG))

    assert len(records) == len(PLAN)
    for record, cell in zip(records, PLAN, strict=True):
        task = task_of(cell.setting, CONFIG)
        assert (record.repeat, record.order, record.setting) == cell
        assert (record.status, record.reason) == ("failed", "pretended")
        assert (record.saved_bytes, record.saved_kinds, record.seconds) == (None, {}, ())
        assert record.n_parameters == cost_of(task.config, task.shape).n_parameters
        assert record.predicted["parameters"] == 4 * record.n_parameters
        assert record.predicted["peak"] > record.predicted["parameters"]


def test_what_was_measured_is_in_the_tables_and_names_its_run(session, measured):
    session.measure()

    rows, savings, peer = session.tables.values()
    assert len(measured) == N_CELLS
    assert PAGE.total(session.config) == N_CELLS + 1
    assert list(rows["saved_mib"]) == [10, 4]
    assert list(rows["n_ok"]) == [2, 2]
    assert set(rows["timestamp"]) == {session.run.folder.name}
    assert set(rows["device"]) == {session.info.device}
    assert list(savings["saved_less_mib"]) == [6]
    assert list(peer["ratio"]) == [0.4]


def test_the_package_is_told_our_shape_with_its_fused_attention(tmp_path, asked):
    both = ("fp32", "bf16")
    session = open_session(PAGE, memory_config(**FEW | PEER | {"precision": both}), tmp_path)

    session.measure()

    for task, precision in zip(asked, both, strict=True):
        assert (task.python, task.precision, task.modes) == ("package==1.0", precision, ("saved",))
        assert (task.shape, task.setting) == ((2, 16), "best")
        assert task.model == session.config.network_of("respsann").model_dump()
    found = of_type(PeerRecord, session.records)
    assert [p.key for p in found] == [("package", "1.0", precision) for precision in both]
    assert of_type(PeerRecord, resumed(session).records) == found


def test_no_package_is_measured_unless_one_is_named(asked):
    config = memory_config(**FEW)

    assert list(published(config)) == asked == []
    assert PAGE.total(config) == N_CELLS


def test_a_package_that_cannot_be_installed_is_a_record_that_says_so(monkeypatch):
    def environment(requirement):
        raise ConfigError("cannot install it")

    monkeypatch.setattr(process, "environment", environment)

    [record] = published(memory_config(**FEW, **PEER))

    assert (record.status, record.reason) == ("failed", "cannot install it")
    assert (record.saved_bytes, record.n_parameters) == (None, None)


def test_a_resumed_run_measures_only_what_is_missing(session, monkeypatch, measured, asked):
    answer, begun = memory_plans.run_task, []

    def killed(task, **options):
        begun.append(task)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return answer(task, **options)

    with monkeypatch.context() as patch:
        patch.setattr(memory_plans, "run_task", killed)
        with pytest.raises(KeyboardInterrupt):
            session.measure()
    again = resumed(session)
    before = list(again.records)
    assert (len(before), asked) == (2, [])
    measured.clear()

    again.measure()

    assert (len(measured), len(asked)) == (N_CELLS - 2, 1)
    assert again.records[:2] == before
    assert [record.order for record in again.records[:-1]] == list(range(N_CELLS))
    third = resumed(again)
    third.measure()
    assert (len(measured), len(asked)) == (N_CELLS - 2, 1), "a whole run measures nothing"
    assert third.tables["memory.json"].equals(again.tables["memory.json"])


@pytest.fixture
def row(tmp_path):
    return PAGE.rows(load(memory_run(tmp_path)))[0]


def test_a_row_is_measured_again_in_its_own_setting(row, measured):
    request = RerunRequest(memory_config(**FEW), torch.device("cpu"), 3, lambda said: None)

    again = PAGE.measure_again(row, request, ())

    assert [record.repeat for record in again] == [0, 1, 2]
    assert {record.setting for record in again} == {("respsann", 16, 32, False, "fp32", "default")}


def test_a_repeat_is_compared_in_bytes_peak_and_time_by_block(row):
    mine = [memory_record(repeat=i, seconds=(0.1, 0.3 + i)) for i in (0, 1)]
    other = memory_record(grad_checkpoint=True)
    failed = memory_record(status="failed", reason="killed", repeat=2)

    found = PAGE.replicates([*mine, other, failed], row, memory_config())

    assert found["saved_mib"] == {0: 10, 1: 10}
    assert found["peak_allocated_mib"] == {0: 19, 1: 19}
    assert found["elapsed_s"] == pytest.approx({0: 0.2, 1: 0.7})
    assert PAGE.failures([*mine, failed, replace(failed, base="sgrpsann")], row) == ["killed"]


@pytest.mark.slow
def test_a_real_process_fills_its_record(monkeypatch):
    monkeypatch.undo()

    off, on = sorted(
        memory(memory_config(**FEW | {"n_repeats": 1})), key=lambda record: record.grad_checkpoint
    )

    assert (off.status, on.status) == ("ok", "ok")
    assert 0 < on.saved_bytes < off.saved_bytes
    assert off.peak_allocated_bytes > off.predicted["parameters"] + off.saved_bytes
    assert off.peak_reserved_bytes is None
    assert off.peak_rss_bytes > off.rss_before_bytes > 2**20
    assert len(on.seconds) >= 2
