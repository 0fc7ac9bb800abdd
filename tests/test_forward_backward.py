"""GPU-01: what a short fit shows, and labels by hand."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from psannlm.checks import forward_backward
from psannlm.checks.forward_backward import (
    copying,
    fit_measures,
    gradient_measure,
    label_measures,
    loss_by_hand,
    text_of,
    unigram_entropy,
)
from psannlm.checks.networks import batches_of
from psannlm.model.bases import build
from psannlm.train.batches import Batches
from tests.checked import case_of, failed
from tests.networks import moved, tiny, tokens_of

TINY_FIT = {"context_length": 16, "batch": 1}


@pytest.mark.slow
def test_a_network_that_hardly_learns_fails() -> None:
    result = forward_backward.check(case_of("respsann", fit_steps=30, learning_rate=1e-6))

    assert [m.split(",")[0] for m in failed(result)] == ["loss after 30 steps"]


def test_a_base_without_formulas_is_held_to_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_backward, "CHANGES", {})

    result = forward_backward.check(case_of("respsann", fit_steps=1, **TINY_FIT))

    reason = "respsann has none in checks/reference.py to be held to"
    assert result.facts["formulas"] == reason
    assert [m.split(",")[0] for m in failed(result)] == ["loss after 1 steps"]
    assert not any("against the formulas" in m.name for m in result.measures)
    assert any("before a changed token" in m.name for m in result.measures)


def test_the_entropy_of_bytes_is_the_least_loss_of_fixed_probabilities() -> None:
    tokens = torch.tensor([[3, 3, 3, 5], [5, 7, 7, 3]])  # of 8, 4, 2 and 2

    assert unigram_entropy(tokens) == pytest.approx(1.5 * math.log(2))
    assert unigram_entropy(torch.zeros(4)) == 0


def test_a_fit_tells_every_loss_and_leaves_the_network_fitted() -> None:
    case = case_of("transformer", fit_steps=4, **TINY_FIT)
    batches = batches_of(case.config, 1, rows=1)
    model = build(case.network, seed=0)
    before = [p.clone() for p in model.parameters()]

    measures, facts = fit_measures(case, model, batches)

    losses = facts["losses of the fit, nats"]
    assert len(losses) == 5
    assert measures[1].value == losses[-1] < losses[0]
    assert measures[0].value == pytest.approx(abs(losses[0] - math.log(257)))
    assert measures[1].bound == unigram_entropy(batches.batch(0)[1])
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    with torch.no_grad():
        model.lm_head.weight *= 100
    far_from_a_blind_guess = fit_measures(case, model, batches)[0][0]
    assert (measures[0].passed, far_from_a_blind_guess.passed) == (True, False)


@pytest.mark.parametrize(("factor", "count"), [(1.0, 0), (0.0, 1), (math.nan, 1), (math.inf, 1)])
def test_gradients_that_are_zero_or_no_number_are_counted(factor: float, count: int) -> None:
    model = moved(tiny())
    model.blocks[1].alpha.register_hook(lambda gradient: gradient * factor)
    rows = tokens_of(model.config, 2, 9)

    assert gradient_measure(model, (rows[:, :-1], rows[:, 1:])).value == count


def test_the_loss_by_hand_is_torchs_cross_entropy_of_the_next_token() -> None:
    config = tiny()
    model, rows = moved(config), tokens_of(config, 2, 9)

    wanted = cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())

    assert loss_by_hand(model, rows) == pytest.approx(wanted.item(), rel=1e-5)
    assert loss_by_hand(model, rows, shift=0) != pytest.approx(wanted.item(), rel=1e-2)


@pytest.mark.parametrize("positions", ["rope", "alibi", "sinusoidal"])
@pytest.mark.parametrize("base", ["sgrpsann", "waveresnet", "transformer"])
def test_a_copying_network_repeats_its_input(base: str, positions: str) -> None:
    config = tiny(base=base, positions=positions)
    model, rows = copying(moved(config)), tokens_of(config, 2, 20)

    assert loss_by_hand(model, rows, shift=0) < 0.01
    assert torch.equal(model(rows).argmax(-1), rows)


def test_labels_that_are_not_shifted_fail_both_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = batches_of(case_of("respsann").config, 2, length=16, rows=2)
    text, (tokens, targets) = text_of(batches), batches.batch(0)
    right = Batches._rows

    assert torch.equal(text[:, :-1], tokens)
    assert torch.equal(text[:, 1:], targets)
    assert all(m.passed for m in label_measures(moved(tiny(vocab_size=257)), batches))
    monkeypatch.setattr(Batches, "_rows", lambda self, windows: (right(self, windows)[0],) * 2)
    measures = label_measures(moved(tiny(vocab_size=257)), batches)
    assert [m.passed for m in measures] == [False, False]
