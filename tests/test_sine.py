"""The damped sine is its formula, in value, gradient, precision and memory."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from networks import tiny
from saved_bytes import tensors_saved_by
from torch import Tensor

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


def by_hand(
    z: Tensor, amplitude: Tensor, frequency: Tensor, decay: Tensor | None, mode: str
) -> Tensor:
    """The formula with other operations than the code's, for autograd."""
    size = {"abs": torch.where(z > 0, z, -z), "relu": torch.where(z > 0, z, 0 * z), "none": 0 * z}
    damping = 1 if decay is None else math.e ** (-decay * size[mode])
    return amplitude * damping * torch.sin(frequency * z)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # float32 rounds to 6e-8; gradients sum up to 12 terms of size 10.
    [(torch.float64, 1e-12), (torch.float32, 3e-5)],
    ids=["float64", "float32"],
)
def test_values_and_gradients_are_those_of_the_formula(
    path: Sine, mode: str, dtype: torch.dtype, tolerance: float
) -> None:
    given = inputs(mode, dtype)
    leaves = [None if t is None else t.clone().requires_grad_() for t in given]
    exact = [None if t is None else t.double().requires_grad_() for t in given]
    outer = torch.randn(given[0].shape, dtype=dtype)

    found, expected = path(*leaves, mode), by_hand(*exact, mode)
    found.backward(outer)
    expected.backward(outer.double())

    torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=0)
    for leaf, right in zip(leaves, exact, strict=True):
        if leaf is not None:
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

    [large] = [tensor for tensor in tensors_saved_by(lambda: sine(z)) if tensor.numel() > 5]

    assert (large.data_ptr(), large.shape, large.dtype) == (z.data_ptr(), z.shape, dtype)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "stored", [torch.float32, torch.bfloat16], ids=["float32_parameters", "bfloat16_parameters"]
)
def test_a_bfloat16_phase_is_computed_in_float32(
    path: Sine, mode: str, stored: torch.dtype
) -> None:
    gains = [torch.ones(3), torch.tensor([1.7, 0.9, 2.3]), torch.full((3,), 1e-3)]
    given = [t.to(stored) for t in (gains[:2] if mode == "none" else gains)]
    others = [None] * (3 - len(given))
    z = torch.linspace(-900, 900, 3 * 501).reshape(-1, 3).bfloat16().requires_grad_()
    exact_z = z.detach().double().requires_grad_()
    exact = by_hand(exact_z, *(t.double() for t in given), *others, mode)

    values = path(z, *given, *others, mode)
    values.sum().backward()
    exact.sum().backward()

    assert values.dtype == torch.bfloat16
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


def test_initial_frequencies_have_the_spread_asked_for(generator: torch.Generator) -> None:
    def drawn(**options: float) -> Tensor:
        sine = DampedSine(400, tiny(**options))
        sine.initialise(generator)
        return sine.frequency.detach()

    usual, wide, equal = (
        drawn(sine_frequency=mean, freq_init_std=std)
        for mean, std in ((3.0, 0.5), (0.5, 5.0), (1.0, 0.0))
    )

    # Five standard errors of 400 draws: of the mean 1 / sqrt(400), of the spread 1 / sqrt(800).
    assert usual.mean().item() == pytest.approx(3.0, abs=0.5 * 5 / 20)
    assert usual.std().item() == pytest.approx(0.5, rel=5 / math.sqrt(800))
    assert wide.min().item() >= 1e-3  # where draws are cut off
    assert wide.isfinite().all()
    assert equal.max() - equal.min() < 1e-6  # vectorised and scalar softplus differ in a last bit
