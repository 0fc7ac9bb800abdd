"""What conditions imply agrees with networks that are really built, and with hand-written sums."""

import pytest

from psannlm.config.schema import ConfigError
from psannlm.model.bases import build
from psannlm.publish.plausibility import cost_of_pass, held_mib, network, peak_of, smallest
from psannlm.publish.published import Conditions

TINY = Conditions(
    base="respsann", batch=2, context_length=8, d_model=16, n_layers=3, n_heads=2, d_mlp=24,
    vocab_size=11, device="NVIDIA H200",
)  # fmt: skip


@pytest.mark.parametrize("base", ["respsann", "waveresnet"])
def test_parameters_are_those_of_a_network_that_is_built(base):
    conditions = TINY.model_copy(update={"base": base})
    built = build(network(conditions), seed=0)

    cost, tokens = cost_of_pass(conditions)

    assert cost.n_parameters == sum(p.numel() for p in built.parameters())
    assert tokens == 16


def test_the_smallest_network_of_a_width_is_built_as_small():
    config = smallest(Conditions(base="waveresnet", d_model=16, n_layers=2))

    built = build(config, seed=0)

    attention, mlp, sine, alpha, norms = 4 * 16**2, 2 * 16 * 64 + 64 + 16, 3 * 64, 1, 2 * 16
    by_hand = 2 * (attention + mlp + sine + alpha + norms) + 2 * 2 * 16 + 16
    assert sum(p.numel() for p in built.parameters()) == by_hand


def test_a_weight_its_gradient_and_two_moments_are_sixteen_bytes():
    assert held_mib(2**20) == 16.0


def test_flops_of_a_forward_pass_are_those_of_its_products():
    cost, tokens = cost_of_pass(TINY)

    layer = 4 * 2 * 16 * 16 + 2 * 2 * 16 * 24 + 2 * 2 * 8 * 16
    assert cost.executed_flops == tokens * (3 * layer + 2 * 16 * 11)


def test_a_shape_that_is_open_is_asked_for():
    with pytest.raises(ConfigError, match="a network needs vocab_size, n_heads"):
        network(Conditions(base="respsann", d_model=16, n_layers=2, context_length=8, d_mlp=8))


def test_a_device_without_a_datasheet_has_no_peak():
    assert peak_of(TINY, "fp32") == 67e12
    with pytest.raises(ConfigError, match="no datasheet of 'abacus' gives its bf16 peak"):
        peak_of(Conditions(device="abacus"), "bf16")
