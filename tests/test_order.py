"""The shuffled order: each number once, and no order to be seen."""

import numpy as np
import pytest
from scipy.stats import chisquare, kendalltau

from psannlm.train.order import shuffled


def order(length: int, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return shuffled(np.arange(length), length, seed, epoch)


@pytest.mark.parametrize("length", [*range(1, 80), 99, 100, 101, 1023, 1024, 1025, 40_000])
def test_each_number_stands_in_the_order_once(length):
    for epoch in range(3):
        assert np.sort(order(length, epoch=epoch)).tolist() == list(range(length))


def test_a_position_alone_has_what_it_has_among_others():
    whole = order(1000)

    alone = [int(shuffled(np.array([position]), 1000, 0, 0)[0]) for position in range(1000)]

    assert alone == whole.tolist()


def test_an_order_too_long_to_store_can_be_computed():
    length = 10**15
    positions = np.arange(length - 1000, length)

    found = shuffled(positions, length, 0, 0)

    assert len(set(found.tolist())) == 1000
    assert 0 <= found.min() < length / 50
    assert length * 0.98 < found.max() < length


def test_the_order_follows_from_seed_and_epoch_alone():
    assert order(500, seed=3, epoch=4).tolist() == order(500, seed=3, epoch=4).tolist()


@pytest.mark.parametrize("other", [{"epoch": 1}, {"seed": 1}, {"seed": 1, "epoch": 1}])
def test_seeds_and_epochs_have_orders_of_their_own(other):
    first, second = order(10_000), order(10_000, **other)

    # Of two orders that know nothing of each other, one number stands in its place on average.
    assert np.count_nonzero(first == second) < 8
    assert abs(kendalltau(first, second).statistic) < 0.03


def test_numbers_lie_in_no_order():
    found = order(10_000)

    # Standard deviation of a random order: 0.007 for tau, 0.01 for neighbours.
    assert abs(kendalltau(found, np.arange(10_000)).statistic) < 0.03
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.04
    assert abs(np.corrcoef(found[:-100], found[100:])[0, 1]) < 0.04


def test_every_stretch_of_the_order_draws_from_everywhere():
    found = order(100_000)

    counts = np.histogram2d(np.arange(100_000), found, bins=20)[0]

    # Fixed by the seed: a fair shuffle gives a smaller p once in 1000 seeds.
    assert chisquare(counts.ravel()).pvalue > 0.001


@pytest.mark.parametrize("length", [2, 3, 5, 8])
def test_over_many_epochs_each_number_stands_everywhere_equally_often(length):
    orders = np.array([order(length, seed=5, epoch=epoch) for epoch in range(1500)])

    for position in range(length):
        assert chisquare(np.bincount(orders[:, position], minlength=length)).pvalue > 0.0001
