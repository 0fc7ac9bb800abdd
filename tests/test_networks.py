"""Networks under a check: noise, text, gradients, short training runs, and how two compare."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from psannlm import ROOT
from psannlm.checks import networks
from psannlm.checks.networks import difference, largest_difference, n_different, perturbed
from psannlm.config.schema import ConfigError
from psannlm.corpora.corpus import load
from psannlm.model.bases import build
from tests.checked import BASES, case_of
from tests.networks import moved, tiny
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

    found = networks.passages(config, 3, 20)
    batches = networks.batches_of(config, 6, length=10, rows=2)

    assert np.asarray(networks.tokens_of(config, 50).ids).tolist() == [256, *text[:49]]
    assert found.shape == (3, 20)
    assert bytes(found.flatten().tolist()) == text[:60]
    assert batches.n_windows == 6
    assert batches.batch(2)[0].shape == (2, 10)


def test_a_text_that_cannot_serve_is_refused(tmp_path) -> None:
    short = case_of("respsann", corpus=str(write_text(tmp_path))).config
    with pytest.raises(ConfigError, match="must hold 100,000 bytes of training text, got"):
        networks.tokens_of(short, 100_000)
    with pytest.raises(ConfigError, match="token ids must be below vocab_size 100"):
        networks.passages(case_of("respsann", vocab_size=100).config, 1, 8)


def test_a_missing_gradient_is_zero_and_a_scale_is_taken_out() -> None:
    model = moved(tiny())
    plain = torch.autograd.grad(model.lm_head.weight.square().sum(), model.lm_head.weight)[0]

    gradients = networks.gradients_of(model, model.lm_head.weight.square().sum(), 4.0)

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
    found = networks.joined({"b": torch.tensor([[2.0], [3.0]]), "a": torch.tensor(1.0)})

    assert found.tolist() == [1.0, 2.0, 3.0]


def test_passes_of_a_step_give_the_gradients_of_all_their_text_and_change_the_weights() -> None:
    case = case_of("respsann")
    text = networks.passages(case.config, 4, 17)
    objective, optimizer = networks.start(case.network, case.config, CPU, 0)
    logits = objective.model(text[:, :-1])
    mean = cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
    named = dict(objective.named_parameters())
    expected = dict(zip(named, torch.autograd.grad(mean, list(named.values())), strict=True))
    before = networks.parameters_of(objective)

    learned = networks.learn(objective, optimizer, [[*text.split(2)]])

    assert largest_difference(learned.gradients, expected, {})[0] < 1e-4
    assert learned.losses.tolist() == pytest.approx([mean.item()], rel=1e-6)
    after = networks.parameters_of(objective)
    assert all(n_different({name: after[name]}, {name: before[name]}) for name in before)
    losses = networks.learn(objective, optimizer, [[text]] * 5).losses
    assert bool((losses.diff() < 0).all())


def test_the_worst_tensor_is_named_and_a_missing_one_is_infinitely_off() -> None:
    right = {"a": torch.ones(2), "b": torch.ones(2)}
    error, terms = torch.tensor([0.5, 0.0]), torch.tensor([3.0, 4.0])

    assert largest_difference(right | {"b": torch.ones(2) * 3}, right, {}) == (2.0, "b")
    assert largest_difference({"b": torch.ones(2)}, right, right) == (math.inf, "a")
    assert largest_difference(right, {"a": torch.ones(2)}, {}) == (math.inf, "b")
    found, _ = largest_difference({"a": error}, {"a": torch.zeros(2)}, {"a": terms})
    assert found == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("found", "count"),
    [
        (torch.tensor([0.0, 1.0, math.nan]), 0),
        (torch.tensor([-0.0, 1.0, math.nan]), 1),
        (torch.tensor([0.0, 1.0 + 2**-23, 0.0]), 2),
        (torch.tensor([0.0, 1.0]), 3),
        (torch.tensor([0.0, 1.0, math.nan], dtype=torch.float64), 3),
    ],
)
def test_differing_bits_are_counted(found: Tensor, count: int) -> None:
    right = {"a": torch.tensor([0.0, 1.0, math.nan])}

    assert n_different({"a": found}, right) == count
    assert n_different({"a": found, "b": torch.ones(5)}, right) == count + 5
