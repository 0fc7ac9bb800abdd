"""Batches: each window once an epoch in a random order, shared evenly, targets one token on."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kendalltau

from psannlm.config.schema import ConfigError
from psannlm.train.data import Tokens
from psannlm.train.plan import Batches, shuffled

T = 4


def numbered(n_tokens: int) -> Tokens:
    """Tokens whose ids are their places."""
    return Tokens(np.arange(n_tokens, dtype=np.uint16), n_bytes=1, sha256="")


def made(n_windows: int = 50, batch_sequences: int = 12, seed: int = 0, spare: int = 0) -> Batches:
    return Batches(numbered(n_windows * T + 1 + spare), T, batch_sequences, seed)


def firsts(batches: Batches, steps: range) -> list[int]:
    """The window of each row."""
    return [row // T for step in steps for row in batches.batch(step)[0][:, 0].tolist()]


def order(length: int, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return shuffled(np.arange(length), length, seed, epoch)


@pytest.mark.parametrize("spare", [0, 1, T - 1])
def test_an_epoch_predicts_every_token_of_every_window_once(spare):
    batches = made(n_windows=60, spare=spare)

    inputs, targets = (torch.cat(t) for t in zip(*map(batches.batch, range(5)), strict=True))

    assert inputs.shape == targets.shape == (60, T)
    assert inputs.dtype == targets.dtype == torch.int64
    assert (inputs == inputs[:, :1] + torch.arange(T)).all()
    assert (targets == inputs + 1).all()
    assert sorted(targets.flatten().tolist()) == list(range(1, 60 * T + 1))


@pytest.mark.parametrize(("n_windows", "batch_sequences"), [(50, 12), (50, 7), (5, 12), (1, 3)])
def test_each_epoch_takes_every_window_once_wherever_batches_end(n_windows, batch_sequences):
    taken = firsts(made(n_windows, batch_sequences), range(3 * n_windows))

    for epoch in range(3 * batch_sequences):
        within = taken[epoch * n_windows : (epoch + 1) * n_windows]
        assert sorted(within) == list(range(n_windows))


@pytest.mark.parametrize(("world", "n_micro"), [(1, 1), (1, 3), (4, 1), (2, 3), (3, 4), (12, 1)])
@pytest.mark.parametrize("step", [0, 4, 1000])
def test_however_a_step_is_shared_its_rows_are_the_same(world, n_micro, step):
    batches = made(batch_sequences=12)
    inputs, targets = batches.batch(step)

    shares = [
        batches.batch(step, micro, n_micro, rank, world)
        for micro, rank in itertools.product(range(n_micro), range(world))
    ]

    assert {share[0].shape for share in shares} == {(12 // world // n_micro, T)}
    assert torch.equal(torch.cat([share[0] for share in shares]), inputs)
    assert torch.equal(torch.cat([share[1] for share in shares]), targets)


@pytest.mark.parametrize(
    ("epochs", "n_windows", "steps"),
    [(1, 60, 5), (1, 61, 6), (2, 50, 9), (0.5, 50, 3), (1e-9, 50, 1), (1.1, 120, 11)],
)
def test_steps_are_the_fewest_that_take_all_windows_so_often(epochs, n_windows, steps):
    assert made(n_windows).steps(epochs) == steps  # 1.1 times 10 is no 11.000000000000002


def test_what_is_too_short_is_refused_with_the_way_out():
    Batches(numbered(T + 1), T, 1, 0)

    with pytest.raises(ConfigError, match=r"context_length \+ 1 = 5 tokens, got 4 with.*shorten"):
        Batches(numbered(T), T, 1, 0)


def test_each_number_stands_in_the_order_once():
    for length in (*range(1, 80), 99, 100, 101, 1023, 1024, 1025, 40_000):
        for epoch in range(3):
            assert np.sort(order(length, epoch=epoch)).tolist() == list(range(length))


@pytest.mark.parametrize("other", [{"epoch": 1}, {"seed": 1}, {"seed": 1, "epoch": 1}])
def test_seeds_and_epochs_have_orders_of_their_own(other):
    first, second = order(10_000), order(10_000, **other)

    # Of two orders that know nothing of each other, one number stands in its place on average.
    assert np.count_nonzero(first == second) < 8
    assert abs(kendalltau(first, second).statistic) < 0.03


def test_numbers_lie_in_no_order_and_every_stretch_draws_from_everywhere():
    found = order(10_000)
    counts = np.histogram2d(np.arange(100_000), order(100_000), bins=20)[0]

    # Standard deviation of a random order: 0.007 for tau, 0.01 for neighbours.
    assert abs(kendalltau(found, np.arange(10_000)).statistic) < 0.03
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.04
    assert abs(np.corrcoef(found[:-100], found[100:])[0, 1]) < 0.04
    # Fixed by the seed: a fair shuffle gives a smaller p once in 1000 seeds.
    assert chisquare(counts.ravel()).pvalue > 0.001
