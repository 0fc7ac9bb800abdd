"""A row of memory is repeated to the byte, and its time is held to its own processes."""

from dataclasses import replace

import pytest

from psannlm.evidence.rows import rows_of
from psannlm.evidence.runs import load
from psannlm.pages.memory.plan import memory
from psannlm.pages.memory.records import read_records
from psannlm.pages.memory.rerun import compared, setting_of
from psannlm.run import repeat
from tests.synthetic_memory import failed_record, memory_config, memory_run


@pytest.fixture
def row(tmp_path):
    return rows_of(load(memory_run(tmp_path)))[0]


def verdicts(row, *, comparable=True, floor=0.0, **changes):
    old = read_records(row.run.text("memory_records.json"))
    same = [r for r in old if r.setting == setting_of(row)]
    new = [replace(r, **changes) for r in same[:2]]
    found = compared(row, old, new, comparable=comparable, floor=floor)
    return [q.inside for q in found.quantities]


def test_the_same_bytes_peak_and_time_are_inside(row):
    assert verdicts(row) == [True, True, True]


def test_one_byte_more_is_outside(row):
    saved = int(row.values["saved_mib"] * 2**20)

    assert verdicts(row, saved_bytes=saved + 1) == [False, True, True]


def test_a_peak_beyond_its_tolerance_is_outside(row):
    peak = row.values["peak_allocated_mib"] * 2**20

    assert verdicts(row, peak_allocated_bytes=int(peak * 1.09)) == [True, True, True]
    assert verdicts(row, peak_allocated_bytes=int(peak * 1.11)) == [True, False, True]


def test_another_time_is_outside_and_on_another_device_not_judged(row):
    assert verdicts(row, seconds=(0.9, 0.9)) == [True, True, False]
    assert verdicts(row, seconds=(0.9, 0.9), comparable=False) == [True, True, None]


def test_the_noise_of_the_machine_widens_what_is_expected_of_a_time(row):
    usual = row.values["elapsed_s"]

    assert verdicts(row, seconds=(1.3 * usual,)) == [True, True, False]
    assert verdicts(row, seconds=(1.3 * usual,), floor=0.4) == [True, True, True]


def test_a_row_that_fails_now_is_outside(row):
    old = read_records(row.run.text("memory_records.json"))

    [only] = compared(row, old, [failed_record()], comparable=True).quantities

    assert only.inside is False
    assert "out of memory" in only.measured


@pytest.mark.slow
def test_a_published_row_measured_again_has_the_same_bytes(tmp_path):
    told = {"base": ("respsann",), "batch_tokens": (32,), "contexts": (), "precision": ("fp32",)}
    told |= {"variants": (), "n_repeats": 1}
    records = list(memory(memory_config(**told)))
    folder = memory_run(tmp_path, records=records, **told)

    outcome = repeat.rerun(folder)

    assert [q.inside for q in outcome.repeat.quantities] == [True, True, None]
    counted = {f"{record.saved_bytes:,}" for record in records}
    assert outcome.repeat.quantities[0].measured in counted
