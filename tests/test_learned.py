"""What nonlinearities have learned is told layer by layer, before beside after."""

import pytest
import torch

from psannlm.model.bases import build
from psannlm.model.sine import DampedSine
from psannlm.model.transformer import GeluScaled
from psannlm.train.learned import LearnedNonlinearity, nonlinearities
from tests.networks import moved, tiny


def told(**changes: object) -> list[LearnedNonlinearity]:
    config = tiny(**changes)
    return list(nonlinearities(build(config, seed=0), moved(config)))


def test_every_sine_is_told_with_all_its_parameters() -> None:
    config = tiny(base="waveresnet", wave="interleave")
    after = moved(config)

    found = list(nonlinearities(build(config, seed=0), after))

    assert [one.layer for one in found] == ["0 mlp", "0 wave", "1 mlp", "1 wave"]
    assert {one.kind for one in found} == {DampedSine}
    sine = after.blocks[1].mlp.nonlinearity
    for part in ("amplitude", "frequency", "decay"):
        assert torch.equal(found[2].after[part], getattr(sine, part).detach())
    assert found[2].before["decay"].tolist() == pytest.approx([0.01] * config.d_mlp)
    assert not found[2].after["amplitude"].requires_grad


def test_a_part_that_a_nonlinearity_lacks_is_not_told() -> None:
    [sine, _] = told(decay_mode="none")
    [gelu, _] = told(base="transformer", mlp="gelu_scaled")

    assert list(sine.before) == list(sine.after) == ["amplitude", "frequency"]
    assert (gelu.layer, gelu.kind, list(gelu.after)) == (
        "0 mlp", GeluScaled, ["amplitude", "frequency"],
    )  # fmt: skip
    assert gelu.before["amplitude"].tolist() == pytest.approx([1.0] * 12)
    assert told(base="transformer", mlp="swiglu") == []  # has no parameters of its own
