"""Samples that leave their support or their distribution are found out."""

import pytest
import torch
from scipy.stats import kstest

from psannlm.checks.supports import FALSE_ALARM, chance_of, distribution
from psannlm.model.sampling import Sampling, probabilities

LOGITS = torch.tensor([0.1, 2.0, -1.0, 2.0, 0.7, -3.0], dtype=torch.float64)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.6, top_k=3),
        Sampling(temperature=1.7, top_p=0.8),
        Sampling(temperature=1.0, top_k=5, top_p=0.5),
        Sampling(temperature=1.0),
    ],
)
def test_the_distribution_found_by_walking_is_that_of_the_sampler(sampling: Sampling) -> None:
    torch.testing.assert_close(
        distribution(LOGITS, sampling), probabilities(LOGITS[None], sampling)[0]
    )


def test_of_equally_likely_tokens_the_first_ones_are_kept() -> None:
    assert distribution(LOGITS, Sampling(temperature=1.0, top_k=1)).tolist() == [0, 1, 0, 0, 0, 0]


def test_right_frequencies_have_chances_of_every_size(generator) -> None:
    exact = LOGITS.softmax(-1)

    found = [
        chance_of(torch.bincount(drawn, minlength=6), exact)
        for drawn in torch.multinomial(exact.expand(300, -1), 500, True, generator=generator)
    ]

    assert kstest(found, "uniform").pvalue > 1e-3


def test_wrong_frequencies_have_hardly_a_chance() -> None:
    exact = LOGITS.softmax(-1)
    cooler = (LOGITS / 0.8).softmax(-1)

    assert chance_of((2000 * exact).round().long(), exact) > 0.99
    assert chance_of((2000 * cooler).round().long(), exact) < FALSE_ALARM


def test_rare_tokens_are_counted_as_one() -> None:
    exact = torch.tensor([0.97, *[0.01] * 3], dtype=torch.float64)

    right = chance_of(torch.tensor([97, 3, 0, 0]), exact)

    assert right == pytest.approx(1.0)
    assert chance_of(torch.tensor([80, 20, 0, 0]), exact) < FALSE_ALARM
    assert chance_of(torch.tensor([10]), torch.ones(1, dtype=torch.float64)) == 1.0
