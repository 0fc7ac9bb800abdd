"""GPU-01: what a short fit shows, and every base with every option."""

import math
from collections import Counter

import pytest
import torch

from psannlm.checks import forward_backward
from psannlm.checks.forward_backward import fit_measures, gradient_measure, unigram_entropy
from psannlm.checks.texts import batches_of
from psannlm.model.bases import build
from tests.checked import BASES, case_of, failed
from tests.networks import OPTIONS, moved, tiny, tokens_of

SHORT_FIT = {"fit_steps": 50, "learning_rate": 0.02}
TINY_FIT = {"context_length": 16, "batch": 1}


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_every_base_passes_with_each_seed_and_kind_of_positions(base: str):
    for seed, positions in enumerate(("rope", "alibi", "sinusoidal")):
        case = case_of(base, seed=seed, positions=positions, **SHORT_FIT)

        result = forward_backward.check(case)

        assert not failed(result)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_passes(name: str):
    changes = {k: v for k, v in OPTIONS[name].items() if k != "base"}
    changes |= {"grad_checkpoint": True, "learnable": ()}

    case = case_of(str(OPTIONS[name]["base"]), **changes, **SHORT_FIT)

    assert not failed(forward_backward.check(case))


@pytest.mark.slow
def test_a_network_that_hardly_learns_fails():
    result = forward_backward.check(case_of("respsann", fit_steps=30, learning_rate=1e-6))

    assert [m.split(",")[0] for m in failed(result)] == ["loss after 30 steps"]


def test_the_entropy_of_bytes_is_the_least_loss_of_fixed_chances():
    tokens = torch.tensor([[3, 3, 3, 5], [5, 7, 7, 3]])
    counts = Counter(tokens.flatten().tolist())

    wanted = sum(-n / 8 * math.log(n / 8) for n in counts.values())

    assert unigram_entropy(tokens) == pytest.approx(wanted)
    assert unigram_entropy(torch.zeros(4)) == 0


def test_a_fit_tells_every_loss_and_leaves_the_network_fitted():
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


def test_first_losses_far_from_a_blind_guess_fail():
    case = case_of("transformer", fit_steps=1, **TINY_FIT)
    model = build(case.network, seed=0)
    with torch.no_grad():
        model.lm_head.weight *= 100

    measures, _ = fit_measures(case, model, batches_of(case.config, 1, rows=1))

    assert not measures[0].passed


@pytest.mark.parametrize(
    ("spoil", "count"),
    [
        (lambda g: g, 0),
        (lambda g: g * 0, 1),
        (lambda g: g * math.nan, 1),
        (lambda g: g.fill_(math.inf), 1),
    ],
)
def test_gradients_that_are_zero_or_no_number_are_counted(spoil: object, count: int):
    model = moved(tiny())
    model.blocks[1].alpha.register_hook(spoil)
    rows = tokens_of(model.config, 2, 9)

    assert gradient_measure(model, (rows[:, :-1], rows[:, 1:])).value == count
