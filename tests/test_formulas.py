"""Leaks from the future, and networks beside their formulas."""

import pytest
import torch

from psannlm.checks.formulas import Exact, formula_measures, leak, leak_measure
from psannlm.model.transformer import Transformer
from tests.networks import moved, tiny, tokens_of
from tests.twins_network import Patch, attend_to_all, mask_missing, residual_scale_dropped

TOKENS = tokens_of(tiny(), 1, 12)


def to_the_last_token_but_one(patch: Patch) -> None:
    forward = Transformer.forward

    def peeping(self: Transformer, tokens: torch.Tensor) -> torch.Tensor:
        logits = forward(self, tokens).clone()
        logits[:, -2, 0] += 1e-3 * tokens[:, -1]
        return logits

    patch.setattr(Transformer, "forward", peeping)


@pytest.mark.parametrize(
    ("damage", "size"),
    [
        (lambda patch: attend_to_all(patch, lambda attention: attention.training), 1e-3),
        (lambda patch: attend_to_all(patch, lambda attention: not attention.training), 1e-3),
        (to_the_last_token_but_one, 1e-5),
    ],
    ids=["in training", "in evaluation", "to the last token but one"],
)
def test_a_leak_is_seen_in_either_mode_and_anywhere(monkeypatch, damage, size) -> None:
    model = moved(tiny())
    assert leak(model, TOKENS) == leak(model, TOKENS[:, :1]) == 0

    damage(monkeypatch)

    assert leak(model, TOKENS) > size
    assert not model.training


def test_logits_that_are_no_number_are_a_leak() -> None:
    model = moved(tiny())
    with torch.no_grad():
        model.norm.weight.fill_(torch.inf)

    assert not leak_measure("", model, TOKENS, 1e-6).passed


@pytest.mark.parametrize(
    ("base", "damage", "passed"),
    [
        ("sgrpsann", lambda patch: None, [True, True]),
        ("respsann", residual_scale_dropped, [False, False]),
        ("transformer", mask_missing, [False, False]),
    ],
)
def test_logits_and_gradients_are_held_to_the_formulas(monkeypatch, base, damage, passed) -> None:
    damage(monkeypatch)
    model = moved(tiny(base=base))
    rows = tokens_of(model.config, 2, 13)
    batch = rows[:, :-1], rows[:, 1:]

    exact = Exact.of(model, batch)

    assert [m.passed for m in formula_measures(model, batch, exact)] == passed
    assert 0 < exact.logits_rounding < 1e-5
