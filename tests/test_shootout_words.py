"""The sentences of the shootout follow from its tables, and claim no more than these."""

from dataclasses import replace

import pandas as pd
import pytest

from psannlm.evidence import text as views
from psannlm.pages.shootout import (
    gain_control as shootout_gain,
)
from psannlm.pages.shootout import (
    prose as shootout_words,
)
from psannlm.pages.shootout import (
    reading as shootout_reading,
)
from psannlm.pages.shootout.comparison import FEWEST_SEEDS
from tests.shown_shootouts import ASKED, all_failed, only, shown, with_summary


def row_of(arm):
    return shown().summary.set_index("base").loc[arm]


def test_the_answer_states_the_terms_of_the_comparison():
    said = shootout_words.answer(shown(), ASKED)

    assert "3 seeds an arm, 32,768 tokens a training, of the corpus `sample`;" in said
    assert "settles nothing" not in said
    assert "wiki" not in said.lower()


def test_a_corpus_is_called_by_its_own_name():
    said = shootout_words.answer(shown(), ASKED | {"corpus": "some/where/wiki_mini.txt"})

    assert "of the corpus `wiki_mini`;" in said


def test_the_answer_has_five_lines_at_most():
    odd = with_summary("respsann", same_as="gelu", refused="it sees the future")

    assert len(shootout_words.answer(odd, ASKED).split("\n")) <= 5


@pytest.mark.parametrize("verdict", ["better", "worse", "not separated"])
def test_an_arm_stands_under_its_verdict_with_its_difference(verdict):
    others = {"better", "worse", "not separated"} - {verdict}
    shootout = with_summary(
        "respsann", verdict=verdict, difference=-0.5, difference_low=-0.6, difference_high=-0.4
    )
    shootout = replace(
        shootout, summary=shootout.summary[shootout.summary["base"] != "gelu_scaled"]
    )

    said = shootout_words.answer(shootout, ASKED).split("\n")[1]

    assert said.startswith(f"- Per token, **{verdict}**")
    assert said.endswith(": respsann -0.5000 (-0.6000 to -0.4000).")
    assert not any(f"**{other}**" in said for other in others)


def test_arms_of_different_verdicts_are_told_apart():
    said = shootout_words.answer(with_summary("gelu_scaled", verdict="not separated"), ASKED)

    mine, scaled = row_of("respsann")["difference"], row_of("gelu_scaled")["difference"]
    assert f"**better** than gelu: respsann {mine:+.4f} (" in said
    assert f"; **not separated** from it: gelu_scaled {scaled:+.4f} (" in said


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seeds": [0]}, "a verdict needs 3 seeds."),
        ({"seeds": [0, 1]}, "a verdict needs 3 seeds."),
        ({"preset": "smoke"}, "a smoke run is too short and too small for a verdict."),
    ],
)
def test_few_seeds_and_smoke_runs_settle_nothing(changes, why):
    said = shootout_words.answer(shown(), ASKED | changes)

    assert f"**It settles nothing**: {why}" in said
    assert "Per token, without a verdict: " in said
    assert "per second (each cut at" in said
    assert not any(word in said for word in ("**better**", "**worse**", "**not separated**"))
    assert not any(word in said for word in ("below gelu", "above gelu", "told apart"))


def test_one_seed_has_a_difference_without_an_interval():
    one = with_summary("respsann", difference_low=None, difference_high=None)

    said = shootout_words.answer(one, ASKED | {"seeds": [0]})

    assert f"respsann {row_of('respsann')['difference']:+.4f}." in said.replace(",", ".")
    assert "1 seed an arm" in said
    assert "intervals" not in said
    assert "with 95% intervals over seeds." in shootout_words.answer(one, ASKED)


