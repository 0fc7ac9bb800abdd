"""Tunings, ablations and scales as tables: every training asked for, differences paired by seed."""

from dataclasses import replace
from statistics import fmean

import pytest

from psannlm.pages.shootout.arms import all_arms
from psannlm.pages.shootout.comparison import paired
from psannlm.pages.shootout.controls import ablation_rows, on_edge, scale_rows, tuning_rows
from psannlm.pages.shootout.plan import Cell, choose, grid, key_of
from psannlm.pages.shootout.results import Trainings
from tests.synthetic_shootout import gates, records, shootout_config

CONFIG = shootout_config(base=("respsann", "gelu_scaled"), side_seeds=3)
RECORDS = records(CONFIG)


def sorted_(made=RECORDS, config=CONFIG):
    return Trainings.of(made, gates(config), config)


def loss_of(setting, seed, arm="respsann"):
    key = key_of(Cell(all_arms()[arm], setting, seed), CONFIG)
    [record] = [r for r in RECORDS if r.key == key]
    return record.val_loss


def test_every_tuning_has_a_row_and_one_of_each_arm_is_chosen():
    rows = list(tuning_rows(sorted_()))

    assert len(rows) == 3 * len(CONFIG.learning_rates)
    assert [row["base"] for row in rows if row["chosen"]] == ["respsann", "gelu", "gelu_scaled"]
    for row in rows:
        mine = [other for other in rows if other["base"] == row["base"]]
        assert row["chosen"] == (row["val_loss"] == min(other["val_loss"] for other in mine))


def test_a_tuning_that_failed_has_a_row_with_its_reason_and_is_not_chosen():
    made = records(CONFIG, fails=lambda cell: cell.seed == 100 and cell.setting[1] == 2.25)

    failed = [row for row in tuning_rows(sorted_(made)) if row["status"] == "failed"]

    assert {row["base"] for row in failed} == {"respsann", "gelu_scaled"}
    assert all(row["reason"] and row["val_loss"] is None for row in failed)
    assert not any(row["chosen"] for row in failed)


@pytest.mark.parametrize(
    ("rates", "frequencies", "at", "expected"),
    [
        ((0.1,), (1.0, 2.0, 3.0), (0.1, 1.0), True),
        ((0.1,), (1.0, 2.0, 3.0), (0.1, 2.0), False),
        ((0.1, 0.2, 0.3), (1.0,), (0.3, 1.0), True),
        ((0.1, 0.2), (1.0, 2.0), (0.2, 2.0), False),  # of two values each is an end
    ],
)
def test_an_edge_is_an_end_of_a_dimension_of_three_values(rates, frequencies, at, expected):
    changes = {
        "scaled_learning_rates": rates,
        "scaled_frequencies": frequencies,
        "learning_rates": tuple(0.1 * (i + 1) for i in range(len(rates) * len(frequencies))),
    }
    config = shootout_config(**changes)
    arm = all_arms()["respsann"]
    setting = grid(arm, config)[0]._replace(learning_rate=at[0], sine_frequency=at[1])

    assert on_edge(arm, setting, config) is expected


def test_an_arm_without_a_frequency_has_an_edge_along_its_learning_rates_alone():
    config = shootout_config(learning_rates=(0.1, 0.2, 0.3), scaled_frequencies=(1.0, 2.0, 3.0))
    arm = all_arms()["gelu"]

    found = [on_edge(arm, setting, config) for setting in grid(arm, config)]

    assert found == [True, False, True]


def test_an_ablation_compares_every_subset_with_all_learned_seed_by_seed():
    setting = choose(CONFIG, RECORDS)["respsann"]

    rows = {row["learnable"]: row for row in ablation_rows(sorted_())}

    assert len(rows) == 8
    gaps = [
        loss_of(setting._replace(learnable=("decay",)), seed) - loss_of(setting, seed)
        for seed in CONFIG.seeds
    ]
    found = paired(gaps)
    row = rows["decay"]
    assert (row["difference"], row["difference_low"], row["p"]) == (
        found.mean, found.low, found.p,
    )  # fmt: skip
    assert rows["amplitude + frequency + decay"]["verdict"] == "baseline"
    assert "difference" not in rows["amplitude + frequency + decay"]


def test_an_ablation_is_corrected_for_the_seven_other_subsets():
    rows = [row for row in ablation_rows(sorted_()) if "p" in row]

    smallest = min(rows, key=lambda row: row["p"])
    assert len(rows) == 7
    assert smallest["p_holm"] == pytest.approx(min(1, 7 * smallest["p"]))
    assert all(row["p_holm"] >= row["p"] for row in rows)


def test_a_subset_that_costs_much_with_every_seed_is_worse():
    setting = choose(CONFIG, RECORDS)["respsann"]._replace(learnable=())
    keys = {key_of(Cell(all_arms()["respsann"], setting, s), CONFIG) for s in CONFIG.seeds}
    made = [replace(r, val_loss=r.val_loss + 1) if r.key in keys else r for r in RECORDS]

    [row] = [row for row in ablation_rows(sorted_(made)) if row["learnable"] == "none"]

    assert row["verdict"] == "worse"


def test_scales_hold_the_compared_trainings_too():
    setting = choose(CONFIG, RECORDS)["respsann"]

    rows = list(scale_rows(sorted_()))

    assert [(row["base"], row["scale"]) for row in rows] == [
        (name, scale) for name in CONFIG.scale_arms for scale in CONFIG.scales
    ]
    for row in rows[:3]:
        mine = setting._replace(sine_frequency=row["scale"])
        losses = [loss_of(mine, seed) for seed in CONFIG.seeds]
        assert row["val_loss"] == pytest.approx(fmean(losses))
        assert row["n_seeds"] == 3


def test_failed_scales_are_counted_and_leave_their_loss_unknown():
    made = records(CONFIG, fails=lambda cell: cell.setting.sine_frequency == 5.0)

    [row] = [r for r in scale_rows(sorted_(made)) if (r["base"], r["scale"]) == ("respsann", 5.0)]

    assert (row["n_seeds"], row["n_failed"], row["val_loss"]) == (0, 3, None)


def test_an_arm_that_no_tuning_has_chosen_for_has_no_rows():
    made = records(CONFIG, fails=lambda cell: cell.arm.name == "respsann")

    assert list(ablation_rows(sorted_(made))) == []
    assert {row["base"] for row in scale_rows(sorted_(made))} == {"gelu", "gelu_scaled"}
