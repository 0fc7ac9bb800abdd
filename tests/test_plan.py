"""The course of a training, told before it begins: its steps, its optimizers, its learning rate."""

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from networks import OPTIONS, tiny, tokens_of
from torch import nn

from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.model.bases import build
from psannlm.model.transformer import Transformer
from psannlm.train.data import Tokens
from psannlm.train.objective import make_optimizers
from psannlm.train.plan import FREE, Batches, Plan, course, rate_at
from tests.tiny_trainings import training_config


def plan_for(n_windows: int, rows: int, world: int = 1, **changes: object) -> Plan:
    """A plan for windows of 2 tokens, `rows` of them a step."""
    values = {"batch_tokens": 2 * rows, "pass_tokens": 2 * rows, **changes}
    config = training_config(context_length=2, **values)
    ids = np.zeros(2 * n_windows + 1, dtype=np.uint16)
    tokens = Tokens(ids, n_bytes=2 * n_windows, sha256="")
    return Plan.of(config, Batches(tokens, 2, rows, config.seed), world)


def test_steps_epoch_ends_and_evaluations_are_those_of_fractions() -> None:
    windows, batches, durations, each_epoch = (
        (1, 3, 7, 24, 100, 1001), (1, 3, 8, 50), (0.1, 0.29, 1, 2.5, 3, 7), (1, 3, 4, 10),
    )  # fmt: skip
    for sizes in itertools.product(windows, batches, durations, each_epoch):
        n_windows, rows, epochs, evaluations = sizes
        plan = plan_for(n_windows, rows, epochs=epochs, evaluations=evaluations)

        # Every window so often, and no step more.
        assert (plan.n_steps - 1) * rows < epochs * n_windows <= plan.n_steps * rows
        begun = range(1, math.ceil(epochs) + 1)
        ends = [math.ceil(Fraction(epoch * n_windows, rows)) for epoch in begun]
        expected = {min(end, plan.n_steps): epoch for end, epoch in zip(ends, begun, strict=True)}
        assert plan.epoch_ends == expected
        share = Fraction(n_windows, rows * evaluations)
        even = {math.ceil(i * share) for i in range(1, 8 * evaluations + 1)}
        assert plan.evaluations <= even | {plan.n_steps}
        assert {step for step in even if step < plan.n_steps} <= plan.evaluations
        assert plan.evaluations >= set(plan.epoch_ends)
        assert max(plan.evaluations) == plan.n_steps >= min(plan.evaluations) >= 1
        assert plan.saves(plan.n_steps)


def test_checkpoints_and_places_are_counted() -> None:
    plan = plan_for(10, 4, epochs=3, checkpoint_steps=3)

    assert [step for step in range(1, 9) if plan.saves(step)] == [3, 6, 8]
    assert plan.place(1) == {"step": 1, "epoch": 0.4, "tokens": 8}
    assert plan.place(5) == {"step": 5, "epoch": 2.0, "tokens": 40}


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("pass_tokens", [2, 4, 8, 16])
def test_passes_of_all_ranks_together_are_one_batch_or_refused(
    world: int, pass_tokens: int
) -> None:
    if 32 % (pass_tokens * world):
        message = (
            "batch_tokens must be a multiple of pass_tokens times the number of ranks, "
            f"got 32 and {pass_tokens} x {world}"
        )
        with pytest.raises(ConfigError, match=message):
            plan_for(40, 16, world, pass_tokens=pass_tokens)
        return

    plan = plan_for(40, 16, world, pass_tokens=pass_tokens)

    assert plan.n_passes * plan.pass_sequences * world == plan.batch_sequences == 16
    assert plan.pass_sequences == pass_tokens // 2


def test_a_course_is_all_that_decides_what_a_step_does() -> None:
    config = training_config()

    assert set(course(config)) | FREE == set(TrainingConfig.model_fields)
    assert course(config) == course(training_config(pass_tokens=32, checkpoint_steps=1))
    for changes in ({"seed": 1}, {"batch_tokens": 64}, {"precision": "bf16"}, {"epochs": 3}):
        assert course(config) != course(training_config(**changes))


