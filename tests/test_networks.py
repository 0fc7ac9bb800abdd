"""Networks under a check: their noise, their text, their gradients, and how two are compared."""

import math

import numpy as np
import pytest
import torch

from psannlm import ROOT
from psannlm.checks.networks import (
    batches_of,
    difference,
    gradients_of,
    joined,
    loss_of,
    passages,
    perturbed,
    tokens_of,
)
from psannlm.config.schema import ConfigError
from psannlm.corpora.corpus import load
from psannlm.model.bases import build
from tests import networks
from tests.checked import BASES, case_of
from tests.networks import tiny
from tests.tiny_trainings import write_text

CPU = torch.device("cpu")


@pytest.mark.parametrize("base", BASES)
def test_no_parameter_stays_where_it_starts_and_bases_share_their_noise(base: str) -> None:
    case = case_of(base, d_model=8, d_mlp=12)
    fresh, noisy = build(case.network, seed=3), perturbed(case.network, CPU, 3)
    other = dict(perturbed(case.config.network_of("respsann"), CPU, 3).named_parameters())

    for before, after in zip(fresh.parameters(), noisy.parameters(), strict=True):
        assert (before != after).all()
    shared = [(p, other[name]) for name, p in noisy.named_parameters() if name in other]
    assert len(shared) > 10
    assert all(torch.equal(one, another) for one, another in shared)
    assert 0.3 < float(noisy(torch.arange(32)[None]).detach().std()) < 10


def test_features_keep_their_size_through_noisy_matrices() -> None:
    case = case_of("respsann", d_model=64, d_mlp=256)
    up = perturbed(case.network, CPU, 0).blocks[0].mlp.up.weight

    assert (up @ torch.ones(64)).std().item() == pytest.approx(1.0, rel=0.2)


def test_tokens_are_the_bytes_of_the_training_split() -> None:
    config = case_of("respsann").config
    text = next(load(ROOT / config.corpus).texts("train")).encode()

    tokens, found, batches = (
        tokens_of(config, 50),
        passages(config, 3, 20),
        batches_of(config, 6, length=10, rows=2),
    )

    assert np.asarray(tokens.ids).tolist() == [256, *text[:49]]
    assert found.shape == (3, 20)
    assert bytes(found.flatten().tolist()) == text[:60]
    assert batches.n_windows == 6
    assert batches.batch(2)[0].shape == (2, 10)


def test_a_text_that_cannot_serve_is_refused(tmp_path) -> None:
    short = case_of("respsann", corpus=str(write_text(tmp_path))).config
    with pytest.raises(ConfigError, match="must hold 100,000 bytes of training text, got"):
        tokens_of(short, 100_000)
    with pytest.raises(ConfigError, match="token ids must be below vocab_size 100"):
        passages(case_of("respsann", vocab_size=100).config, 1, 8)


def test_a_missing_gradient_counts_as_zero_and_a_scale_is_taken_out() -> None:
    model = networks.moved(tiny())
    rows = networks.tokens_of(model.config, 2, 9)
    (4.0 * loss_of(model, (rows[:, :-1], rows[:, 1:]))).backward()
    plain = model.lm_head.weight.grad / 4
    model.norm.weight.grad = None

    gradients = gradients_of(model, 4.0)

    assert torch.equal(gradients["lm_head.weight"], plain.double())
    assert not gradients["norm.weight"].any()


def test_differences_are_relative_to_what_is_wanted_or_to_its_terms() -> None:
    terms, nothing = torch.tensor([3.0, 4.0]), torch.zeros(2)
    error = torch.tensor([0.0, 1.0])

    assert difference(terms + error, terms) == pytest.approx(0.2)
    assert difference(nothing, nothing) == 0
    assert difference(terms, nothing) == math.inf
    assert math.isnan(difference(torch.tensor([torch.nan]), torch.ones(1)))
    assert difference(error, nothing, terms) == pytest.approx(0.2)
    assert difference(terms + error, terms, nothing) == pytest.approx(0.2)


def test_tensors_are_joined_in_the_order_of_their_names() -> None:
    found = joined({"b": torch.tensor([[2.0], [3.0]]), "a": torch.tensor(1.0)})

    assert found.tolist() == [1.0, 2.0, 3.0]
