"""The tables of memory say what the records say, pair by pair, failures too."""

import json

import pytest

from psannlm.files import MIB
from psannlm.pages.memory.tables import (
    ROWS,
    error_verdict,
    main_rows,
    memory_tables,
    read_rows,
    rows_json,
)
from tests.synthetic_memory import failed_record, memory_config, memory_record, memory_records

ONE = memory_config(
    base=("respsann",), batch_tokens=(32,), contexts=(), precision=("fp32",), n_repeats=3
)


def tables(records, config=ONE, peers=()):
    return memory_tables(records, peers, config, timestamp="20260101_000000", device="a CPU")


def row_of(table, **wanted):
    found = table
    for column, value in wanted.items():
        found = found[found[column] == value]
    [row] = found.to_dict("records")
    return row


def test_every_setting_is_a_row_in_the_order_of_the_configuration():
    config = memory_config(n_repeats=1)

    rows = tables(memory_records(config)[::-1], config).rows

    assert len(rows) == 2 * 2 * (3 * 2 + 2), "bases, precisions, shapes off and on, variants"
    assert list(rows["base"][:4]) == ["respsann", "respsann", "transformer", "transformer"]
    assert list(rows["grad_checkpoint"][:2]) == [False, True]
    assert list(rows["variant"][-8:]) == ["plain_loss"] * 4 + ["plain_sine"] * 4


def test_a_row_has_the_largest_bytes_and_the_median_time_of_its_processes():
    records = [
        memory_record(repeat=i, saved_bytes=(8 + i) * MIB, seconds=(second, 3 * second))
        for i, second in enumerate((0.1, 0.3, 0.2))
    ]

    row = row_of(tables(records).rows)

    assert row["saved_mib"] == 10
    assert row["elapsed_s"] == pytest.approx(0.4), "the median process: all time over all steps"
    assert row["elapsed_s_low"] < row["elapsed_s"] < row["elapsed_s_high"]
    assert (row["n_ok"], row["n_failed"], row["status"]) == (3, 0, "ok")


def test_memory_of_a_cpu_is_never_called_that_of_cuda():
    row = row_of(tables([memory_record(peak_allocated_bytes=5 * MIB)]).rows)

    assert row["peak_allocated_mib"] == 5
    assert row["max_memory_mb"] is None
    assert row["max_reserved_mb"] is None


def test_on_cuda_the_peak_is_the_number_of_the_original_plan():
    on_cuda = memory_record(peak_allocated_bytes=20 * MIB, peak_reserved_bytes=32 * MIB)

    row = row_of(tables([on_cuda]).rows)

    assert (row["max_memory_mb"], row["max_reserved_mb"]) == (20, 32)


def test_what_failed_is_a_row_with_its_reasons_and_what_was_predicted():
    records = [failed_record("out of memory: full"), failed_record("timed out", repeat=1)]

    row = row_of(tables(records).rows)

    assert (row["status"], row["n_failed"]) == ("failed", 2)
    assert row["reason"] == "out of memory: full; timed out"
    assert row["predicted_saved_mib"] == 10
    assert row["saved_mib"] is None
    assert row["saved_verdict"] is None


def test_a_prediction_stands_beside_what_was_counted_with_its_error():
    row = row_of(tables([memory_record(saved_bytes=8 * MIB)]).rows)

    assert row["predicted_saved_mib"] == 10
    assert row["predicted_kinds_mib"] == {"attention": 2.5, "mlp": 7.5}
    assert row["saved_error"] == pytest.approx(0.25)
    assert row["saved_verdict"] == "not within 2%"
    assert row["peak_verdict"] == "within 10%"


@pytest.mark.parametrize(
    ("error", "said"), [(0.02, "within 2%"), (-0.02, "within 2%"), (-0.021, "not within 2%")]
)
def test_an_error_is_judged_by_its_size_on_either_side(error, said):
    assert error_verdict(error, 0.02) == said


def test_checkpointing_is_one_row_a_pair_with_its_saving_and_its_cost():
    savings = tables(memory_records(ONE, slower=1.5, noise=0.0)).savings

    row = row_of(savings, saver="checkpointing")

    assert (row["saved_without_mib"], row["saved_with_mib"]) == (10, 4)
    assert (row["saved_less_mib"], row["saved_less_share"]) == (6, 0.6)
    assert row["peak_less_mib"] == 6
    assert row["time_ratio"] == pytest.approx(1.5)
    assert row["n_blocks"] == 3


def test_times_are_paired_within_blocks():
    off, on = ({0: 0.1, 1: 0.4, 2: 0.2}, {1: 0.5, 2: 0.3, 3: 9.0})
    records = [memory_record(repeat=i, seconds=(s,)) for i, s in off.items()]
    records += [memory_record(repeat=i, seconds=(s,), grad_checkpoint=True) for i, s in on.items()]

    row = row_of(tables(records).savings)

    assert row["n_blocks"] == 2
    assert row["time_ratio"] == pytest.approx((0.5 / 0.4 + 0.3 / 0.2) / 2)


@pytest.mark.parametrize(("saver", "less"), [("fast_sine", 10), ("chunked_loss", 5)])
def test_a_fast_path_is_held_against_the_plain_one(saver, less):
    row = row_of(tables(memory_records(ONE)).savings, saver=saver)

    assert row["saved_less_mib"] == less
    assert row["saved_without_mib"] == row["saved_with_mib"] + less


def test_a_pair_of_which_one_failed_has_its_reason_and_no_saving():
    records = [failed_record("killed"), memory_record(grad_checkpoint=True)]

    row = row_of(tables(records).savings)

    assert (row["status"], row["reason"]) == ("failed", "killed")
    assert row["saved_with_mib"] == 4
    assert row["saved_less_mib"] is None
    assert row["n_blocks"] == 0


def test_what_saves_nothing_is_stated_as_less_than_nothing():
    records = [memory_record(), memory_record(grad_checkpoint=True, saved_bytes=12 * MIB)]

    row = row_of(tables(records).savings)

    assert row["saved_less_mib"] == -2


def test_a_file_of_rows_opens_as_the_original_plan_has_it_and_reads_back():
    rows = tables(memory_records(ONE)).rows

    text = rows_json(rows)

    first = json.loads(text)[0]
    plan = ("base", "d_model", "n_layers", "grad_checkpoint", "amp", "max_memory_mb", "elapsed_s")
    assert tuple(first)[:7] == plan
    assert first["grad_checkpoint"] is False
    assert rows_json(read_rows(text)) == text


def test_a_file_of_other_rows_is_refused():
    with pytest.raises(ValueError, match=r"memory\.json must be a list of objects with the keys"):
        read_rows('[{"base": "respsann"}]')
    assert read_rows("[]").empty


def test_bases_are_compared_at_the_first_batch_and_the_runs_own_context():
    config = memory_config(n_repeats=1)
    rows = tables(memory_records(config), config).rows

    shown = rows[main_rows(rows, config.model_dump(mode="json"))]

    assert set(zip(shown["batch_tokens"], shown["context_length"], strict=True)) == {(32, 16)}
    assert set(rows.columns) == set(ROWS)
