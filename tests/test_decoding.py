"""Unbroken networks generate what their full pass says; broken ones are among the twins."""

import pytest
import torch

from psannlm.checks.decoding import check, prompt_lengths, shaken
from tests.checked import BASES, case_of, failed


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("positions", ["rope", "alibi", "sinusoidal"])
def test_unbroken_networks_pass(base, positions) -> None:
    result = check(case_of(base, positions=positions, fit_steps=600))

    assert not failed(result)
    assert len(result.measures) == 6


def test_prompts_end_around_every_window() -> None:
    network = case_of("sgrpsann", context_length=64, gate_n_fft=16, wave_kernel=4).network

    # The gate reaches 8 tokens back, the wave 3 and, in the second layer, 6.
    assert prompt_lengths(network) == [1, 2, 5, 6, 7, 8, 9, 32, 60]


def test_prompts_fit_into_a_short_context() -> None:
    assert prompt_lengths(case_of("respsann", context_length=6).network) == [1, 2]
    assert prompt_lengths(case_of("respsann", context_length=2).network) == [1]


@pytest.mark.parametrize("base", BASES)
def test_no_parameter_of_a_shaken_network_is_neutral(base) -> None:
    case = case_of(base)

    model = shaken(case.network, 0, torch.device("cpu"))
    logits = model(torch.arange(32)[None])

    for name, parameter in model.named_parameters():
        alike = (parameter == parameter.flatten()[0]).all()
        assert parameter.numel() == 1 or not alike, name
        assert parameter.numel() > 1 or float(parameter.detach()) not in (0.0, 1.0), name
    assert 0.3 < float(logits.detach().std()) < 10
