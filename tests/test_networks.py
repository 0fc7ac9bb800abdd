"""Networks under a check: their noise, their gradients, and how two are compared."""

import pytest
import torch

from psannlm.checks.networks import difference, gradients_of, joined, loss_of, perturbed
from psannlm.model.bases import build
from tests.checked import case_of
from tests.networks import moved as moved_tiny
from tests.networks import tiny, tokens_of

CPU = torch.device("cpu")


def test_no_parameter_stays_where_it_starts():
    case = case_of("sgrpsann", d_model=8, d_mlp=12)
    fresh, noisy = build(case.network, seed=3), perturbed(case.network, case.device, 3)

    for before, after in zip(fresh.parameters(), noisy.parameters(), strict=True):
        assert (before != after).all()


def test_networks_share_the_noise_of_parameters_of_one_name():
    case = case_of("respsann", d_model=8, d_mlp=12)
    one, other = (perturbed(case.config.network_of(b), CPU, 3) for b in ("respsann", "sgrpsann"))

    shared = dict(other.named_parameters())
    assert all(torch.equal(p, shared[name]) for name, p in one.named_parameters())


def test_features_keep_their_size_through_noisy_matrices():
    case = case_of("respsann", d_model=64, d_mlp=256)
    up = perturbed(case.network, case.device, 0).blocks[0].mlp.up.weight

    assert (up @ torch.ones(64)).std().item() == pytest.approx(1.0, rel=0.2)


def test_a_missing_gradient_counts_as_zero_and_a_scale_is_taken_out():
    model = moved_tiny(tiny())
    rows = tokens_of(model.config, 2, 9)
    (4.0 * loss_of(model, (rows[:, :-1], rows[:, 1:]))).backward()
    plain = model.lm_head.weight.grad / 4
    model.norm.weight.grad = None

    gradients = gradients_of(model, 4.0)

    assert torch.equal(gradients["lm_head.weight"], plain.double())
    assert not gradients["norm.weight"].any()


def test_differences_are_relative_to_what_is_wanted():
    assert difference(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 4.0])) == pytest.approx(0.2)
    assert difference(torch.zeros(2), torch.zeros(2)) == 0
    assert difference(torch.ones(2), torch.zeros(2)) > 1e30
    assert difference(torch.tensor([torch.nan]), torch.ones(1)) != 0


def test_tensors_are_joined_in_the_order_of_their_names():
    found = joined({"b": torch.tensor([[2.0], [3.0]]), "a": torch.tensor(1.0)})

    assert found.tolist() == [1.0, 2.0, 3.0]
