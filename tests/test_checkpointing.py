"""GPU-04: what checkpointing keeps, and that it changes nothing else."""

import dataclasses

import pytest
import torch

from psannlm.checks import checkpointing
from psannlm.checks.checkpointing import Saved, gradient_measures, peak_measure, step_of
from tests.checked import BASES, case_of, failed
from tests.networks import OPTIONS, moved, tiny, tokens_of


def batch_of(length: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    rows = tokens_of(tiny(), 2, length + 1)
    return rows[:, :-1], rows[:, 1:]


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_every_base_passes(base: str):
    result = checkpointing.check(case_of(base))

    assert not failed(result)
    assert result.facts["saved bytes, on"] < result.facts["saved bytes, off"] / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_passes(name: str):
    changes = {k: v for k, v in OPTIONS[name].items() if k != "base"}

    case = case_of(str(OPTIONS[name]["base"]), positions="sinusoidal", **changes)

    assert not failed(checkpointing.check(case))


def test_saved_bytes_are_those_of_distinct_tensors():
    x = torch.ones(5, 3, requires_grad=True)
    saved = Saved(moved(tiny()))

    for tensor in (x, x.T, x[1:], torch.ones(7)):
        saved.keep(tensor)

    assert saved.bytes == 5 * 3 * 4 + 7 * 4


def test_parameters_are_no_saved_bytes():
    model = moved(tiny()).train()
    saved = Saved(model)

    saved.loss(batch_of())

    weights = {p.data_ptr() for p in model.parameters()}
    counted = [t for t in saved.known.values() if t.untyped_storage().data_ptr() not in weights]
    assert saved.bytes == sum(t.untyped_storage().nbytes() for t in counted)
    assert 0 < saved.inside < saved.bytes


def test_a_checkpointed_block_keeps_what_enters_it():
    off, on = (step_of(moved(tiny()), batch_of(), way) for way in (False, True))

    assert on.saved.bytes == off.saved.bytes - off.saved.inside + 2 * 2 * 12 * 8 * 4
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
