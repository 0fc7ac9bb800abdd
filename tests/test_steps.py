"""The steps that are measured do what their names say."""

import pytest
import torch

from psannlm.bench.steps import forward_step, plain_loss, random_batch
from psannlm.model.bases import build
from psannlm.model.cost import Shape
from psannlm.train.objective import NextToken
from tests.networks import moved, tiny

CPU = torch.device("cpu")
CONFIG = tiny(vocab_size=40)
BATCH = random_batch(40, Shape(2, 12), seed=3, device=CPU)


def test_targets_are_the_tokens_that_follow():
    tokens, targets = BATCH

    assert tokens.shape == targets.shape == (2, 12)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])
    assert not torch.equal(tokens, targets)


def test_a_batch_is_drawn_by_its_seed():
    again, other = (random_batch(40, Shape(2, 12), seed=seed, device=CPU)[0] for seed in (3, 4))

    assert torch.equal(BATCH[0], again)
    assert not torch.equal(BATCH[0], other)


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
