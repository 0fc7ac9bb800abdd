"""A short course is what its formula says, and what differs is counted and measured."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from psannlm.checks.courses import (
    distance,
    furthest,
    joined,
    learn,
    n_different,
    objective_of,
    optimizer_of,
    parameters_of,
)
from psannlm.checks.texts import passages
from tests.checked import case_of

CPU = torch.device("cpu")


def test_passes_of_a_step_give_the_gradients_of_all_their_text() -> None:
    case = case_of("respsann")
    text = passages(case.config, 4, 17)
    objective = objective_of(case.network, 0, CPU)
    logits = objective.model(text[:, :-1])
    mean = cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
    named = dict(objective.named_parameters())
    expected = dict(zip(named, torch.autograd.grad(mean, list(named.values())), strict=True))

    learned = learn(objective, optimizer_of(objective, case.config), [[*text.split(2)]], CPU)

    assert furthest(learned.gradients, expected, {})[0] < 1e-4
    assert learned.losses.tolist() == pytest.approx([mean.item()], rel=1e-6)


def test_every_step_learns() -> None:
    case = case_of("transformer")
    objective = objective_of(case.network, 0, CPU)
    before = parameters_of(objective)
    text = passages(case.config, 4, 33)

    learned = learn(objective, optimizer_of(objective, case.config), [[text]] * 5, CPU)

    assert bool((learned.losses.diff() < 0).all())
    assert all(n_different({n: p}, {n: before[n]}) for n, p in parameters_of(objective).items())


def test_distance_is_relative_to_what_is_right() -> None:
    right = torch.tensor([3.0, 4.0])

    assert distance(right * 1.5, right) == pytest.approx(0.5)
    assert distance(right, right * 0) == math.inf
    assert distance(right * 0, right * 0) == 0


def test_what_cancels_is_measured_beside_what_it_is_a_sum_of() -> None:
    terms, nothing = torch.tensor([3.0, 4.0]), torch.zeros(2)
    error = torch.tensor([0.5, 0.0])

    assert distance(error, nothing, terms) == pytest.approx(0.1)
    assert distance(terms + error, terms, nothing) == pytest.approx(0.1)
    assert furthest({"a": error}, {"a": nothing}, {"a": terms})[0] == pytest.approx(0.1)
    assert distance(error, nothing, nothing) == math.inf


def test_the_furthest_tensor_is_named_and_a_missing_one_is_infinitely_far() -> None:
    right = {"a": torch.ones(2), "b": torch.ones(2)}

    assert furthest({"a": torch.ones(2), "b": torch.ones(2) * 3}, right, {}) == (2.0, "b")
    assert furthest({"b": torch.ones(2)}, right, right) == (math.inf, "a")
    assert furthest(right, {"a": torch.ones(2)}, {}) == (math.inf, "b")


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


def test_tensors_are_joined_by_name() -> None:
    tensors = {"b": torch.tensor([[3.0]]), "a": torch.tensor([1.0, 2.0])}

    assert joined(tensors).tolist() == [1.0, 2.0, 3.0]
