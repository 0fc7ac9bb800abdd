"""The figures of controls draw every arm and every single seed, or say why there is none."""

import re
from dataclasses import replace

import pytest

from psannlm.pages.shootout import control_figures as figures
from tests.shown_shootouts import ASKED, all_failed, shown


def words_of(figure) -> set[str]:
    return set(re.findall(r">([^<>]+)</text>", figure.html))


def test_single_seeds_average_to_the_means_of_their_table():
    singles = figures.single_seeds(shown(), ASKED)

    found = singles.groupby(["base", "scale"])["val_loss"].agg(["mean", "size"])
    table = shown().scales.set_index(["base", "scale"])
    assert list(found["size"]) == [ASKED["side_seeds"]] * len(table)
    for key, row in table.iterrows():
        assert found.loc[key]["mean"] == pytest.approx(row["val_loss"]), key


def test_failed_trainings_are_no_points():
    records = [replace(r, status="failed", val_loss=None) for r in shown().records]

    assert figures.single_seeds(replace(shown(), records=records), ASKED).empty


def test_what_was_not_trained_is_a_caption():
    drawn = (figures.scales(all_failed(), ASKED), figures.ablation(all_failed()))
    learned = figures.learned(all_failed())

    assert [figure.panels for figure in (*drawn, learned)] == [{}, {}, {}]
    assert "No arm was trained at other initial scales." in drawn[0].caption
    assert "No arm was trained with parameters of its sine frozen." in drawn[1].caption
    assert "No arm has learned parameters" in learned.caption


@pytest.mark.slow
def test_scales_stand_on_one_axis_with_every_arm():
    figure = figures.scales(shown(), ASKED)

    assert list(figure.panels) == ["by initial scale"]
    assert words_of(figure) >= {"respsann", "gelu", "gelu_scaled", "1", "2.25"}


@pytest.mark.slow
def test_eight_subsets_stand_in_the_ablation():
    figure = figures.ablation(shown())

    subsets = {"none", "A", "f", "d", "A f", "A d", "f d", "A f d"}
    assert list(figure.panels) == ["respsann"]
    assert words_of(figure) >= subsets


@pytest.mark.slow
def test_learned_parameters_have_a_panel_each_with_the_arms_that_learn_them():
    figure = figures.learned(shown())

    assert list(figure.panels) == ["amplitude A", "frequency f", "decay d"]
    assert words_of(figure) >= {"respsann", "gelu_scaled", "0 mlp", "1 mlp"}
    assert "gelu_scaled" not in figure.panels["decay d"]
    assert "gelu_scaled" in figure.panels["amplitude A"]
