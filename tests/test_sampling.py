"""Sampling leaves out what it should and draws the rest by its chances."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from psannlm.config.parse import parse
from psannlm.config.schema import ConfigError
from psannlm.model.sampling import Sampling, draw, penalised, pick, probabilities

# Chances 0.5, 0.3, 0.15 and 0.05, out of order.
KNOWN = torch.tensor([[0.15, 0.5, 0.05, 0.3]], dtype=torch.float64)


def random_logits(generator: torch.Generator, rows: int = 4, tokens: int = 50) -> Tensor:
    return 3 * torch.randn(rows, tokens, generator=generator)


def test_probabilities_are_the_softmax_of_the_logits_over_the_temperature(
    generator: torch.Generator,
) -> None:
    logits = random_logits(generator)

    for temperature in (0.3, 1.0, 4.0):
        found = probabilities(logits, Sampling(temperature=temperature))

        torch.testing.assert_close(found, (logits.double() / temperature).softmax(-1))


@pytest.mark.parametrize("temperature", [0.0, 1e-310, 1e-30, 1e-6])
def test_the_colder_the_more_certain_is_the_most_likely_token(
    generator: torch.Generator, temperature: float
) -> None:
    logits = random_logits(generator)

    found = probabilities(logits, Sampling(temperature=temperature))

    assert torch.equal(found.argmax(-1), logits.argmax(-1))
    assert torch.equal(found.amax(-1), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("top_k", [1, 2, 7, 49, 50, 51])
def test_top_k_keeps_the_k_most_likely_tokens_and_their_ratios(
    generator: torch.Generator, top_k: int
) -> None:
    logits = random_logits(generator)

    found = probabilities(logits, Sampling(temperature=1.0, top_k=top_k))

    for row, kept in zip(logits, found, strict=True):
        support = set(kept.nonzero().flatten().tolist())
        assert support == set(row.argsort(descending=True)[:top_k].tolist())
        inside = torch.tensor(sorted(support))
        torch.testing.assert_close(kept[inside], row[inside].double().softmax(-1))


@pytest.mark.parametrize(
    ("top_p", "support"),
    [
        (1e-9, {1}),
        (0.5, {1}),
        (0.5001, {1, 3}),
        (0.79, {1, 3}),
        (0.81, {0, 1, 3}),
        (0.951, {0, 1, 2, 3}),
        (1.0, {0, 1, 2, 3}),
    ],
)
def test_top_p_leaves_the_fewest_tokens_of_that_probability(
    top_p: float, support: set[int]
) -> None:
    found = probabilities(KNOWN.log(), Sampling(temperature=1.0, top_p=top_p))

    assert set(found[0].nonzero().flatten().tolist()) == support
    ids = sorted(support)
    torch.testing.assert_close(found[0, ids], KNOWN[0, ids] / KNOWN[0, ids].sum())


def test_top_p_counts_what_top_k_has_left_after_the_temperature() -> None:
    # At temperature 1/2 chances are squared: of the two kept, 0.25 and 0.09, the first has 0.735.
    logits = KNOWN.log()

    narrow = probabilities(logits, Sampling(temperature=0.5, top_k=2, top_p=0.73))
    wide = probabilities(logits, Sampling(temperature=0.5, top_k=2, top_p=0.74))

    assert narrow[0].tolist() == [0.0, 1.0, 0.0, 0.0]
    torch.testing.assert_close(wide, torch.tensor([[0, 0.25, 0, 0.09]]).double() / 0.34)


def test_a_number_draws_the_token_in_whose_part_of_the_line_it_falls() -> None:
    last = math.nextafter(1.0, 0.0)
    numbers = [0.0, 0.149, 0.15, 0.649, 0.651, 0.699, 0.701, last]

    drawn = draw(KNOWN.expand(len(numbers), -1), torch.tensor(numbers, dtype=torch.float64))

    assert drawn.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("total", [0.1, 1 / 3, 0.999, 1.0, 3.0])
def test_a_token_without_a_chance_is_never_drawn(total: float) -> None:
    row = torch.tensor([[0.0, total / 2, 0.0, total / 2, 0.0]], dtype=torch.float64)
    numbers = torch.tensor([0.0, 0.5, math.nextafter(1.0, 0.0)], dtype=torch.float64)

    assert draw(row.expand(3, -1), numbers).tolist() == [1, 3, 3]


def test_the_penalty_is_that_of_a_loop_over_the_tokens_seen(generator: torch.Generator) -> None:
    logits = random_logits(generator, rows=3, tokens=20)
    tokens = torch.randint(20, (3, 8), generator=generator)
    seen = torch.zeros(3, 20, dtype=torch.bool).scatter(1, tokens, True)
    expected = logits.clone()
    for row in range(3):
        for token in set(tokens[row].tolist()):
            value = logits[row, token].item()
            expected[row, token] = value / 1.3 if value > 0 else value * 1.3

    found = penalised(logits, seen, 1.3)

    torch.testing.assert_close(found, expected)
    assert (found[seen] < logits[seen]).all()
    assert torch.equal(found[~seen], logits[~seen])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_penalty_is_paid_before_a_token_is_picked(temperature: float) -> None:
    logits = torch.tensor([[2.0, 1.9, -50.0]])
    seen = torch.tensor([[True, False, False]])
    uniform = torch.tensor([0.0], dtype=torch.float64)
    sampling = Sampling(temperature=temperature, top_k=1, repetition_penalty=1.5)

    assert pick(logits, sampling, seen, uniform).item() == 1
    assert pick(logits, sampling, ~seen, uniform).item() == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.5}, r"temperature must be at least 0, got -0\.5"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, r"top_p must be more than 0 and at most 1, got 0\.0"),
        ({"top_p": 1.5}, r"top_p must be more than 0 and at most 1, got 1\.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be more than 0, got 0"),
    ],
    ids=str,
)
def test_impossible_sampling_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"command line:\n  {message}"):
        parse(Sampling, values, source="command line")
