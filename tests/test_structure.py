"""Networks as they are before their first step."""

import math

import pytest
import torch

from psannlm.checks import structure
from psannlm.checks.networks import perturbed
from psannlm.model.bases import build
from psannlm.model.sine import DampedSine
from psannlm.model.transformer import Transformer
from tests.checked import BASES, case_of
from tests.twins_network import phase_in_half, sines_of_layers_tied

SMALL = {"d_model": 8, "d_mlp": 12}
CPU = torch.device("cpu")


def built(base: str = "respsann", **changes: object) -> Transformer:
    return build(case_of(base, **SMALL | changes).network, seed=0)


def verdicts(base: str, model: Transformer) -> dict[str, bool]:
    measures = structure.structure_measures(case_of(base, **SMALL), model)
    return {m.name: m.passed for m in measures}


@pytest.mark.parametrize("base", BASES)
def test_every_base_is_built_as_configured(base: str):
    assert all(verdicts(base, built(base)).values())


def test_parameters_shared_between_layers_are_seen(monkeypatch: pytest.MonkeyPatch):
    sines_of_layers_tied(monkeypatch)

    found = verdicts("respsann", built())

    assert not found["parameters that share their memory with another"]
    assert not found["parameters more or fewer than its construction has"]


@pytest.mark.parametrize("learnable", [(), ("decay",), ("amplitude", "frequency", "decay")])
def test_only_what_is_learnable_is_learned(learnable: tuple[str, ...]):
    model = built("waveresnet", learnable=learnable)

    assert structure.wrongly_learned(model) == []

    model.blocks[1].wave.sine.raw_decay.requires_grad_("decay" not in learnable)

    assert structure.wrongly_learned(model) == ["blocks.1.wave.sine.raw_decay"]


@pytest.mark.parametrize("value", [0.01, 0.5, 3.0, 40.0])
def test_initial_values_are_the_configured_ones_to_a_thousandth(value: float):
    model = built(sine_amplitude=value, sine_frequency=value, sine_decay=value)
    sine = model.blocks[0].mlp.nonlinearity

    assert structure.sine_measures(model.config, [sine], CPU)[0].passed
    for parameter in sine.parameters():
        with torch.no_grad():
            parameter += 1e-3
        assert not structure.sine_measures(model.config, [sine], CPU)[0].passed
        with torch.no_grad():
            parameter -= 1e-3


def test_drawn_frequencies_have_the_mean_of_their_distribution():
    network = case_of("respsann", freq_init_std=0.7).network
    sine = DampedSine(2000, network)
    sine.initialise(torch.Generator().manual_seed(1))
    measure = structure.sine_measures(network, [sine], CPU)[1]
    draws = (1 + 0.7 * torch.randn(100_000, dtype=torch.float64)).abs()

    assert measure.passed
    folded = 0.7 * math.sqrt(2 / math.pi) * math.exp(-1 / 0.98) + math.erf(1 / 0.7 / math.sqrt(2))
    assert draws.mean().item() == pytest.approx(folded, abs=0.01)

    with torch.no_grad():
        sine.raw_frequency.add_(0.3)

    assert not structure.sine_measures(network, [sine], CPU)[1].passed


@pytest.mark.parametrize("mode", ["abs", "relu", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_phase_is_float32_whatever_comes_in(
    mode: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    sine = DampedSine(5, case_of("respsann", decay_mode=mode, sine_frequency=1.7).network)

    assert structure.phase_measure(sine, dtype, CPU).passed
    phase_in_half(monkeypatch)
    assert structure.phase_measure(sine, dtype, CPU).passed == (dtype == torch.float32)


def test_a_base_that_computes_what_another_does_is_seen_unless_configured_so():
    case = case_of("respsann", **SMALL, wave="none")
    own, tokens = perturbed(case.network, CPU, 0), torch.arange(8)[None]

    [measure], facts = structure.distinct_measures(case, own, tokens, 1e-6)

    assert facts["the same by configuration"] == "waveresnet: wave is none, difference 0.0e+00"
    assert measure.passed
    assert "sgrpsann" in measure.name
    others, _ = structure.distinct_measures(case_of("sgrpsann", **SMALL), own, tokens, 1e-6)
    assert not others[0].passed
    assert "respsann" in others[0].name
