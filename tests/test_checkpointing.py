"""GPU-04: what checkpointing keeps, and that it changes nothing else."""

import dataclasses

import torch

from psannlm.checks.checkpointing import gradient_measures, peak_measure, step_of
from tests.networks import moved, tiny, tokens_of


def batch_of(length: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    rows = tokens_of(tiny(), 2, length + 1)
    return rows[:, :-1], rows[:, 1:]


def test_most_is_kept_inside_of_blocks_and_some_outside():
    step = step_of(moved(tiny()).train(), batch_of(), checkpointing=False)

    assert step.saved / 2 < step.inside < step.saved


def test_a_checkpointed_block_keeps_what_enters_it():
    off, on = (step_of(moved(tiny()), batch_of(), way) for way in (False, True))

    assert on.saved == off.saved - off.inside + 2 * 2 * 12 * 8 * 4
    assert torch.equal(on.gradients, off.gradients)
    assert on.loss == off.loss


def test_another_loss_or_gradient_fails():
    step = step_of(moved(tiny()), batch_of(), False)
    other = dataclasses.replace(step, loss=step.loss * 1.001, gradients=step.gradients * 1.001)

    assert [m.passed for m in gradient_measures(step, step, step)] == [True, True]
    assert [m.passed for m in gradient_measures(step, step, other)] == [False, False]


def test_two_plain_steps_that_differ_widen_the_bound():
    step = step_of(moved(tiny()), batch_of(), False)
    other = dataclasses.replace(step, gradients=step.gradients * 1.001)

    assert gradient_measures(step, other, other)[1].passed


def test_a_higher_peak_fails():
    assert peak_measure(100, 60).passed
    assert not peak_measure(100, 101).passed
