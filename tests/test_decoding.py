"""Prompts, samples and texts by heart of GPU-07; broken generation is among the twins."""

import math

import pytest
import torch
from scipy.stats import kstest

from psannlm import ROOT
from psannlm.checks import decoding
from psannlm.checks.decoding import FALSE_ALARM, distribution, memorise, p_value
from psannlm.corpora.corpus import load
from psannlm.model.sampling import Sampling, probabilities
from tests.checked import case_of

LOGITS = torch.tensor([0.1, 2.0, -1.0, 2.0, 0.7, -3.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("base", "context_length", "lengths"),
    [
        # The gate reaches 8 tokens back, the wave 3 and, in the second layer, 6.
        ("sgrpsann", 64, [1, 2, 5, 6, 7, 8, 9, 32, 60]),
        ("respsann", 6, [1, 2]),
        ("respsann", 2, [1]),
    ],
)
def test_prompts_end_around_every_window(base: str, context_length: int, lengths: list[int]):
    case = case_of(base, context_length=context_length, gate_n_fft=16, wave_kernel=4)

    assert decoding.prompt_lengths(case.network) == lengths


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.6, top_k=3),
        Sampling(temperature=1.7, top_p=0.8),
        Sampling(temperature=1.0, top_k=5, top_p=0.5),
        Sampling(temperature=1.0, top_k=1),  # of two equally likely tokens, the first
        Sampling(temperature=1.0),
    ],
)
def test_the_distribution_found_by_walking_is_that_of_the_sampler(sampling: Sampling) -> None:
    [right] = probabilities(LOGITS[None], sampling)

    torch.testing.assert_close(distribution(LOGITS, sampling), right)


def test_p_values_of_right_frequencies_are_uniform(generator) -> None:
    exact = LOGITS.softmax(-1)

    found = [
        p_value(torch.bincount(drawn, minlength=6), exact)
        for drawn in torch.multinomial(exact.expand(300, -1), 500, True, generator=generator)
    ]

    assert kstest(found, "uniform").pvalue > 1e-3


def test_wrong_frequencies_have_a_tiny_p_value() -> None:
    exact = LOGITS.softmax(-1)
    cooler = (LOGITS / 0.8).softmax(-1)
    rare = torch.tensor([0.97, *[0.01] * 3], dtype=torch.float64)  # counted as one

    assert p_value((2000 * exact).round().long(), exact) > 0.99
    assert p_value((2000 * cooler).round().long(), exact) < FALSE_ALARM
    assert p_value(torch.tensor([97, 3, 0, 0]), rare) == pytest.approx(1.0)
    assert p_value(torch.tensor([80, 20, 0, 0]), rare) < FALSE_ALARM
    assert p_value(torch.tensor([10]), torch.ones(1, dtype=torch.float64)) == 1.0


@pytest.mark.slow
def test_a_network_that_learned_a_text_writes_it() -> None:
    case = case_of("respsann", fit_steps=400)
    text = next(load(ROOT / case.config.corpus).texts("train"))

    (loss, share), facts = memorise(case)

    assert loss.passed
    assert loss.value < math.log(2) / 2
    assert share.value == 1
    assert facts["text"] == text[: case.config.context_length]
    assert facts["text"][decoding.N_GIVEN :] == facts["written"]
    assert 10 < facts["fit_steps_taken"] < 400


def test_too_few_steps_are_no_learning() -> None:
    (loss, share), facts = memorise(case_of("transformer", fit_steps=3))

    assert facts["fit_steps_taken"] == 3
    assert (loss.passed, share.passed) == (False, False)
    assert loss.value > 3
    assert share.value < 0.5
