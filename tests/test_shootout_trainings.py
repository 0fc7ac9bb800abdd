"""Only arms of which everything is there, and was examined, are compared and ranked."""

import pytest

from psannlm.pages.shootout.results import Trainings, by_seed, good
from tests.synthetic_shootout import gates, records, shootout_config

CONFIG = shootout_config(base=("respsann", "relu_squared"), ablation=(), scale_arms=())
RECORDS = records(CONFIG)
GATES = gates(CONFIG)


def without(**values):
    """All records but those with these values."""
    return [r for r in RECORDS if any(getattr(r, k) != v for k, v in values.items())]


def test_a_finished_shootout_compares_all_arms_in_their_order_by_seed():
    found = Trainings.of(reversed(RECORDS), GATES, CONFIG)

    assert list(found.fit) == ["respsann", "gelu", "relu_squared"]
    assert [r.seed for r in found.fit["gelu"]] == [0, 1, 2]
    assert not found.unfit
    assert not found.unplaced


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"arm": "gelu", "seed": 2}, "1 of its 3 seeds are not there"),
        ({"arm": "gelu", "final": True}, "no setting to compare it at"),
        ({"arm": "gelu", "seed": 100}, "2 of its tunings are not there yet"),
    ],
)
def test_an_arm_of_which_a_training_is_still_to_come_is_not_compared(values, reason):
    found = Trainings.of(without(**values), GATES, CONFIG)

    assert reason in found.unfit["gelu"]
    assert "gelu" not in found.fit
    assert "respsann" in found.fit


def test_an_arm_that_no_gate_examined_or_one_refused_is_not_compared():
    refused = gates(CONFIG, refused={"relu_squared": "it sees the future"})

    found = Trainings.of(RECORDS, refused[1:], CONFIG)

    assert found.unfit == {
        "respsann": "it was not examined by the gates",
        "relu_squared": "it sees the future",
    }


def test_an_arm_whose_seeds_failed_is_compared_but_gets_no_place():
    made = records(CONFIG, fails=lambda cell: cell.arm.name == "respsann" and cell.seed == 1)

    found = Trainings.of(made, GATES, CONFIG)

    assert set(found.unplaced) == {"respsann"}
    assert "2 of 3 seeds came to their end, a place needs 3" in found.unplaced["respsann"]
    assert "respsann" in found.fit
    assert [r.status for r in found.compared["respsann"]] == ["ok", "failed", "ok"]


def test_an_arm_all_of_whose_trainings_failed_is_not_compared():
    made = records(CONFIG, fails=lambda cell: cell.arm.name == "respsann" and cell.final)

    found = Trainings.of(made, GATES, CONFIG)

    assert found.unfit == {"respsann": "every compared training failed"}


def test_where_few_seeds_are_asked_for_all_of_them_are_enough():
    few = CONFIG.model_copy(update={"seeds": (0,), "side_seeds": 1})

    assert not Trainings.of(RECORDS, GATES, few).unplaced


def test_failed_trainings_have_no_loss():
    made = records(CONFIG, fails=lambda cell: cell.seed == 1)
    finals = [record for record in made if record.arm == "gelu" and record.final]

    assert [record.seed for record in good(finals)] == [0, 2]
    assert by_seed(finals) == {r.seed: r.val_loss for r in good(finals)}
