"""The comparison of generation with and without its memory counts what it should."""

import itertools

import pytest
import torch
from networks import moved, tiny

from psannlm.bench import generation
from psannlm.bench.generation import Comparison, compare, generate_naively
from psannlm.config.schema import ConfigError
from psannlm.model.bases import BASES
from psannlm.model.generate import generate


def test_speed_is_that_of_the_median_round_and_the_ratio_that_of_the_median_pair() -> None:
    found = Comparison(n_tokens=10, cached=(1.0, 2.0, 4.0), naive=(12.0, 20.0, 44.0))

    assert found.tokens_per_second == 5.0
    assert found.ratio == 11.0


@pytest.mark.parametrize("base", BASES)
def test_both_ways_write_the_same_tokens(float64: None, base: str) -> None:
    model, prompt = moved(tiny(base=base)), torch.tensor([1, 4, 2])

    naive = generate_naively(model, prompt, 9)

    assert torch.equal(naive, generate(model, [prompt], n_tokens=9)[0])


def test_each_round_is_timed_but_the_first() -> None:
    # A clock that stands at 0, 1, 4, 9, ...: differences tell which readings were paired.
    readings = (float(i * i) for i in itertools.count())

    found = compare(tiny(), n_tokens=2, prompt_tokens=3, n_rounds=2, clock=lambda: next(readings))

    assert found.cached == (7.0, 13.0)
    assert found.naive == (9.0, 15.0)


def test_more_than_the_context_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"context_length, got 10 \+ 20 and 24"):
        compare(tiny(), n_tokens=20, prompt_tokens=10, n_rounds=1)


def test_the_command_tells_speed_and_ratio_of_every_base(
    capsys: pytest.CaptureFixture[str],
) -> None:
    generation.main(
        n_tokens=2, prompt_tokens=2, n_rounds=1, threads=1, d_model=8, n_layers=1, vocab_size=5
    )

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(BASES)
    assert all("tokens/s" in line and "times as fast as without" in line for line in lines)
