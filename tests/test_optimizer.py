"""Optimizers hold every learned parameter once, decay only matrices, and follow their schedule."""

import itertools
import math
from typing import Any

import pytest
import torch
from networks import OPTIONS, tiny, tokens_of
from torch import nn

from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.model.bases import build
from psannlm.model.transformer import Transformer
from psannlm.train.optimizer import is_decayed, make_optimizers, rate_at, set_rate
from tests.tiny_trainings import training_config

each_base = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
each_optimizer = pytest.mark.parametrize("optimizer", ["adamw", "muon"])


def config_of(options: dict[str, Any], **changes: Any) -> TrainingConfig:
    shape = {"vocab_size": 257, "context_length": 8, "batch_tokens": 64, "pass_tokens": 64}
    return training_config(**{**shape, **options, **changes})


def network(options: dict[str, Any], **changes: Any) -> Transformer:
    return build(tiny(**options, **changes), seed=0)


def names_in(model: nn.Module, group: dict[str, Any]) -> set[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)] for parameter in group["params"]}


@each_base
@each_optimizer
def test_every_learned_parameter_is_in_one_group_and_matrices_alone_decay(
    options: dict[str, Any], optimizer: str
) -> None:
    model = network(options, learnable=("amplitude",))

    optimizers = make_optimizers(model, config_of(options, optimizer=optimizer, weight_decay=0.5))

    decays = [
        (name, group["weight_decay"])
        for o in optimizers
        for group in o.param_groups
        for name in names_in(model, group)
    ]
    matrices = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding)
    }
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert sorted(decays) == sorted((name, 0.5 * (name in matrices)) for name in learned)


def test_scales_shifts_and_filters_do_not_decay() -> None:
    gate, wave = network({"base": "sgrpsann"}), network({"base": "waveresnet"})

    spared = {
        name.rsplit(".", 1)[-1] if "norm" not in name else "norm"
        for model in (gate, wave)
        for name, parameter in model.named_parameters()
        if not is_decayed(name, parameter)
    }

    assert spared == {
        "raw_amplitude", "raw_frequency", "raw_decay", "norm", "bias", "alpha", "strength", "mask",
        "mix", "taps",
    }  # fmt: skip


@each_base
def test_muon_takes_the_matrices_of_the_blocks_alone(options: dict[str, Any]) -> None:
    model = network(options)

    muon, adamw = make_optimizers(model, config_of(options, optimizer="muon"))

    [group] = muon.param_groups
    assert names_in(model, group) == {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name != "lm_head"
    }
    rest = set().union(*(names_in(model, group) for group in adamw.param_groups))
    assert rest >= {"embedding.weight", "lm_head.weight"}


def test_muon_without_a_torch_that_has_it_is_refused(monkeypatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")

    with pytest.raises(ConfigError, match=r"optimizer: muon needs torch 2\.9 or newer.*use adamw"):
        make_optimizers(network({}), config_of({}, optimizer="muon"))


@each_base
@each_optimizer
def test_a_step_changes_every_parameter(options: dict[str, Any], optimizer: str) -> None:
    model = network(options)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizers = make_optimizers(model, config_of(options, optimizer=optimizer))

    model(tokens_of(model.config, 4, 20)).square().sum().backward()
    for one in optimizers:
        one.step()

    unchanged = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert unchanged == []


def test_adamw_steps_by_its_formula(float64: None) -> None:
    # Loshchilov and Hutter 2019, algorithm 2, in plain arithmetic.
    config = training_config(learning_rate=0.1, weight_decay=0.3, beta1=0.8, beta2=0.9)
    layer = nn.Linear(1, 1)
    weight, bias = layer.weight.item(), layer.bias.item()
    [optimizer] = make_optimizers(layer, config)
    gradients = (0.5, -2.0, 0.25)

    for gradient in gradients:
        layer.weight.grad = torch.full((1, 1), gradient)
        layer.bias.grad = torch.full((1,), gradient)
        optimizer.step()

    def stepped(value: float, decay: float) -> float:
        m = v = 0.0
        for t, g in enumerate(gradients, start=1):
            m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
            rise = (m / (1 - 0.8**t)) / (math.sqrt(v / (1 - 0.9**t)) + 1e-8)
            value -= 0.1 * decay * value + 0.1 * rise
        return value

    assert layer.weight.item() == pytest.approx(stepped(weight, 0.3), rel=1e-12)
    assert layer.bias.item() == pytest.approx(stepped(bias, 0.0), rel=1e-12)


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
    assert found[-1] == pytest.approx(0.2, rel=1e-12)


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
    for warmup, decay in ((0, 0), (1, 0), (0, 1), (0.5, 0.5), (0.01, 0.01), (1 / 3, 2 / 3)):
        for final in (0.0, 0.3, 1.0):
            found = rates(
                n_steps,
                schedule=schedule,
                warmup_fraction=warmup,
                decay_fraction=decay,
                final_fraction=final,
            )

            assert all(0 <= rate <= 2.0 for rate in found)
            assert max(found[:-1], default=1) > 0
            assert final < 1 or found[round(warmup * n_steps) :] == [2.0] * (
                n_steps - round(warmup * n_steps)
            )


@each_optimizer
def test_a_rate_is_set_for_every_group(optimizer: str) -> None:
    optimizers = make_optimizers(network({}), config_of({}, optimizer=optimizer))

    set_rate(optimizers, 0.125)

    assert {group["lr"] for one in optimizers for group in one.param_groups} == {0.125}
