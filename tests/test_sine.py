"""The damped sine is its formula, in value, gradient, precision and memory."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from networks import tiny
from torch import Tensor, nn

from psannlm.config.network import ModelConfig
from psannlm.model.bases import build
from psannlm.model.sine import DampedSine, damped_sine, damped_sine_reference

MODES = ("abs", "relu", "none")
PARTS = ("amplitude", "frequency", "decay")
SUBSETS = [
    subset for size in range(len(PARTS) + 1) for subset in itertools.combinations(PARTS, size)
]
PATHS = {"reference": damped_sine_reference, "fast": damped_sine}

Sine = Callable[..., Tensor]


def subset_id(subset: tuple[str, ...]) -> str:
    return "+".join(subset) or "nothing"


def inputs(
    mode: str, dtype: torch.dtype = torch.float64, shape: tuple[int, ...] = (3, 4, 5)
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """z on both sides of zero, and strong, distinct A, f and d."""
    generator = torch.Generator().manual_seed(3)
    z = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    amplitude, frequency, decay = (
        0.3 + torch.rand(shape[-1], generator=generator, dtype=torch.float64) for _ in range(3)
    )
    z, amplitude, frequency, decay = (
        tensor.to(dtype) for tensor in (z, amplitude, frequency, decay)
    )
    return z, amplitude, frequency, None if mode == "none" else decay


def by_numpy(z: float, amplitude: float, frequency: float, decay: float, mode: str) -> float:
    size = {"abs": abs(z), "relu": max(z, 0.0), "none": 0.0}[mode]
    return amplitude * math.exp(-decay * size) * math.sin(frequency * z)


def by_hand(
    z: Tensor, amplitude: Tensor, frequency: Tensor, decay: Tensor | None, mode: str
) -> Tensor:
    """The formula with other operations than the code's, for autograd."""
    if decay is None:
        return amplitude * torch.sin(frequency * z)
    size = torch.where(z > 0, z, -z if mode == "abs" else torch.zeros_like(z))
    return amplitude * math.e ** (-decay * size) * torch.sin(frequency * z)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("mode", MODES)
def test_values_are_those_of_the_formula(path: Sine, mode: str) -> None:
    z, amplitude, frequency, decay = inputs(mode)

    values = path(z, amplitude, frequency, decay, mode)

    gains = decay if decay is not None else torch.zeros_like(amplitude)
    expected = np.vectorize(by_numpy)(
        z.numpy(), amplitude.numpy(), frequency.numpy(), gains.numpy(), mode
    )
    # float64 rounds to 1e-16, and the phase is at most about 10.
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # float32 rounds to 6e-8; gradients sum up to 12 terms of size 10.
    [(torch.float64, 1e-12), (torch.float32, 3e-5)],
    ids=["float64", "float32"],
)
def test_all_gradients_are_those_of_the_formula(
    path: Sine, mode: str, dtype: torch.dtype, tolerance: float
) -> None:
    given = [tensor for tensor in inputs(mode, dtype) if tensor is not None]
    leaves = [tensor.clone().requires_grad_() for tensor in given]
    exact = [tensor.double().requires_grad_() for tensor in given]
    outer = torch.randn(given[0].shape, dtype=dtype)

    fast = path(*(leaves if len(leaves) == 4 else [*leaves, None]), mode)
    fast.backward(outer)
    hand = by_hand(*(exact if len(exact) == 4 else [*exact, None]), mode)
    hand.backward(outer.double())

    torch.testing.assert_close(fast.double(), hand, atol=tolerance, rtol=0)
    for leaf, right in zip(leaves, exact, strict=True):
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad.double(), right.grad, atol=tolerance, rtol=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wants_z", [True, False], ids=["with_z", "without_z"])
@pytest.mark.parametrize("subset", SUBSETS, ids=subset_id)
def test_the_written_gradient_passes_gradcheck_whatever_is_learned(
    mode: str, wants_z: bool, subset: tuple[str, ...]
) -> None:
    z, amplitude, frequency, decay = inputs(mode, shape=(2, 3))
    z.requires_grad_(wants_z)
    for name, tensor in zip(PARTS, (amplitude, frequency, decay), strict=True):
        if tensor is not None:
            tensor.requires_grad_(name in subset)
    wanted = [t for t in (z, amplitude, frequency, decay) if t is not None and t.requires_grad]

    if wanted:
        assert torch.autograd.gradcheck(
            lambda *arguments: damped_sine(*arguments, mode), (z, amplitude, frequency, decay)
        )
    else:
        assert not damped_sine(z, amplitude, frequency, decay, mode).requires_grad


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("subset", SUBSETS, ids=subset_id)
def test_only_what_is_learnable_receives_gradients(
    mode: str, subset: tuple[str, ...], generator: torch.Generator
) -> None:
    config = tiny(learnable=subset, decay_mode=mode)
    sine = DampedSine(5, config)
    has_decay = {"decay"} if mode != "none" else set()

    sine(torch.randn(4, 5, generator=generator).requires_grad_()).sum().backward()

    raw = dict(sine.named_parameters())
    assert set(raw) == {"raw_amplitude", "raw_frequency"} | {f"raw_{d}" for d in has_decay}
    wanted = {f"raw_{part}" for part in subset} & set(raw)
    assert {name for name, parameter in raw.items() if parameter.requires_grad} == wanted
    assert {name for name, parameter in raw.items() if parameter.grad is not None} == wanted


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_of_its_large_tensors_only_z_is_saved_and_in_its_own_dtype(
    mode: str, dtype: torch.dtype, generator: torch.Generator
) -> None:
    sine = DampedSine(5, tiny(decay_mode=mode))
    z = torch.randn(64, 5, generator=generator).to(dtype).requires_grad_()
    saved: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        sine(z)

    large = [tensor for tensor in saved if tensor.numel() > 5]
    assert [(tensor.shape, tensor.dtype) for tensor in large] == [(z.shape, dtype)]
    assert large[0].data_ptr() == z.data_ptr()


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "kept", [torch.float32, torch.bfloat16], ids=["float32_parameters", "bfloat16_parameters"]
)
def test_a_bfloat16_phase_is_computed_in_float32(path: Sine, mode: str, kept: torch.dtype) -> None:
    frequency = torch.tensor([1.7, 0.9, 2.3], dtype=kept)
    amplitude = torch.ones(3, dtype=kept)
    decay = None if mode == "none" else torch.full((3,), 1e-3, dtype=kept)
    z = torch.linspace(-900, 900, 3 * 501).reshape(-1, 3).bfloat16().requires_grad_()
    exact_z = z.detach().double().requires_grad_()
    exact = by_hand(
        exact_z,
        amplitude.double(),
        frequency.double(),
        None if decay is None else decay.double(),
        mode,
    )

    values = path(z, amplitude, frequency, decay, mode)
    values.sum().backward()
    exact.sum().backward()

    assert values.dtype == torch.bfloat16
    assert z.grad is not None
    assert exact_z.grad is not None
    # The result is rounded to 2^-9 of at most 1; a phase of 2000 in float32 is off by 2e-4. In
    # bfloat16 the phase would be off by up to 4 radians.
    assert (values.double() - exact).abs().max() < 2**-9 + 3e-4
    # The same for a slope of at most 2.3, rounded to 2^-8 at most.
    assert (z.grad.double() - exact_z.grad).abs().max() < 2**-7 + 1e-3