def test_equal_budgets_state_what_was_spent_and_the_difference():
    said = shootout_words.answer(shown(), ASKED)

    rows = shown().matched.set_index(["budget", "base"])
    flops, seconds = (rows.loc[(budget, "respsann")] for budget in ("flops", "seconds"))
    assert f"Per FLOP (each cut at {views.flops(flops['amount'])}), below gelu: respsann" in said
    assert f"respsann {flops['difference']:+.4f} (" in said
    assert f"per second (each cut at {seconds['amount']:.1f} s), below gelu: respsann" in said
    assert f"respsann {seconds['difference']:+.4f} (" in said


@pytest.mark.parametrize(
    ("mean", "low", "high", "n", "expected"),
    [
        (-0.1, -0.2, -0.05, FEWEST_SEEDS, "below"),
        (0.1, 0.05, 0.2, FEWEST_SEEDS, "above"),
        (-0.1, -0.2, 0.01, FEWEST_SEEDS, "not told apart from"),
        (0.1, -0.01, 0.2, FEWEST_SEEDS, "not told apart from"),
        (-0.1, -0.2, -0.05, FEWEST_SEEDS - 1, "not told apart from"),
        (-0.004, -0.0045, -0.0035, FEWEST_SEEDS, "not told apart from"),
        (-0.1, None, None, FEWEST_SEEDS, "not told apart from"),
    ],
)
def test_a_side_of_the_baseline_needs_an_interval_seeds_and_a_size(mean, low, high, n, expected):
    row = pd.Series([mean, low, high, n], dtype=float)
    row.index = ["difference", "difference_low", "difference_high", "n_seeds"]

    assert shootout_words.side(row.to_dict()) == expected


def test_without_matched_budgets_no_sentence_speaks_of_them():
    none = replace(shown(), matched=shown().matched.iloc[:0])

    assert "Per FLOP" not in shootout_words.answer(none, ASKED)


def test_memory_is_compared_where_it_was_measured():
    summary = shown().summary.assign(peak_cuda_mem_gb=[3.0, 1.5, 2.0])
    summary["base"] = ["respsann", "gelu_scaled", "gelu"]

    said = shootout_words.answer(replace(shown(), summary=summary), ASKED)

    assert "peaks against the 2.000 GB of gelu: respsann 1.50 × (" in said
    assert "gelu_scaled 0.75 × (" in said


def test_on_a_cpu_memory_is_said_to_be_not_compared():
    assert "Per byte of memory: not answered here" in shootout_words.answer(shown(), ASKED)


def test_a_refused_arm_is_named_with_the_reason_and_not_compared():
    refused = with_summary("respsann", refused="it sees the future", verdict="", place=None)

    said = shootout_words.answer(refused, ASKED)

    assert "**respsann is refused a place**: it sees the future." in said
    assert "respsann -" not in said


def test_equal_networks_are_called_so():
    said = shootout_words.answer(with_summary("respsann", same_as="gelu", verdict="A/A"), ASKED)

    assert "respsann and gelu are the same network (A/A)." in said
    assert "respsann -" not in said


def test_failures_are_counted():
    first, *rest = shown().records
    one = replace(shown(), records=[replace(first, status="failed", reason="out of time"), *rest])

    n = len(shown().records)
    assert f"1 of {n} trainings failed" in shootout_words.answer(one, ASKED)
    assert "failed" not in shootout_words.answer(shown(), ASKED)


def test_a_single_arm_has_nothing_to_be_compared_with():
    said = shootout_words.answer(only("gelu"), ASKED)

    assert "No other arm has a difference to gelu" in said
    assert shootout_reading.reading(only("gelu"), ASKED)


def test_a_shootout_all_of_whose_trainings_failed_says_so():
    none = all_failed()

    said = shootout_words.answer(none, ASKED)

    assert "3 seeds an arm, of the corpus `sample`" in said
    assert f"{len(none.records)} of {len(none.records)} trainings failed" in said
    assert "**respsann is refused a place**: no setting to compare it at" in said
    assert "**gelu** has no place" in shootout_reading.reading(none, ASKED)
    assert "not answered here" in shootout_gain.control(none, ASKED)
