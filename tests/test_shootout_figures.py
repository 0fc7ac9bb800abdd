"""The figures that compare arms draw what the tables say, and say what they leave out."""

import re
from dataclasses import replace

import pytest

from psannlm.pages.shootout import figures as shootout_figures
from tests.shown_shootouts import ASKED, all_failed, only, shown, with_summary


def words_of(figure) -> set[str]:
    return set(re.findall(r">([^<>]+)</text>", figure.html))


def test_arms_have_one_order_whatever_their_place():
    names = ["swiglu", "gelu_scaled", "another", "gelu", "respsann", "gelu"]

    ordered = shootout_figures.ordered(names)

    assert ordered == ["respsann", "gelu", "swiglu", "gelu_scaled", "another"]


def test_differences_of_single_seeds_average_to_that_of_the_summary():
    seeds = shootout_figures.paired_by_seed(shown().runs, "gelu")

    summary = shown().summary.set_index("base")
    assert list(seeds.index) == [0, 1, 2]
    assert seeds["respsann"].mean() == pytest.approx(summary.loc["respsann"]["difference"])
    assert (seeds["gelu"] == 0).all()


def test_a_failed_seed_has_no_difference():
    runs = shown().runs.astype(object)
    mine = (runs["base"] == "respsann") & (runs["seed"] == 1)
    runs.loc[mine, ["status", "val_loss"]] = ["failed", None]

    seeds = shootout_figures.paired_by_seed(runs, "gelu")

    assert list(seeds["respsann"].isna()) == [False, True, False]
    assert shootout_figures.paired_by_seed(runs[runs["base"] != "gelu"], "gelu").empty


def test_curves_are_means_and_spans_of_the_seeds():
    points = shootout_figures.over_seeds(shown().curves, "seconds")

    rows = shown().curves[shown().curves["base"] == "gelu"]
    last = rows[rows["step"] == rows["step"].max()]
    mine = points[points["base"] == "gelu"].iloc[-1]
    assert mine["mean"] == pytest.approx(last["val_loss"].mean())
    assert (mine["low"], mine["high"]) == (last["val_loss"].min(), last["val_loss"].max())
    assert mine["at"] == pytest.approx(last["seconds"].mean())
    assert len(points) == 3 * ASKED["evaluations"]


def test_the_forest_names_every_other_arm():
    figure = shootout_figures.forest(shown(), ASKED)

    assert list(figure.panels) == ["against gelu"]
    assert words_of(figure) >= {"respsann", "gelu_scaled", "nats per token, less is better"}
    assert "Left out" not in figure.caption


def test_what_cannot_be_compared_is_a_caption():
    alone = shootout_figures.forest(only("gelu"), ASKED)
    nothing = shootout_figures.curves(all_failed())

    assert alone.panels == nothing.panels == {}
    assert "No arm has a difference to gelu" in alone.caption
    assert "No curve of a loss was recorded." in nothing.caption
    assert "refused a place: respsann, gelu, gelu_scaled." in nothing.caption


@pytest.mark.slow
def test_curves_have_a_panel_a_budget_and_leave_out_refused_arms():
    refused = with_summary("gelu_scaled", refused="it sees the future")

    figure = shootout_figures.curves(refused)

    assert list(figure.panels) == ["by tokens", "by FLOPs", "by seconds"]
    assert words_of(figure) >= {"respsann", "gelu"}
    assert "gelu_scaled" not in words_of(figure)
    assert "Left out, because refused a place: gelu_scaled." in figure.caption


@pytest.mark.slow
def test_one_seed_and_equal_networks_still_draw():
    one = with_summary(
        "respsann", same_as="gelu_scaled", difference_low=None, difference_high=None,
        documents_low=None, documents_high=None,
    )  # fmt: skip
    one = replace(
        one,
        runs=one.runs[one.runs["seed"] == 0],
        curves=one.curves[(one.curves["seed"] == 0) & (one.curves["step"] == 8)],
    )

    assert "(same as gelu_scaled)" in words_of(shootout_figures.forest(one, ASKED))
    assert len(shootout_figures.curves(one).panels) == 3


@pytest.mark.slow
def test_figures_are_the_same_every_time():
    first, second = (shootout_figures.forest(shown(), ASKED).html for _ in range(2))

    assert first == second
