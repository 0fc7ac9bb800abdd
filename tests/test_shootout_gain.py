"""What is said of gain follows from the numbers, whichever way they fall."""

import re
from dataclasses import replace
from statistics import fmean

import pytest

from psannlm.pages.shootout import gain_control as shootout_gain
from psannlm.pages.shootout.gain_control import HEADLINES, PLAIN, SCALED, SINE
from tests.shown_shootouts import ASKED, only, shifted, shown, with_summary

SIZES = {"better": -0.1, "not separated": 0.0, "worse": 0.1}


def mean_difference(shootout, arm, other):
    losses = {(r.arm, r.seed): r.val_loss for r in shootout.records if r.final}
    return fmean(losses[arm, seed] - losses[other, seed] for seed in ASKED["seeds"])


def placed(whole, rest):
    """The sine `whole` nats from gelu, and `rest` nats from the scaled gelu."""
    sine = whole - mean_difference(shown(), SINE, PLAIN)
    scaled = whole - rest - mean_difference(shown(), SCALED, PLAIN)
    return shifted({SINE: sine, SCALED: scaled})


@pytest.mark.parametrize(("whole", "rest"), HEADLINES)
def test_the_headline_follows_from_both_verdicts(whole, rest):
    shootout = placed(SIZES[whole], 0.5 * SIZES[rest])

    said = shootout_gain.control(shootout, ASKED)

    assert said.startswith(f"- **{HEADLINES[whole, rest]}.**")
    assert f"respsann less gelu: {SIZES[whole]:+.4f} (" in said.replace("-0.0000", "+0.0000")
    assert said.count("Not separated is not equal") == (rest == "not separated")


def test_headlines_are_all_different():
    assert len(set(HEADLINES.values())) == len(HEADLINES) == 9


def test_the_numbers_are_paired_means_over_the_compared_trainings():
    said = shootout_gain.control(shown(), ASKED)

    for arm, other in ((SINE, PLAIN), (SCALED, PLAIN)):
        assert f"{arm} less {other}" in said
        assert f"{mean_difference(shown(), arm, other):+.4f} (" in said
    assert f"{SINE} less {SCALED}, what is left" in said
    assert f"the same: {mean_difference(shown(), SINE, SCALED):+.4f} (" in said


def test_what_is_left_and_gain_alone_add_up_to_the_whole():
    whole, rest, gain = (
        shootout_gain.contrast(shown(), *pair).seeds.mean
        for pair in ((SINE, PLAIN), (SINE, SCALED), (SCALED, PLAIN))
    )

    assert rest + gain == pytest.approx(whole)


def test_tunings_and_controls_do_not_count_as_compared():
    compared = {r.key for r in shown().records if r.final}
    loud = [r if r.key in compared else replace(r, val_loss=9.0) for r in shown().records]

    said = shootout_gain.control(replace(shown(), records=loud), ASKED)

    assert said == shootout_gain.control(shown(), ASKED)


@pytest.mark.parametrize("changes", [{"seeds": [0, 1]}, {"preset": "smoke"}])
def test_few_seeds_and_smoke_runs_give_numbers_without_a_verdict(changes):
    said = shootout_gain.control(shown(), ASKED | changes)

    assert said.startswith("- No verdict on whether the sine's advantage is gain alone.")
    assert f"{mean_difference(shown(), SINE, PLAIN):+.4f}" in said
    assert "better, " not in said
    assert "nats, not separated" not in said


def test_one_seed_has_no_interval():
    one = replace(shown(), runs=shown().runs[shown().runs["seed"] == 0])

    said = shootout_gain.control(one, ASKED | {"seeds": [0]})

    assert "respsann less gelu: -0." in said
    assert not re.search(r"\([-+]\d", said.split("\n")[0])


@pytest.mark.parametrize("missing", [SINE, SCALED, PLAIN])
def test_an_arm_that_was_not_compared_is_named(missing):
    rest = [name for name in (SINE, SCALED, PLAIN) if name != missing]

    said = shootout_gain.control(only(*rest), ASKED)

    assert f"not answered here: {missing} was not compared; `base` must name it." in said
    assert f"{missing} is " not in said.split("\n")[1]


def test_a_refused_arm_answers_nothing():
    said = shootout_gain.control(with_summary(SINE, refused="it sees the future"), ASKED)

    assert "not answered here: respsann is refused a place, it sees the future." in said


def test_arms_without_a_finished_training_answer_nothing():
    said = shootout_gain.control(with_summary(SCALED, n_seeds=0), ASKED)

    assert "no compared training of gelu_scaled came to its end" in said


def test_arms_that_finished_no_seed_together_answer_nothing():
    found = [
        replace(r, status="failed", val_loss=None)
        if r.final and (r.seed == 0) == (r.arm == SINE)
        else r
        for r in shown().records
    ]

    said = shootout_gain.control(replace(shown(), records=found), ASKED)

    assert "not answered here: no seed was finished by both arms." in said


def test_scales_are_told_from_scale_one_to_the_best():
    scales = shown().scales.assign(
        val_loss=[3.0 if scale == 1 else 2.75 for scale in shown().scales["scale"]]
    )
    gelu = scales["base"] == PLAIN
    scales.loc[gelu, "val_loss"] = [2.9 if s == 1 else 3.1 for s in scales.loc[gelu, "scale"]]

    said = shootout_gain.control(replace(shown(), scales=scales), ASKED)

    assert "(at most 2 seeds, no verdict)" in said
    assert "respsann is 0.2500 nats better at f = 2.25 than at f = 1;" in said
    assert "gelu is best at 1 × init_std itself." in said
    assert "best scale of each: respsann 2.7500, gelu_scaled 2.7500, gelu 2.9000." in said


def test_scales_without_scale_one_name_the_best_alone():
    scales = shown().scales[shown().scales["scale"] != 1]

    said = shootout_gain.control(replace(shown(), scales=scales), ASKED)

    assert "respsann is best at f = 2.25; gelu_scaled is best at f = 2.25;" in said
    assert "gelu is best at 2.25 × init_std." in said


def test_without_scales_there_is_no_line_on_them():
    failed = shown().scales.assign(val_loss=None)

    assert "\n" not in shootout_gain.control(replace(shown(), scales=failed), ASKED)
