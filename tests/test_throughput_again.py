"""A row of throughput is repeated with what it was compared with, and held to its own processes."""

import math
from dataclasses import replace

import pytest
from psannlm.pages.throughput.rerun import cells_of, compared

from psannlm.evidence.rows import rows_of
from psannlm.evidence.runs import load
from psannlm.pages.throughput.records import CEILING
from tests.synthetic import throughput_config, throughput_records, throughput_run

SPEEDS = {"respsann": 900.0, "transformer": 1000.0}


@pytest.fixture
def row(tmp_path):
    return rows_of(load(throughput_run(tmp_path)))[0]


def verdicts(row, speeds, *, comparable=True, change=lambda record: record):
    config = throughput_config()
    old = throughput_records(config, SPEEDS)
    few = config.model_copy(update={"n_repeats": 3})
    new = [change(r) for r in throughput_records(few, speeds, seed=1)]
    found = compared(row, config, old, new, comparable=comparable)
    return {q.name: q.inside for q in found.quantities}


def test_the_cells_are_the_row_the_baseline_and_the_ceiling_interleaved(row):
    config = throughput_config(
        base=("respsann", "waveresnet"), batch_tokens=(32, 64), mode=("forward", "train_step"),
        n_repeats=2,
    )  # fmt: skip

    cells = cells_of(row, config)

    assert {(cell.label, cell.batch_tokens) for cell in cells} == {
        ("respsann", 32), ("transformer", 32), (CEILING, 0)
    }  # fmt: skip
    assert [cell.repeat for cell in cells] == [0, 0, 0, 1, 1, 1]
    assert {cell.modes for cell in cells} == {("forward",), (CEILING,)}


def test_the_same_speeds_are_inside(row):
    assert verdicts(row, SPEEDS) == {
        "tokens/s": True, "ratio to the baseline": True, "matmul ceiling, GFLOP/s": None
    }  # fmt: skip


def test_a_slower_machine_keeps_the_ratio(row):
    found = verdicts(row, {"respsann": 450.0, "transformer": 500.0})

    assert found["tokens/s"] is False
    assert found["ratio to the baseline"] is True


def test_a_slower_base_loses_both(row):
    found = verdicts(row, {"respsann": 800.0, "transformer": 1000.0})

    assert found["tokens/s"] is False
    assert found["ratio to the baseline"] is False


def test_on_another_device_speeds_are_shown_and_not_judged(row):
    assert set(verdicts(row, {"respsann": 1.0, "transformer": 9.0}, comparable=False).values()) == {
        None
    }


def test_a_row_that_fails_now_is_outside(row):
    def fail(record):
        if record.label != "respsann":
            return record
        return replace(record, status="failed", reason="killed", seconds=())

    assert verdicts(row, SPEEDS, change=fail) == {
        "status": False, "matmul ceiling, GFLOP/s": None
    }  # fmt: skip


def test_the_measured_speed_is_the_geometric_mean(row):
    config = throughput_config()
    new = [r for r in throughput_records(config, SPEEDS, seed=2) if r.repeat < 2]
    mine = [r.tokens_per_s for r in new if r.label == "respsann"]

    found = compared(row, config, throughput_records(config, SPEEDS), new, comparable=True)

    assert found.quantities[0].measured == f"{math.sqrt(mine[0] * mine[1]):,.0f}"
    assert float(found.quantities[1].measured) == pytest.approx(0.9, abs=0.01)
