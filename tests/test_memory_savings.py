"""What a saver saves is the difference of two rows that differ in it alone."""

import itertools

import pytest

from psannlm.pages.memory.savings import SAVINGS, Side, pairs_of, savings_table
from tests.synthetic_memory import memory_config, settings

OFF = ("respsann", 16, 32, False, "fp32", "default")
ON = ("respsann", 16, 32, True, "fp32", "default")
SINE = (*OFF[:-1], "plain_sine")
LOSS = (*OFF[:-1], "plain_loss")


def side(setting, seconds=None, **changes):
    """A row that was measured, and the seconds of its steps by block."""
    base, context, tokens, grad_checkpoint, precision, variant = setting
    row = {
        "base": base, "context_length": context, "batch_tokens": tokens, "amp": precision,
        "grad_checkpoint": grad_checkpoint, "variant": variant, "status": "ok", "reason": "",
        "saved_mib": 10.0, "peak_allocated_mib": 20.0, "elapsed_s": 0.5,
    }  # fmt: skip
    return Side(row | changes, seconds or {})


def failed(setting, reason):
    unknown = dict.fromkeys(("saved_mib", "peak_allocated_mib", "elapsed_s"))
    return side(setting, status="failed", reason=reason, **unknown)


def row_of(without, with_):
    """The one row of savings that checkpointing makes of two sides."""
    table = savings_table({OFF: without, ON: with_})
    assert tuple(table.columns) == SAVINGS
    [row] = table.to_dict("records")
    return row


def test_each_saver_is_held_against_the_setting_that_lacks_it():
    found = set(pairs_of([OFF, ON, SINE, LOSS]))

    assert found == {
        ("checkpointing", OFF, ON),
        ("fast_sine", SINE, OFF),
        ("chunked_loss", LOSS, OFF),
    }


@pytest.mark.parametrize("place", range(5))
def test_rows_that_differ_in_something_else_too_are_no_pair(place):
    others = ("transformer", 8, 64, True, "bf16")
    plain = list(SINE)
    plain[place] = others[place]

    assert list(pairs_of([OFF, tuple(plain)])) == []
    assert len(list(pairs_of([OFF, SINE]))) == 1


def test_plain_paths_are_not_compared_in_checkpointing():
    assert list(pairs_of([SINE, (*ON[:-1], "plain_sine")])) == []


def test_a_fast_path_is_compared_under_checkpointing_too():
    plain = (*ON[:-1], "plain_loss")

    assert list(pairs_of([ON, plain])) == [("chunked_loss", plain, ON)]


def test_every_pair_of_a_whole_run_differs_in_one_and_is_found_once():
    all_settings = [tuple(setting.values()) for setting in settings(memory_config())]

    pairs = list(pairs_of(all_settings))

    assert len(pairs) == len(set(pairs)) == 2 * 2 * (3 + 2), "bases, precisions, shapes, variants"
    alike = [sum(map(str.__eq__, map(str, a), map(str, b))) for _, a, b in pairs]
    assert set(alike) == {5}


def test_bytes_are_what_there_is_less_of_and_as_a_share_of_those_without():
    row = row_of(
        side(OFF, saved_mib=10.0, peak_allocated_mib=20.0),
        side(ON, saved_mib=4.0, peak_allocated_mib=15.0),
    )

    assert (row["saved_without_mib"], row["saved_with_mib"]) == (10, 4)
    assert (row["saved_less_mib"], row["saved_less_share"]) == (6, 0.6)
    assert (row["peak_without_mib"], row["peak_with_mib"]) == (20, 15)
    assert (row["peak_less_mib"], row["peak_less_share"]) == (5, 0.25)


def test_what_needs_more_saves_less_than_nothing():
    row = row_of(side(OFF, saved_mib=8.0), side(ON, saved_mib=10.0))

    assert (row["saved_less_mib"], row["saved_less_share"]) == (-2, -0.25)


def test_all_that_was_kept_can_be_saved():
    row = row_of(side(OFF), side(ON, saved_mib=0.0))

    assert (row["saved_less_mib"], row["saved_less_share"]) == (10, 1)


