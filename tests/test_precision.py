"""GPU-02 and GPU-04: half precision and checkpointing change no more than they may."""

import dataclasses
import math

import pytest
import torch

from psannlm.checks import precision
from psannlm.checks.checkpointing import gradient_measures, peak_measure, step_of
from psannlm.checks.findings import UncheckableError
from psannlm.checks.networks import perturbed
from psannlm.checks.precision import Outcome, Pairs
from tests.checked import case_of
from tests.networks import batch_of, moved, tiny

FULL = Outcome(
    2.0, {"blocks.0.a": torch.tensor([3.0]), "blocks.1.a": torch.tensor([4.0])}, torch.full((4,), 2)
)


def half(loss: float, *gradients: float, losses: float = 2.0) -> Outcome:
    named = {f"blocks.{n}.a": torch.tensor([g]) for n, g in enumerate(gradients)}
    return Outcome(loss, named, torch.full((4,), losses))


def test_differences_are_the_worst_of_all_seeds():
    pairs = Pairs([FULL, FULL], [half(2.0, 3.0, 4.0), half(1.9, 3.0, 3.0, losses=2.5)])

    assert pairs.loss == pytest.approx(0.05)
    assert pairs.gradient == pytest.approx(1 / 5)
    assert pairs.turn == pytest.approx(1 - 21 / (5 * math.sqrt(18)))
    assert pairs.token_loss == pytest.approx(0.25)
    assert pairs.by_kind == {"a": pytest.approx(1 / math.sqrt(50))}


def test_a_loss_that_is_no_number_is_the_worst_difference():
    pairs = Pairs([FULL, FULL], [half(math.nan, 3.0, 4.0), half(2.0, math.nan, 4.0)])

    assert pairs.loss == pairs.gradient == pairs.turn == math.inf


def test_each_bound_can_be_broken():
    yardstick = Pairs([FULL], [half(2.0, 3.03, 4.0, losses=2.01)])

    measures = precision.parity_measures("bf16", Pairs([FULL], [half(2.1, 3.0, 5.0)]), yardstick)

    assert not any(m.passed for m in measures)
    assert all(m.passed for m in precision.parity_measures("bf16", yardstick, yardstick))


def test_trajectories_may_part_by_what_a_step_gains():
    full = [[5.0, 4.0, 3.0]]

    near = precision.trajectory_measure("bf16", full, [[5.9, 4.9, 3.9]])
    far = precision.trajectory_measure("bf16", full, [[6.1, 5.1, 4.1]])

    assert (near.value, near.bound) == (pytest.approx(0.9), 1.0)
    assert near.passed
    assert not far.passed
    assert not precision.trajectory_measure("bf16", full, [[5.0, math.nan, 3.0]]).passed


def test_formulas_in_half_deviate_as_networks_do():
    case = case_of("waveresnet", context_length=24)
    model = perturbed(case.network, case.device, 1)
    rows = torch.arange(50).view(2, 25) * 5
    batch = rows[:, :-1], rows[:, 1:]

    found = Pairs(*([precision.of_network(model, batch, p)] for p in ("fp32", "bf16")))
    formulas = Pairs(*([precision.of_formulas(model, batch, p)] for p in ("fp32", "bf16")))

    assert found.gradient == pytest.approx(formulas.gradient, rel=0.5)
    assert found.full[0].loss == pytest.approx(formulas.full[0].loss, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("CHANGES", {}, r"respsann has no formulas in checks/reference\.py"),
        ("_missing", lambda *_: "no such product", "bf16: no such product"),
    ],
)
def test_what_cannot_be_checked_says_why(monkeypatch, name: str, value: object, reason: str):
    monkeypatch.setattr(precision, name, value)

    with pytest.raises(UncheckableError, match=reason):
        precision.check(case_of("respsann"))


BATCH = batch_of(tiny(), 2, 12)


def test_most_is_kept_inside_of_blocks_and_some_outside():
    step = step_of(moved(tiny()).train(), BATCH, checkpointing=False)

    assert step.saved / 2 < step.inside < step.saved


def test_a_checkpointed_block_keeps_what_enters_it():
    off, on = (step_of(moved(tiny()), BATCH, way) for way in (False, True))

    assert on.saved == off.saved - off.inside + 2 * 2 * 12 * 8 * 4
    assert torch.equal(on.gradients, off.gradients)
    assert on.loss == off.loss


def test_another_loss_or_gradient_fails():
    step = step_of(moved(tiny()), BATCH, False)
    other = dataclasses.replace(step, loss=step.loss * 1.001, gradients=step.gradients * 1.001)

    assert [m.passed for m in gradient_measures(step, step, step)] == [True, True]
    assert [m.passed for m in gradient_measures(step, step, other)] == [False, False]


def test_two_plain_steps_that_differ_widen_the_bound():
    step = step_of(moved(tiny()), BATCH, False)
    other = dataclasses.replace(step, gradients=step.gradients * 1.001)

    assert gradient_measures(step, other, other)[1].passed


def test_a_higher_peak_fails():
    assert peak_measure(100, 60).passed
    assert not peak_measure(100, 101).passed