def network(options: dict[str, Any], **changes: Any) -> Transformer:
    return build(tiny(**options, **changes), seed=0)


def optimizers_of(model: nn.Module, kind: str, **changes: Any) -> list[torch.optim.Optimizer]:
    return make_optimizers(model, training_config(optimizer=kind, **changes))


def names_in(model: nn.Module, group: dict[str, Any]) -> set[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)] for parameter in group["params"]}


def weights_of(model: nn.Module, *kinds: type[nn.Module]) -> set[str]:
    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, kinds)}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_every_learned_parameter_is_in_one_group_and_moves_and_matrices_alone_decay(
    options: dict[str, Any], kind: str
) -> None:
    model = network(options, learnable=("amplitude",))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizers = optimizers_of(model, kind, weight_decay=0.5)

    groups = [group for one in optimizers for group in one.param_groups]
    decays = [(name, group["weight_decay"]) for group in groups for name in names_in(model, group)]
    matrices = weights_of(model, nn.Linear, nn.Embedding)
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert sorted(decays) == sorted((name, 0.5 * (name in matrices)) for name in learned)
    if kind == "muon":  # takes the matrices of the blocks alone
        assert names_in(model, groups[0]) == weights_of(model, nn.Linear) - {"lm_head.weight"}

    model(tokens_of(model.config, 4, 20)).square().sum().backward()
    for one in optimizers:
        one.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == learned


def test_muon_without_a_torch_that_has_it_is_refused(monkeypatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")

    with pytest.raises(ConfigError, match=r"optimizer: muon needs torch 2\.9 or newer.*use adamw"):
        optimizers_of(network({}), "muon")


def rates(n_steps: int, **changes: Any) -> list[float]:
    config = training_config(learning_rate=2.0, **changes)
    return [rate_at(step, n_steps, config) for step in range(1, n_steps + 1)]


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_the_warm_up_rises_in_equal_steps_to_the_highest_rate(schedule: str) -> None:
    found = rates(100, schedule=schedule, warmup_fraction=0.2, decay_fraction=0.1)

    assert found[:20] == pytest.approx([2.0 * (i + 1) / 20 for i in range(20)], rel=1e-15)
    assert max(found) == found[19] == 2.0


def test_a_cosine_falls_along_half_a_turn_to_its_final_share() -> None:
    found = rates(100, schedule="cosine", warmup_fraction=0.2, final_fraction=0.1)

    # The same curve from the double angle: cos^2 of a quarter turn.
    expected = [0.2 + 1.8 * math.cos(math.pi / 4 * i / 40) ** 2 for i in range(1, 81)]
    assert found[20:] == pytest.approx(expected, rel=1e-12)


def test_wsd_stays_and_then_falls_in_equal_steps_to_its_final_share() -> None:
    found = rates(100, schedule="wsd", warmup_fraction=0.1, decay_fraction=0.4, final_fraction=0.25)

    assert found[9:60] == [2.0] * 51
    falls = [a - b for a, b in itertools.pairwise(found[59:])]
    assert falls == pytest.approx([1.5 / 40] * 40, rel=1e-9)
    assert found[-1] == 0.5


@pytest.mark.parametrize("n_steps", [1, 2, 3, 10, 37])
@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_any_fractions_give_a_finite_rate_that_never_exceeds_the_highest(
    schedule: str, n_steps: int
) -> None:
    fractions = ((0, 0), (1, 0), (0, 1), (0.5, 0.5), (0.01, 0.01), (1 / 3, 2 / 3))
    for (warmup, decay), final in itertools.product(fractions, (0.0, 0.3, 1.0)):
        parts = {"warmup_fraction": warmup, "decay_fraction": decay, "final_fraction": final}
        found = rates(n_steps, schedule=schedule, **parts)

        assert all(0 <= rate <= 2.0 for rate in found)
        assert max(found[:-1], default=1) > 0
        n_warmup = round(warmup * n_steps)
        assert final < 1 or found[n_warmup:] == [2.0] * (n_steps - n_warmup)