def test_of_nothing_there_is_no_share():
    row = row_of(side(OFF, saved_mib=0.0), side(ON))

    assert (row["saved_less_mib"], row["saved_less_share"]) == (None, None)
    assert row["peak_less_mib"] == 0


def test_a_row_says_which_settings_it_compares():
    setting = ("waveresnet", 8, 64, False, "bf16", "default")
    plain = (*setting[:-1], "plain_sine")

    [row] = savings_table({setting: side(setting), plain: side(plain)}).to_dict("records")

    assert (row["saver"], row["base"], row["precision"]) == ("fast_sine", "waveresnet", "bf16")
    assert (row["context_length"], row["batch_tokens"]) == (8, 64)
    assert row["grad_checkpoint"] is False


def test_the_time_ratio_is_the_median_of_the_blocks_with_their_spread():
    # A median of three is the least of them in 7 of 27 resamples: the interval is all three.
    without, with_ = {0: 1.0, 1: 2.0, 2: 4.0}, {0: 1.5, 1: 2.4, 2: 5.6}

    row = row_of(side(OFF, without, elapsed_s=2.0), side(ON, with_, elapsed_s=2.4))

    assert row["time_ratio"] == pytest.approx(1.4), "and not 2.4 / 2.0, which mixes blocks"
    assert (row["time_ratio_low"], row["time_ratio_high"]) == pytest.approx((1.2, 1.5))
    assert (row["elapsed_without_s"], row["elapsed_with_s"], row["n_blocks"]) == (2.0, 2.4, 3)


def test_more_repeats_make_a_narrower_interval():
    spread = (1.1, 1.2, 1.3, 1.4, 1.5)
    widths = []
    for n_times in (1, 20):
        ratios = dict(enumerate(itertools.chain.from_iterable([spread] * n_times)))
        row = row_of(side(OFF, dict.fromkeys(ratios, 1.0)), side(ON, ratios))
        assert row["time_ratio"] == pytest.approx(1.3)
        widths.append(row["time_ratio_high"] - row["time_ratio_low"])

    assert widths[1] < 0.6 * widths[0]


def test_one_block_has_a_ratio_without_spread():
    row = row_of(side(OFF, {0: 0.4}), side(ON, {0: 0.6}))

    assert [row[f"time_ratio{end}"] for end in ("", "_low", "_high")] == pytest.approx([1.5] * 3)
    assert row["n_blocks"] == 1


def test_a_block_that_only_one_side_has_is_left_out():
    row = row_of(side(OFF, {0: 1.0, 1: 2.0}), side(ON, {1: 3.0, 2: 9.0}))

    assert (row["time_ratio"], row["n_blocks"]) == (1.5, 1)


@pytest.mark.parametrize("half", ["without", "with"])
def test_a_pair_with_a_failed_half_keeps_the_other_and_states_no_saving(half):
    if half == "without":
        row = row_of(failed(OFF, "killed"), side(ON, {0: 0.5}))
    else:
        row = row_of(side(OFF, {0: 0.5}), failed(ON, "killed"))

    sound = "with" if half == "without" else "without"
    assert (row["status"], row["reason"]) == ("failed", "killed")
    assert (row[f"saved_{half}_mib"], row[f"saved_{sound}_mib"]) == (None, 10)
    unknown = [row[name] for name in SAVINGS if "less" in name or "ratio" in name]
    assert unknown == [None] * 7
    assert row["n_blocks"] == 0


def test_two_failed_halves_tell_both_reasons():
    row = row_of(failed(OFF, "out of memory"), failed(ON, "timed out"))

    assert (row["status"], row["reason"]) == ("failed", "out of memory; timed out")


def test_a_pair_that_lost_a_process_is_stated_with_the_reason():
    row = row_of(side(OFF, {0: 0.4, 1: 0.5}, reason="killed"), side(ON, {0: 0.6}))

    assert (row["status"], row["reason"]) == ("ok", "killed")
    assert (row["saved_less_mib"], row["time_ratio"]) == (0, pytest.approx(1.5))


def test_without_pairs_the_table_is_empty_but_has_its_columns():
    table = savings_table({OFF: side(OFF)})

    assert table.empty
    assert tuple(table.columns) == SAVINGS
