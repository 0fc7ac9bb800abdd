"""The figures of a training show all of it, however long it was, and stay small."""

import re

import numpy as np
import pandas as pd
import pytest

from psannlm.pages.tiny_corpus import figures as training_figures
from tests.trainings import trained, training_config

CONFIG = training_config()
TRAINED = trained(CONFIG)
KILOBYTES = 1000


def words(figure):
    return set(re.findall(r">([^<>]+)</text>", figure.html))


@pytest.mark.parametrize("n", [1, 240, 241, 10_000])
def test_a_line_is_short_whatever_the_number_of_steps(n):
    rows = pd.DataFrame({"at": np.arange(n, dtype=float), "train_loss": np.ones(n)})

    line = training_figures.binned(rows)

    together = -(-n // training_figures.POINTS)
    assert len(line) == -(-n // together) <= training_figures.POINTS
    assert line["at"].iloc[0] == (together - 1) / 2
    assert set(line["train_loss"]) == {1.0}


def test_the_caption_says_how_a_line_was_smoothed():
    long = trained(CONFIG, n_steps=1000)

    assert "training, every step," in training_figures.losses(TRAINED).caption
    assert "means of 5 consecutive steps" in training_figures.losses(long).caption
    assert "by means of 5 consecutive steps" in training_figures.course(long, 1.0).caption


@pytest.mark.slow
def test_figures_of_a_long_training_stay_small():
    long = trained(training_config(d_mlp=256, n_layers=12), n_steps=6000)
    drawn = [
        training_figures.losses(long),
        training_figures.sines(long),
        training_figures.course(long, 1.0),
    ]

    sizes = [len(svg) for figure in drawn for svg in figure.panels.values()]

    assert max(sizes) < 150 * KILOBYTES


def test_the_target_is_a_line_with_its_value():
    assert "perplexity 8 (loss 2.079)" in words(training_figures.losses(TRAINED))


@pytest.mark.slow
def test_losses_are_drawn_against_tokens_and_against_time():
    figure = training_figures.losses(TRAINED)

    assert list(figure.panels) == ["by tokens", "by time"]
    assert {"tokens trained on", "time, s", "training", "validation"} <= words(figure)
    assert figure.png.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("seconds", "unit"), [(4, "s"), (299, "s"), (300, "min"), (17_999, "min"), (18_000, "h")]
)
def test_time_is_told_in_a_unit_that_fits(seconds, unit):
    assert training_figures._unit(seconds)[0] == unit


def test_every_yardstick_and_the_network_have_a_bar_with_its_number():
    figure = training_figures.yardsticks(TRAINED)

    assert {*TRAINED.yardsticks["name"], "respsann"} <= words(figure)
    bits = [*TRAINED.yardsticks["bits_per_byte"], TRAINED.metrics["bits_per_byte"]]
    assert {f"{value:.3f}" for value in bits} <= words(figure)


def test_every_learned_parameter_has_a_panel_with_every_layer():
    figure = training_figures.sines(TRAINED)

    assert list(figure.panels) == ["amplitude", "frequency", "decay"]
    assert {"0", "1", "before", "after"} <= words(figure)


def test_a_base_without_a_sine_has_a_caption_that_says_so():
    plain = trained(training_config(base="transformer"))

    figure = training_figures.sines(plain)

    assert not figure.panels
    assert "transformer has no damped sine" in figure.html


def test_gradients_that_overflowed_do_not_spoil_the_drawing():
    losses = TRAINED.losses.copy()
    losses.loc[losses["step"].between(2, 4), "grad_norm"] = np.inf
    broken = type(TRAINED)(
        losses, TRAINED.speed, TRAINED.metrics, TRAINED.yardsticks, TRAINED.sine, []
    )

    drawn = training_figures.course(broken, 1.0).html

    assert "inf" not in drawn
    assert "nan" not in drawn
