"""The course of a training follows from configuration and data, and is told before it begins."""

import math
from fractions import Fraction

import numpy as np
import pytest

from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.train.batches import Batches
from psannlm.train.plan import FREE, Plan, course, facts
from psannlm.train.shards import Tokens
from tests.tiny_trainings import data_for, training_config, write_text


def plan_for(n_windows: int, world: int = 1, **changes: object) -> Plan:
    config = training_config(context_length=2, **changes)
    ids = np.zeros(2 * n_windows + 1, dtype=np.uint16)
    tokens = Tokens(ids, n_bytes=2 * n_windows, sha256="")
    return Plan.of(config, Batches(tokens, 2, config.batch_tokens // 2, config.seed), world)


SIZES = [
    {"n_windows": n_windows, "rows": rows, "epochs": epochs, "evaluations": evaluations}
    for n_windows in (1, 3, 7, 24, 100, 1001)
    for rows in (1, 3, 8, 50)
    for epochs in (0.1, 0.29, 1, 2.5, 3, 7)
    for evaluations in (1, 3, 4, 10)
]


def sized(n_windows: int, rows: int, epochs: float, evaluations: int) -> Plan:
    return plan_for(
        n_windows,
        batch_tokens=2 * rows,
        pass_tokens=2 * rows,
        epochs=epochs,
        evaluations=evaluations,
    )


def test_steps_epoch_ends_and_evaluations_are_those_of_fractions() -> None:
    for size in SIZES:
        plan = sized(**size)
        n_windows, rows, epochs = size["n_windows"], size["rows"], size["epochs"]

        # Every window so often, and no step more.
        assert (plan.n_steps - 1) * rows < epochs * n_windows <= plan.n_steps * rows
        begun = range(1, math.ceil(epochs) + 1)
        ends = [math.ceil(Fraction(epoch * n_windows, rows)) for epoch in begun]
        expected = {min(end, plan.n_steps): epoch for end, epoch in zip(ends, begun, strict=True)}
        assert plan.epoch_ends == expected
        share = Fraction(n_windows, rows * size["evaluations"])
        even = {math.ceil(i * share) for i in range(1, 8 * size["evaluations"] + 1)}
        assert plan.evaluations <= even | {plan.n_steps}
        assert {step for step in even if step < plan.n_steps} <= plan.evaluations
        assert plan.evaluations >= set(plan.epoch_ends)
        assert max(plan.evaluations) == plan.n_steps >= min(plan.evaluations) >= 1
        assert plan.evaluates(plan.n_steps)
        assert plan.saves(plan.n_steps)


def test_evaluations_of_an_epoch_are_as_many_as_asked_for() -> None:
    plan = plan_for(100, batch_tokens=2, pass_tokens=2, epochs=2, evaluations=4)

    assert plan.evaluations == {25, 50, 75, 100, 125, 150, 175, 200}
    assert plan.epoch_ends == {100: 1, 200: 2}


def test_checkpoints_and_places_are_counted() -> None:
    plan = plan_for(10, batch_tokens=8, pass_tokens=8, epochs=3, checkpoint_steps=3)

    assert [step for step in range(1, 9) if plan.saves(step)] == [3, 6, 8]
    assert plan.place(1) == {"step": 1, "epoch": 0.4, "tokens": 8}
    assert plan.place(5) == {"step": 5, "epoch": 2.0, "tokens": 40}


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("pass_tokens", [2, 4, 8])
def test_passes_of_all_ranks_together_are_one_batch(world: int, pass_tokens: int) -> None:
    plan = plan_for(40, world, batch_tokens=32, pass_tokens=pass_tokens)

    assert plan.n_passes * plan.pass_sequences * world == plan.batch_sequences == 16


@pytest.mark.parametrize(("pass_tokens", "world"), [(8, 3), (16, 4)])
def test_a_batch_that_ranks_and_passes_cannot_share_is_refused(
    pass_tokens: int, world: int
) -> None:
    message = (
        "batch_tokens must be a multiple of pass_tokens times the number of ranks, "
        f"got 32 and {pass_tokens} x {world}"
    )
    with pytest.raises(ConfigError, match=message):
        plan_for(40, world, batch_tokens=32, pass_tokens=pass_tokens)


def test_a_course_is_all_that_decides_what_a_step_does() -> None:
    config = training_config()

    assert set(course(config)) | FREE == set(TrainingConfig.model_fields)
    assert course(config) == course(training_config(pass_tokens=32, checkpoint_steps=1))
    for changes in ({"seed": 1}, {"batch_tokens": 64}, {"precision": "bf16"}, {"epochs": 3}):
        assert course(config) != course(training_config(**changes))


def test_facts_tell_other_data_and_other_configurations_apart(tmp_path) -> None:
    config = training_config(corpus=str(write_text(tmp_path)))
    data = data_for(config, tmp_path)
    (tmp_path / "other").mkdir()
    other = data_for(
        config.model_copy(update={"corpus": str(write_text(tmp_path / "other", seed=1))}), tmp_path
    )

    differing = {
        key for key, value in facts(config, data).items() if facts(config, other)[key] != value
    }

    assert differing == {"the training text", "the validation text"}
    assert facts(config, data) != facts(training_config(seed=1), data)
