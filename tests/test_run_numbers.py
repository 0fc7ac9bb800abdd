"""The numbers of a run are those of its rows, each named so that equal names mean equal things."""

import pytest

from psannlm.evidence.rows import TABLES
from psannlm.publish import numbers as run_numbers
from psannlm.publish.numbers import KEPT, STEP, numbers_of
from tests.histories import ROWS, history_run


@pytest.mark.parametrize(
    ("page", "column"),
    [
        ("throughput", "tokens_per_s"),
        ("memory", "saved_mib"),
        ("tiny_corpus", "bits_per_byte"),
        ("shootout", "val_loss"),
        ("peer", "ratio"),
    ],
)
def test_the_main_number_of_a_row_is_its_column_with_interval_and_row(tmp_path, page, column):
    second = {"base": "transformer", "label": "transformer", column: 2.5}
    run = history_run(tmp_path, page, 1, *([second] if page == "tiny_corpus" else [{}, second]))

    [*_, last] = [number for number in numbers_of(run) if number.is_main]

    assert (last.base, last.value) == ("transformer", 2.5)
    assert last.row == (1 if page == "tiny_corpus" else 2)
    assert last.low == ROWS[page].get(f"{column}_low")
    assert last.high == ROWS[page].get(f"{column}_high")
    assert last.floor == ROWS[page].get("noise_floor")


def test_every_page_with_rows_has_numbers():
    assert set(run_numbers.OF_PAGE) == set(TABLES)


def test_no_two_numbers_of_a_run_have_one_key(tmp_path):
    rows = [
        {"label": label, "batch_tokens": batch, "mode": mode, "precision": precision}
        for label in ("respsann", "respsann (again)")
        for batch in (512, 1024)
        for mode in ("forward", "train_step")
        for precision in ("fp32", "bf16")
    ]
    memory = [
        {"grad_checkpoint": on, "variant": variant, "amp": amp, "context_length": context}
        for on in (False, True)
        for variant in ("default", "plain_sine")
        for amp in ("fp32", "bf16")
        for context in (8, 16)
    ]
    peer = [
        {"work": work, "setting": setting}
        for work in ("forward", "saved")
        for setting in ("defaults", "best")
    ]
    for page, number in (("throughput", 1), ("memory", 2), ("peer", 3)):
        made = {"throughput": rows, "memory": memory, "peer": peer}[page]

        keys = [one.key for one in numbers_of(history_run(tmp_path, page, number, *made))]

        assert len(set(keys)) == len(keys) == len(made) * (2 if page == "memory" else 1)


def test_the_second_measurement_of_the_baseline_is_no_main_number(tmp_path):
    run = history_run(tmp_path, "throughput", 1, {}, {"label": "respsann (again)"})

    assert [number.is_main for number in numbers_of(run)] == [True, False]


def test_only_the_default_path_at_the_first_batch_is_main_of_memory(tmp_path):
    others = {"batch_tokens": 64}, {"context_length": 8}, {"variant": "plain_sine"}
    run = history_run(tmp_path, "memory", 1, {}, {"grad_checkpoint": True}, *others)

    numbers = numbers_of(run)

    assert [n.is_main for n in numbers if n.quantity == KEPT] == [True, True, False, False, False]
    assert not any(n.is_main for n in numbers if n.quantity == STEP)


def test_what_failed_or_was_refused_has_no_value_and_says_so(tmp_path):
    failed = history_run(tmp_path, "throughput", 1, {"status": "failed", "tokens_per_s": None})
    refused = history_run(tmp_path, "shootout", 2, {"refused": "it sees the future"})
    nothing = history_run(tmp_path, "memory", 3, {"saved_mib": None})

    said = [(one.value, one.shown) for run in (failed, refused) for one in numbers_of(run)]

    assert said == [(None, "failed"), (None, "refused")]
    assert numbers_of(nothing)[0].shown == "unknown"


def test_checks_are_counted_by_base_beside_each_of_them(tmp_path):
    rows = {}, {"check": "GPU-02", "status": "failed"}, {"check": "GPU-03", "status": "skipped"}

    numbers = numbers_of(history_run(tmp_path, "validation", 1, *rows))

    assert [one.value for one in numbers] == [1.0, 0.0, None, 1.0]
    assert numbers[-1].setting == "of 3 checks"
    assert [one.row for one in numbers] == [1, 2, 3, None]


def test_of_a_comparison_only_our_rows_have_a_ratio(tmp_path):
    rows = {}, {"side": "published", "ratio": None}, {"side": "ours (again)", "ratio": 1.0}

    [number] = numbers_of(history_run(tmp_path, "peer", 1, *rows))

    assert number.shown == "1.500 (1.450 – 1.550) ×"