@pytest.mark.parametrize("value", [1e-3, 0.01, 0.5, 1.0, 19.0, 21.0, 50.0])
def test_initial_values_are_those_asked_for(value: float) -> None:
    config = tiny(sine_amplitude=value, sine_frequency=value, sine_decay=value)

    sine = DampedSine(4, config)

    expected = torch.full((4,), value)
    # A float32 holds 7 digits: the bound is 1e-6, relative above 1.
    for actual in (sine.amplitude, sine.frequency, sine.decay):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6 * min(1.0, value * 10))


@pytest.mark.parametrize("raw", [-100.0, -5.0, 0.0, 80.0])
def test_amplitude_frequency_and_decay_cannot_leave_their_range(raw: float) -> None:
    sine = DampedSine(1, tiny())

    with torch.no_grad():
        for parameter in sine.parameters():
            parameter.fill_(raw)

    assert sine.decay is not None
    assert sine.amplitude.item() >= 0
    assert sine.decay.item() >= 0
    assert sine.frequency.item() >= 1e-6 * (1 - 1e-6)  # the floor, as float32 writes it
    assert math.isfinite(sine(torch.ones(1)).item())


def test_the_module_applies_its_own_amplitude_frequency_and_decay() -> None:
    sine = DampedSine(3, tiny(sine_amplitude=1.5, sine_frequency=0.7, sine_decay=0.3))

    value = sine(torch.tensor([[-2.0, 0.5, 4.0]]))[0].tolist()

    expected = [by_numpy(z, 1.5, 0.7, 0.3, "abs") for z in (-2.0, 0.5, 4.0)]
    assert value == pytest.approx(expected, abs=1e-6)  # float32


def frequencies(seed: int, **overrides: object) -> Tensor:
    config: ModelConfig = tiny(d_mlp=400, n_layers=1, **overrides)
    sine: nn.Module = build(config, seed=seed).blocks[0].mlp.nonlinearity  # type: ignore[union-attr,assignment]
    assert isinstance(sine, DampedSine)
    return sine.frequency.detach()


def test_a_spread_of_initial_frequencies_is_drawn_from_the_seed_alone() -> None:
    drawn, again, other = (
        frequencies(seed, sine_frequency=3.0, freq_init_std=0.5) for seed in (0, 0, 1)
    )

    # Five standard errors of 400 draws: of the mean 1 / sqrt(400), of the spread 1 / sqrt(800).
    assert drawn.mean().item() == pytest.approx(3.0, abs=0.5 * 5 / 20)
    assert drawn.std().item() == pytest.approx(0.5, rel=5 / math.sqrt(800))
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, other)
    wide = frequencies(0, sine_frequency=0.5, freq_init_std=5.0)
    assert wide.min().item() >= 1e-3  # where draws are cut off
    assert wide.isfinite().all()
    equal = frequencies(0, freq_init_std=0.0)
    assert equal.max() - equal.min() < 1e-6  # vectorised and scalar softplus differ in a last bit
