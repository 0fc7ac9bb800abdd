"""Leaks from the future, and networks beside their formulas."""

import pytest
import torch

from psannlm.checks.formulas import Exact, formula_measures, leak, leak_measure
from psannlm.model.transformer import Attention, Transformer
from tests.networks import moved, tiny, tokens_of
from tests.twins_network import attend_to_all, mask_missing, residual_scale_dropped


def batch_of(model: Transformer, length: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    rows = tokens_of(model.config, 2, length + 1)
    return rows[:, :-1], rows[:, 1:]


def test_a_causal_network_leaks_nothing():
    model = moved(tiny())

    assert leak(model, tokens_of(model.config, 1, 12)) == 0


@pytest.mark.parametrize("training", [False, True])
def test_a_leak_in_one_mode_alone_is_seen(training: bool, monkeypatch: pytest.MonkeyPatch):
    def broken(attention: Attention) -> bool:
        return attention.training == training

    attend_to_all(monkeypatch, broken)
    model = moved(tiny())

    assert leak(model, tokens_of(model.config, 1, 12)) > 1e-3
    assert not model.training


def test_a_leak_to_the_last_token_but_one_is_seen(monkeypatch: pytest.MonkeyPatch):
    model = moved(tiny())
    tokens = tokens_of(model.config, 1, 12)
    forward = Transformer.forward

    def peeping(self: Transformer, tokens: torch.Tensor) -> torch.Tensor:
        logits = forward(self, tokens).clone()
        logits[:, -2, 0] += 1e-3 * tokens[:, -1]
        return logits

    monkeypatch.setattr(Transformer, "forward", peeping)

    assert leak(model, tokens) > 1e-5


def test_logits_that_are_no_number_are_a_leak():
    model = moved(tiny())
    with torch.no_grad():
        model.norm.weight.fill_(torch.inf)

    assert not leak_measure("", model, tokens_of(model.config, 1, 12), 1e-6).passed


def test_a_single_token_has_nothing_before_it():
    model = moved(tiny())

    assert leak(model, tokens_of(model.config, 1, 1)) == 0


def test_logits_and_gradients_are_those_of_the_formulas():
    model = moved(tiny(base="sgrpsann"))
    batch = batch_of(model)

    exact = Exact.of(model, batch)

    assert all(m.passed for m in formula_measures(model, batch, exact))
    assert 0 < exact.logits_rounding < 1e-5


def test_a_wrong_block_fails_in_logits_and_gradients(monkeypatch: pytest.MonkeyPatch):
    model = moved(tiny())
    batch = batch_of(model)
    residual_scale_dropped(monkeypatch)

    measures = formula_measures(model, batch, Exact.of(model, batch))

    assert [m.passed for m in measures] == [False, False]


def test_a_missing_mask_moves_logits_off_their_formulas(monkeypatch: pytest.MonkeyPatch):
    model = moved(tiny(base="transformer"))
    mask_missing(monkeypatch)

    measures = formula_measures(model, batch_of(model), Exact.of(model, batch_of(model)))

    assert not measures[0].passed
