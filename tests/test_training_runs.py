"""A short training run is what its formula says, and what differs is counted and measured."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from psannlm.checks.networks import passages
from psannlm.checks.training_runs import (
    largest_difference,
    learn,
    n_different,
    parameters_of,
    start,
)
from tests.checked import case_of

CPU = torch.device("cpu")


def test_passes_of_a_step_give_the_gradients_of_all_their_text_and_change_the_weights() -> None:
    case = case_of("respsann")
    text = passages(case.config, 4, 17)
    objective, optimizer = start(case.network, case.config, CPU, 0)
    logits = objective.model(text[:, :-1])
    mean = cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
    named = dict(objective.named_parameters())
    expected = dict(zip(named, torch.autograd.grad(mean, list(named.values())), strict=True))
    before = parameters_of(objective)

    learned = learn(objective, optimizer, [[*text.split(2)]], CPU)

    assert largest_difference(learned.gradients, expected, {})[0] < 1e-4
    assert learned.losses.tolist() == pytest.approx([mean.item()], rel=1e-6)
    assert all(n_different({n: p}, {n: before[n]}) for n, p in parameters_of(objective).items())
    losses = learn(objective, optimizer, [[text]] * 5, CPU).losses
    assert bool((losses.diff() < 0).all())


def test_the_worst_tensor_is_named_and_a_missing_one_is_infinitely_off() -> None:
    right = {"a": torch.ones(2), "b": torch.ones(2)}
    error, terms = torch.tensor([0.5, 0.0]), torch.tensor([3.0, 4.0])

    assert largest_difference(right | {"b": torch.ones(2) * 3}, right, {}) == (2.0, "b")
    assert largest_difference({"b": torch.ones(2)}, right, right) == (math.inf, "a")
    assert largest_difference(right, {"a": torch.ones(2)}, {}) == (math.inf, "b")
    found, _ = largest_difference({"a": error}, {"a": torch.zeros(2)}, {"a": terms})
    assert found == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("found", "count"),
    [
        (torch.tensor([0.0, 1.0, math.nan]), 0),
        (torch.tensor([-0.0, 1.0, math.nan]), 1),
        (torch.tensor([0.0, 1.0 + 2**-23, 0.0]), 2),
        (torch.tensor([0.0, 1.0]), 3),
        (torch.tensor([0.0, 1.0, math.nan], dtype=torch.float64), 3),
    ],
)
def test_differing_bits_are_counted(found: Tensor, count: int) -> None:
    right = {"a": torch.tensor([0.0, 1.0, math.nan])}

    assert n_different({"a": found}, right) == count
    assert n_different({"a": found, "b": torch.ones(5)}, right) == count + 5
