"""Arms are every base and every plain nonlinearity, all as large as the baseline."""

from typing import Any

import pytest
import torch

from psannlm.config.schema import ConfigError
from psannlm.model.bases import BASES, build
from psannlm.pages.shootout.arms import all_arms, arms_of, is_scaled, n_parameters, network_of
from tests.synthetic_shootout import shootout_config

SHAPES: dict[str, dict[str, Any]] = {
    "smoke": {"d_model": 32, "n_layers": 2, "n_heads": 2, "d_mlp": 128, "vocab_size": 512},
    "cpu": {"d_model": 128, "n_layers": 4, "n_heads": 4, "d_mlp": 512, "vocab_size": 2048},
    "gpu": {"d_model": 256, "n_layers": 4, "n_heads": 4, "d_mlp": 1024, "vocab_size": 16384},
    "all weights": {"d_model": 64, "n_heads": 4, "d_mlp": 512, "gate_mix": "full"},
}
ARMS = all_arms()


def test_every_base_is_an_arm_and_the_transformer_is_one_for_each_nonlinearity() -> None:
    plain = {"gelu", "relu_squared", "swiglu", "gelu_scaled"}

    assert set(ARMS) == {*BASES, *plain} - {"transformer"}
    assert {ARMS[name].base for name in plain} == {"transformer"}
    assert {ARMS[name].changes["mlp"] for name in plain} == plain
    assert [arm.name for arm in arms_of(shootout_config())] == list(ARMS)


def test_the_baseline_is_an_arm_even_if_it_is_not_named_and_order_is_always_the_same() -> None:
    config = shootout_config(base=("swiglu", "respsann"), ablation=(), scale_arms=())

    assert [arm.name for arm in arms_of(config)] == ["respsann", "gelu", "swiglu"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": ("respsan",)}, "base: unknown arm 'respsan', did you mean 'respsann'.*swiglu"),
        ({"base": ("transformer",)}, "base: unknown arm 'transformer'"),
        ({"baseline": "gelo"}, "baseline: unknown arm 'gelo', did you mean 'gelu'"),
        ({"ablation": ("sgrpsan",)}, "ablation: unknown arm 'sgrpsan', did you mean 'sgrpsann'"),
        ({"ablation": ("gelu_scaled",)}, "damped sine, got 'gelu_scaled'; leave it out"),
        (
            {"base": ("respsann",), "scale_arms": ("swiglu",)},
            "scale_arms: unknown arm 'swiglu'.*There are: respsann, gelu",
        ),
        ({"wave": "replace"}, "no d_mlp gives waveresnet the .* of gelu.*match by width"),
        ({"d_model": 64, "gate_mix": "full"}, "no d_mlp gives sgrpsann .* the nearest is .* at 1;"),
    ],
)
def test_what_is_no_arm_of_the_shootout_or_cannot_be_as_large_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        arms_of(shootout_config(**changes))

    if "no d_mlp" in message:
        assert arms_of(shootout_config(**changes, match="width"))


@pytest.mark.parametrize("shape", SHAPES)
def test_arms_have_the_parameters_of_the_baseline_within_half_a_percent(shape: str) -> None:
    config = shootout_config(**SHAPES[shape])
    baseline = network_of(ARMS["gelu"], config)

    found = {arm.name: n_parameters(network_of(arm, config)) for arm in arms_of(config)}

    assert found == pytest.approx(dict.fromkeys(found, n_parameters(baseline)), rel=0.005)
    assert baseline.d_mlp == config.d_mlp


def test_no_other_width_comes_nearer_to_the_baseline() -> None:
    config = shootout_config(**SHAPES["smoke"])
    target = n_parameters(network_of(ARMS["gelu"], config))

    for arm in arms_of(config):
        network = network_of(arm, config)
        widths = range(1, 3 * config.d_mlp)
        gaps = {width: abs(n_parameters(network, width) - target) for width in widths}
        assert gaps[network.d_mlp] == min(gaps.values())


def test_parameters_are_counted_as_they_are_built() -> None:
    for arm in arms_of(shootout_config()):
        network = network_of(arm, shootout_config())

        built = build(network, seed=0)

        assert n_parameters(network) == sum(p.numel() for p in built.parameters())


def test_matched_by_width_every_arm_has_the_d_mlp_of_the_run() -> None:
    config = shootout_config(match="width")

    assert {network_of(arm, config).d_mlp for arm in arms_of(config)} == {config.d_mlp}


def test_what_a_tuning_chose_moves_no_parameter() -> None:
    usual, chosen = (
        network_of(ARMS["respsann"], shootout_config(), **changes)
        for changes in ({}, {"sine_frequency": 2.25})
    )

    assert chosen == usual.model_copy(update={"sine_frequency": 2.25}) != usual


def test_arms_whose_nonlinearity_has_a_frequency_are_known_by_their_modules() -> None:
    before = torch.random.get_rng_state()
    config = shootout_config()

    scaled = {arm.name for arm in arms_of(config) if is_scaled(arm, config)}

    assert scaled == {"respsann", "sgrpsann", "waveresnet", "gelu_scaled"}
    assert is_scaled(ARMS["waveresnet"], shootout_config(wave="replace"))
    assert torch.equal(torch.random.get_rng_state(), before)
