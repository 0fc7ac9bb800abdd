"""The steps that are measured do what their names say, in every precision."""

import math

import pytest
import torch

from psannlm.bench import training_step as module
from psannlm.bench.steps import forward_step, plain_loss, random_batch
from psannlm.bench.training_step import training_step
from psannlm.model.bases import build
from psannlm.model.cost import Shape
from psannlm.train.objective import NextToken
from tests.networks import moved, tiny
from tests.standing_alone import foreign_imports

CPU = torch.device("cpu")
CONFIG = tiny(vocab_size=40)
BATCH = random_batch(40, Shape(2, 12), seed=3, device=CPU)


def test_a_batch_is_drawn_by_its_seed_and_its_targets_are_the_tokens_that_follow():
    tokens, targets = BATCH
    again, other = (random_batch(40, Shape(2, 12), seed=seed, device=CPU)[0] for seed in (3, 4))

    assert tokens.shape == targets.shape == (2, 12)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])
    assert torch.equal(tokens, again)
    assert not torch.equal(tokens, other)


def test_a_forward_pass_keeps_no_gradient_and_changes_no_weight():
    model = build(CONFIG, seed=0)
    before = [p.clone() for p in model.parameters()]

    logits = forward_step(model, BATCH[0], precision="fp32", compiled=False)()

    assert not logits.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_the_plain_loss_is_the_chunked_one():
    model = moved(CONFIG).train()

    plain, chunked = plain_loss(model, "fp32")(*BATCH), NextToken(model, "fp32", 5)(*BATCH)

    assert plain.item() == pytest.approx(chunked.item(), rel=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_training_step_learns_and_leaves_no_gradient(precision):
    model = build(CONFIG, seed=0)
    loss_of = plain_loss(model, precision)
    step, last_loss = training_step(model, loss_of, *BATCH, precision=precision, learning_rate=0.01)

    for _ in range(60):
        step()

    assert last_loss().item() < math.log(40) - 0.5
    assert all(p.grad is None for p in model.parameters())


def test_it_needs_torch_alone():
    assert foreign_imports(module) == set()
