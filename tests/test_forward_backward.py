"""GPU-01: networks as built, beside their formulas, without leaks, and what a short fit shows."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from psannlm.checks import forward_backward as gpu_01
from psannlm.checks.networks import batches_of, leak, perturbed
from psannlm.model.bases import build
from psannlm.model.sine import DampedSine
from psannlm.model.transformer import Transformer
from tests import twins_network
from tests.checked import BASES, case_of, failed
from tests.networks import batch_of, moved, tiny, tokens_of
from tests.twins_network import Patch, attend_to_all

SMALL = {"d_model": 8, "d_mlp": 12}
TINY_FIT = {"context_length": 16, "batch": 1}


@pytest.mark.slow
def test_a_network_that_hardly_learns_fails() -> None:
    result = gpu_01.check(case_of("respsann", fit_steps=30, learning_rate=1e-6))

    assert [m.split(",")[0] for m in failed(result)] == ["loss after 30 steps"]


def test_a_base_without_formulas_is_held_to_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_01, "CHANGES", {})

    result = gpu_01.check(case_of("respsann", fit_steps=1, **TINY_FIT))

    reason = "respsann has none in checks/reference.py to be held to"
    assert result.facts["formulas"] == reason
    assert [m.split(",")[0] for m in failed(result)] == ["loss after 1 steps"]
    assert not any("against the formulas" in m.name for m in result.measures)
    assert any("before a changed token" in m.name for m in result.measures)


def test_a_fit_tells_every_loss_and_leaves_the_network_fitted() -> None:
    case = case_of("transformer", fit_steps=4, **TINY_FIT)
    batch = torch.zeros(1, 8, dtype=torch.int64), torch.tensor([[3, 3, 3, 5, 5, 7, 7, 3]])
    model = build(case.network, seed=0)
    before = [p.clone() for p in model.parameters()]

    (first, last), losses = gpu_01.fit_measures(case, model, batch)

    assert len(losses) == 5
    assert last.value == losses[-1] < losses[0]
    assert last.bound == pytest.approx(1.5 * math.log(2))  # the entropy of 4, 2 and 2 of 8 bytes
    assert first.value == pytest.approx(abs(losses[0] - math.log(257)))
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    with torch.no_grad():
        model.lm_head.weight *= 100
    far_from_a_blind_guess = gpu_01.fit_measures(case, model, batch)[0][0]
    assert (first.passed, far_from_a_blind_guess.passed) == (True, False)


@pytest.mark.parametrize(("factor", "count"), [(1.0, 0), (0.0, 1), (math.nan, 1), (math.inf, 1)])
def test_gradients_that_are_zero_or_no_number_are_counted(factor: float, count: int) -> None:
    model = moved(tiny())
    model.blocks[1].alpha.register_hook(lambda gradient: gradient * factor)

    assert gpu_01.gradient_measure(model, batch_of(model.config, 2, 8)).value == count


@pytest.mark.parametrize("positions", ["rope", "alibi", "sinusoidal"])
@pytest.mark.parametrize("base", ["sgrpsann", "waveresnet", "transformer"])
def test_a_copying_network_repeats_its_input(base: str, positions: str) -> None:
    config = tiny(base=base, positions=positions)
    model, rows = gpu_01.copying(moved(config)), tokens_of(config, 2, 20)

    assert model(rows).softmax(-1).gather(-1, rows[..., None]).min() > 0.99


def test_labels_that_are_not_shifted_fail_both_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = batches_of(case_of("respsann").config, 2, length=16, rows=2)
    model, (tokens, targets) = moved(tiny(vocab_size=257)), batches.batch(0)

    by_torch = cross_entropy(model(tokens).flatten(0, 1), targets.flatten()).item()
    assert gpu_01.loss_by_hand(model, batches) == pytest.approx(by_torch, rel=1e-5)
    assert all(m.passed for m in gpu_01.label_measures(model, batches))
    twins_network.labels_of_batches_unshifted(monkeypatch)
    measures = gpu_01.label_measures(moved(tiny(vocab_size=257)), batches)
    assert [m.passed for m in measures] == [False, False]


def built(base: str = "respsann", **changes: object) -> Transformer:
    return build(case_of(base, **SMALL | changes).network, seed=0)


@pytest.mark.parametrize("base", BASES)
def test_every_base_is_built_as_configured(base: str):
    assert all(m.passed for m in gpu_01.structure_measures(built(base)))


def test_parameters_shared_between_layers_are_seen(monkeypatch: pytest.MonkeyPatch):
    twins_network.sines_of_layers_tied(monkeypatch)

    assert [m.name for m in gpu_01.structure_measures(built()) if not m.passed] == [
        "parameters that share their memory with another",
        "parameters more or fewer than its construction has",
    ]


@pytest.mark.parametrize("learnable", [(), ("decay",), ("amplitude", "frequency", "decay")])
def test_only_what_is_learnable_is_learned(learnable: tuple[str, ...]):
    model = built("waveresnet", learnable=learnable)

    assert all(m.passed for m in gpu_01.structure_measures(model))
    model.blocks[1].wave.sine.raw_decay.requires_grad_("decay" not in learnable)
    [broken] = [m for m in gpu_01.structure_measures(model) if not m.passed]
    assert (broken.name, broken.value) == ("parameters learned or kept other than configured", 1)


@torch.no_grad()
@pytest.mark.parametrize("value", [0.01, 0.5, 3.0, 40.0])
def test_initial_values_are_the_configured_ones_to_a_thousandth(value: float):
    model = built(sine_amplitude=value, sine_frequency=value, sine_decay=value)
    sine = model.blocks[0].mlp.nonlinearity

    assert gpu_01.sine_measures(model.config, [sine])[0].passed
    for parameter in sine.parameters():
        parameter += 1e-3
        assert not gpu_01.sine_measures(model.config, [sine])[0].passed
        parameter -= 1e-3


def test_drawn_frequencies_have_the_mean_of_their_distribution():
    network = case_of("respsann", freq_init_std=0.7).network
    sine = DampedSine(2000, network)
    sine.initialise(torch.Generator().manual_seed(1))

    assert gpu_01.sine_measures(network, [sine])[1].passed
    with torch.no_grad():
        sine.raw_frequency.add_(0.3)
    assert not gpu_01.sine_measures(network, [sine])[1].passed


@pytest.mark.parametrize("mode", ["abs", "relu", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_phase_is_float32_whatever_comes_in(monkeypatch, mode: str, dtype: torch.dtype):
    sine = DampedSine(5, case_of("respsann", decay_mode=mode, sine_frequency=1.7).network)

    assert gpu_01.phase_measure(sine, dtype).passed
    twins_network.phase_in_half(monkeypatch)
    assert gpu_01.phase_measure(sine, dtype).passed == (dtype == torch.float32)


def test_a_base_that_computes_what_another_does_is_seen_unless_configured_so():
    case = case_of("respsann", **SMALL, wave="none")
    own, tokens = perturbed(case.network, case.device, 0), torch.arange(8)[None]

    measure, facts = gpu_01.distinct_measure(case, own, tokens, 1e-6)

    assert facts["the same by configuration"] == "waveresnet: wave is none, difference 0.0e+00"
    assert measure.passed
    assert "sgrpsann" in measure.name
    other, _ = gpu_01.distinct_measure(case_of("sgrpsann", **SMALL), own, tokens, 1e-6)
    assert not other.passed
    assert "respsann" in other.name


TOKENS = tokens_of(tiny(), 1, 12)


def to_the_last_token_but_one(patch: Patch) -> None:
    forward = Transformer.forward

    def peeping(self: Transformer, tokens: torch.Tensor) -> torch.Tensor:
        logits = forward(self, tokens).clone()
        logits[:, -2, 0] += 1e-3 * tokens[:, -1]
        return logits

    patch.setattr(Transformer, "forward", peeping)


@pytest.mark.parametrize(
    ("damage", "size"),
    [
        (lambda patch: attend_to_all(patch, lambda attention: attention.training), 1e-3),
        (lambda patch: attend_to_all(patch, lambda attention: not attention.training), 1e-3),
        (to_the_last_token_but_one, 1e-5),
    ],
    ids=["in training", "in evaluation", "to the last token but one"],
)
def test_a_leak_is_seen_in_either_mode_and_anywhere(monkeypatch, damage, size) -> None:
    model = moved(tiny())
    assert leak(model, TOKENS) == leak(model, TOKENS[:, :1]) == 0

    damage(monkeypatch)

    assert leak(model, TOKENS) > size
    assert not model.training


def test_logits_that_are_no_number_are_a_leak() -> None:
    model = moved(tiny())
    with torch.no_grad():
        model.norm.weight.fill_(torch.inf)

    assert not leak(model, TOKENS) <= 1e-6


@pytest.mark.parametrize(
    ("base", "damage", "passed"),
    [
        ("sgrpsann", lambda patch: None, [True, True]),
        ("respsann", twins_network.residual_scale_dropped, [False, False]),
        ("transformer", twins_network.mask_missing, [False, False]),
    ],
)
def test_logits_and_gradients_are_held_to_the_formulas(monkeypatch, base, damage, passed) -> None:
    damage(monkeypatch)
    model = moved(tiny(base=base))

    measures, rounding = gpu_01.formula_measures(model, batch_of(model.config, 2, 12))

    assert [m.passed for m in measures] == passed
    assert 0 < rounding < 1e-5
