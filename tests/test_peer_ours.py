"""Our side of the comparison is the network that we train and generate with."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from psannlm.model.bases import BASES, cost_of
from psannlm.model.cost import Shape
from psannlm.pages.peer.ours import Ours
from psannlm.pages.peer.works import batch_of, n_parameters
from tests.peers import side_task


@pytest.mark.parametrize("base", BASES)
def test_the_network_is_that_of_the_task(base):
    task = side_task(base=base)

    model = Ours(task).network()

    assert n_parameters(model) == cost_of(model.config, Shape(1, 1)).n_parameters
    assert model.config.model_dump() == task["model"]


def test_weights_are_drawn_by_the_seed_and_checkpointing_changes_none():
    first, other = (Ours(side_task(seed=seed)).network() for seed in (0, 1))
    again = Ours(side_task()).network(checkpointing=True)

    assert (first.config.grad_checkpoint, again.config.grad_checkpoint) == (False, True)
    assert torch.equal(first.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_the_loss_is_that_of_the_next_token():
    side = Ours(side_task())
    model = side.network().train()
    tokens, targets = batch_of(side.task)

    loss = side.loss_of(model, compiled=False)(tokens, targets)

    expected = cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_generation_makes_all_the_tokens():
    assert Ours(side_task(new_tokens=5)).generator([1, 2, 3])() == 5
