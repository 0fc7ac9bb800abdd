"""The plan of a run of memory, and what comes of it."""

from collections import Counter
from typing import Any

import pytest

from psannlm.model.bases import cost_of
from psannlm.pages.memory import plan as memory_experiment
from psannlm.pages.memory.plan import has_sine, memory, memory_plan, task_of
from tests.synthetic_memory import memory_config

CONFIG = memory_config(
    base=("respsann", "waveresnet", "transformer"), loss_chunk_tokens=8, n_repeats=3
)
PLAN = memory_plan(CONFIG)


def settings_of(repeat: int) -> set[tuple[Any, ...]]:
    return {cell.setting for cell in PLAN if cell.repeat == repeat}


def test_no_cell_is_measured_twice():
    overlapping = memory_config(contexts=(16, 8), batch_tokens=(32, 16, 64))

    for plan in (PLAN, memory_plan(overlapping)):
        assert set(Counter((cell.repeat, cell.setting) for cell in plan).values()) == {1}
        assert [cell.order for cell in plan] == list(range(len(plan)))


def test_every_block_compares_bases_checkpointing_and_precisions():
    main = {
        (base, 16, 32, checkpoint, precision, "default")
        for base in CONFIG.base
        for checkpoint in (False, True)
        for precision in ("fp32", "bf16")
    }

    assert settings_of(1) == settings_of(2) == main
    assert settings_of(0) > main


def test_curves_run_over_batch_and_context_in_the_first_precision():
    curves = {s for s in settings_of(0) if s.variant == "default"} - settings_of(1)

    assert {s[1:] for s in curves if s.base == "transformer"} == {
        (context, tokens, checkpoint, "fp32", "default")
        for context, tokens in [(16, 64), (8, 32)]
        for checkpoint in (False, True)
    }
    assert len(curves) == 3 * 4


def test_only_times_that_are_compared_wait_for_steady_steps():
    compared = {s: task_of(s, CONFIG).compared for s in settings_of(0)}

    assert {s for s, is_compared in compared.items() if is_compared} == settings_of(1)


def test_a_plain_sine_is_measured_where_there_is_a_sine():
    found = Counter((s.variant, s.base) for s in settings_of(0) if s.variant != "default")

    expected = {("plain_sine", base) for base in ("respsann", "waveresnet")}
    expected |= {("plain_loss", base) for base in CONFIG.base}
    assert found == dict.fromkeys(expected, 2)
    assert not any(s.grad_checkpoint for s in settings_of(0) if s.variant != "default")


@pytest.mark.parametrize(
    ("base", "options", "expected"),
    [
        ("respsann", {}, True),
        ("sgrpsann", {}, True),
        ("waveresnet", {"wave": "replace"}, True),
        ("transformer", {"mlp": "gelu_scaled"}, False),
    ],
)
def test_a_base_tells_whether_it_has_a_sine(base, options, expected):
    assert has_sine(CONFIG.network_of(base, **options)) == expected


def test_blocks_are_shuffled_anew_and_the_same_for_the_same_seed():
    orders = [[c.setting for c in PLAN if c.repeat == repeat] for repeat in (1, 2)]

    assert orders[0] != orders[1]
    assert memory_plan(CONFIG) == PLAN
    assert memory_plan(CONFIG.model_copy(update={"seed": 1})) != PLAN


def test_the_process_is_told_the_cell():
    cell = next(c.setting for c in PLAN if c.setting.context_length == 8 and c.setting[3])

    task = task_of(cell, CONFIG)

    assert task.config == CONFIG.network_of(cell.base, context_length=8, grad_checkpoint=True)
    assert (task.shape.batch, task.shape.tokens) == (4, 8)
    assert (task.chunk_tokens, task.precision) == (8, "fp32")


@pytest.fixture
def measured(monkeypatch):
    """Records which tasks would have run, and answers each with a failure."""
    tasks = []

    def run_task(task, **options):
        tasks.append(task)
        return [{"mode": mode, "status": "failed", "reason": "pretended"} for mode in task.modes]

    monkeypatch.setattr(memory_experiment, "run_task", run_task)
    return tasks


def test_a_failed_cell_is_a_record_that_still_knows_what_was_predicted(measured):
    records = list(memory(CONFIG))

    assert len(records) == len(measured) == len(PLAN)
    for record, cell, task in zip(records, PLAN, measured, strict=True):
        assert (record.repeat, record.order, record.setting) == cell
        assert (record.status, record.reason) == ("failed", "pretended")
        assert (record.saved_bytes, record.saved_kinds, record.seconds) == (None, {}, ())
        assert record.n_parameters == cost_of(task.config, task.shape).n_parameters
        assert record.predicted["parameters"] == 4 * record.n_parameters
        assert record.predicted["peak"] > record.predicted["parameters"]


def test_cells_that_are_done_are_not_measured_again(measured):
    first = next(iter(memory(CONFIG)))
    measured.clear()

    rest = list(memory(CONFIG, done={first.key}))

    assert len(measured) == len(rest) == len(PLAN) - 1
    assert first.key not in {record.key for record in rest}


@pytest.mark.slow
def test_a_real_process_fills_its_record():
    config = memory_config(
        base=("respsann",), batch_tokens=(32,), contexts=(), precision=("fp32",), variants=(),
        n_repeats=1,
    )  # fmt: skip

    off, on = sorted(memory(config), key=lambda record: record.grad_checkpoint)

    assert (off.status, on.status) == ("ok", "ok")
    assert 0 < on.saved_bytes < off.saved_bytes
    assert off.peak_allocated_bytes > off.predicted["parameters"] + off.saved_bytes
    assert off.peak_reserved_bytes is None
    assert off.peak_rss_bytes > off.rss_before_bytes > 2**20
    assert len(on.seconds) >= 2
