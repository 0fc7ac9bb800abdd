"""A training step learns, in every precision, and leaves nothing behind."""

import math

import pytest
import torch

from psannlm.bench import training_step as module
from psannlm.bench.steps import plain_loss, random_batch
from psannlm.bench.training_step import training_step
from psannlm.model.bases import build
from psannlm.model.cost import Shape
from tests.networks import tiny
from tests.standing_alone import foreign_imports

CONFIG = tiny(vocab_size=40)
BATCH = random_batch(40, Shape(2, 12), seed=3, device=torch.device("cpu"))


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
