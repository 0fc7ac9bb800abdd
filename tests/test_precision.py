"""GPU-02 and GPU-04: half precision and checkpointing change no more than they may."""

import math

import pytest
import torch

from psannlm.checks import networks, precision
from psannlm.checks.checkpointing import measures_of, step_of
from psannlm.checks.findings import UncheckableError
from psannlm.checks.precision import Outcome, gaps
from tests.checked import case_of
from tests.networks import batch_of, moved, tiny


def outcome(losses: list[float], *gradients: float) -> Outcome:
    named = {f"blocks.{n}.a": torch.tensor([g]) for n, g in enumerate(gradients)}
    return Outcome(torch.tensor(losses), named)


FULL = outcome([2.0, 2.0], 3.0, 4.0)


def test_differences_are_the_worst_of_all_seeds():
    found = gaps([FULL, FULL], [outcome([2.0, 2.1], 3.0, 4.0), outcome([1.9, 2.7], 3.0, 3.0)])

    assert found.loss == pytest.approx(0.25)
    assert found.gradient == pytest.approx(1 / 5)
    assert found.turn == pytest.approx(1 - 21 / (5 * math.sqrt(18)))
    assert found.by_kind == {"a": pytest.approx(1 / math.sqrt(50))}


def test_a_loss_that_is_no_number_is_the_worst_difference():
    found = gaps(
        [FULL, FULL], [outcome([math.nan, 2.0], 3.0, 4.0), outcome([2.0, 2.0], math.nan, 4.0)]
    )

    assert found.loss == found.gradient == found.turn == math.inf


def test_each_bound_can_be_broken():
    yardstick = gaps([FULL], [outcome([2.01, 1.99], 3.03, 4.0)])
    found = gaps([FULL], [outcome([2.1, 2.1], 3.0, 5.0)])

    assert not any(m.passed for m in precision.parity_measures("bf16", found, yardstick))
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
    model = networks.perturbed(case.network, case.device, 1)
    rows = torch.arange(50).view(2, 25) * 5

    (full, half), (exact, cut) = (
        [compute(model, (rows[:, :-1], rows[:, 1:]), p) for p in ("fp32", "bf16")]
        for compute in (precision.of_network, precision.of_formulas)
    )

    assert gaps([full], [half]).gradient == pytest.approx(gaps([exact], [cut]).gradient, rel=0.5)
    assert full.losses.item() == pytest.approx(exact.losses.mean().item(), rel=1e-6)


@pytest.mark.parametrize(
    ("module", "name", "value", "reason"),
    [
        (precision, "CHANGES", {}, r"respsann has no formulas in checks/reference\.py"),
        (networks, "missing_products", lambda *_: "no such product", "bf16: no such product"),
    ],
)
def test_what_cannot_be_checked_says_why(monkeypatch, module, name, value, reason):
    monkeypatch.setattr(module, name, value)

    with pytest.raises(UncheckableError, match=reason):
        precision.check(case_of("respsann"))


BATCH = batch_of(tiny(), 2, 12)
CASE = case_of("respsann", batch=2, context_length=12, d_model=8, d_mlp=12)


def test_a_checkpointed_block_keeps_what_enters_it_and_nothing_else():
    off, on = (step_of(moved(tiny()).train(), BATCH, way) for way in (False, True))

    assert off.saved / 2 < off.inside < off.saved
    assert on.saved == off.saved - off.inside + 2 * 2 * 12 * 8 * 4
    assert torch.equal(on.gradients, off.gradients)
    assert [m.passed for m in measures_of(CASE, off, off, on)] == [True, True, True]


def test_another_loss_or_gradient_or_more_bytes_fail_and_unequal_plain_steps_widen_the_bound():
    step = step_of(moved(tiny()), BATCH, True)
    other = step._replace(loss=step.loss * 1.001, gradients=step.gradients * 1.001)

    def passed(*steps):
        return [m.passed for m in measures_of(CASE, *steps)]

    more = step._replace(saved=step.saved * 2)
    assert passed(step, step, other) == [False, False, True]
    assert passed(step, other, other) == [True, True, True]
    assert passed(step, step, more) == [True, True, False]
