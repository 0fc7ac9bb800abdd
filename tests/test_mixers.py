"""The gate and the wave are causal filters, in any pieces, with the response they claim."""

import itertools
from collections.abc import Callable

import pytest
import torch
from networks import randomise, tiny
from torch import Tensor

from psannlm.model.mixers import CausalWave, Rows, SpectralGate, causal_convolution, wave_dilation

pytestmark = pytest.mark.usefixtures("float64")

EXACT = 1e-12  # sums of at most 64 float64 products of size 1
PIECES = [(9,), (1,) * 9, (3, 1, 5), (8, 1)]
"""Ways to cut nine tokens."""


def filtered_by_hand(x: Tensor, taps: Tensor, dilation: int) -> Tensor:
    y = torch.zeros_like(x)
    for t, k in itertools.product(range(x.shape[1]), range(taps.shape[1])):
        if t - k * dilation >= 0:
            y[:, t] += taps[:, k] * x[:, t - k * dilation]
    return y


def in_pieces(run: Callable[[Tensor, Rows], Tensor], x: Tensor, lengths: tuple[int, ...]) -> Tensor:
    past: Rows = {}
    return torch.cat([run(piece, past) for piece in x.split(lengths, dim=1)], dim=1)


@pytest.mark.parametrize(
    "lengths",
    [(1,), (2,), (9,), (1,) * 6, (4, 2), (1, 3, 2), (2, 1, 1, 2), (3, 1, 5), (8, 1)],
    ids=str,
)
@pytest.mark.parametrize("dilation", [1, 2, 3, 8])
@pytest.mark.parametrize("n_taps", [1, 2, 3, 7])
def test_a_causal_convolution_is_its_double_sum_in_any_pieces(
    lengths: tuple[int, ...], dilation: int, n_taps: int, generator: torch.Generator
) -> None:
    x = torch.randn(2, sum(lengths), 3, generator=generator)
    taps = torch.randn(3, n_taps, generator=generator)
    expected = filtered_by_hand(x, taps, dilation)

    def convolved(piece: Tensor, past: Rows | None) -> Tensor:
        return causal_convolution(piece, taps, dilation=dilation, past=past, name="x")

    for y in (convolved(x, None), in_pieces(convolved, x, lengths)):
        torch.testing.assert_close(y, expected, atol=EXACT, rtol=0)


def test_a_convolution_remembers_no_more_rows_than_it_reaches() -> None:
    past: Rows = {}

    for _ in range(3):
        causal_convolution(torch.ones(2, 9, 4), torch.ones(4, 3), dilation=2, past=past, name="x")

    assert list(past) == ["x"]
    assert past["x"].shape == (2, 4, 4)
    assert past["x"].untyped_storage().nbytes() == past["x"].nbytes  # no view of a larger tensor


def gate_of(
    n_fft: int, mix: str = "none", generator: torch.Generator | None = None
) -> SpectralGate:
    gate = SpectralGate(tiny(gate_n_fft=n_fft, gate_mix=mix))
    if generator is not None:
        randomise(gate, generator)
    return gate


@pytest.mark.parametrize("n_fft", [2, 4, 6, 64, 128])
def test_the_real_part_of_the_response_is_the_sigmoid_of_the_mask(
    n_fft: int, generator: torch.Generator
) -> None:
    gate, fresh = gate_of(n_fft, generator=generator), gate_of(n_fft, "depthwise")
    x = torch.randn(2, 70, 8, generator=generator)

    response = torch.fft.rfft(gate.taps(), n=n_fft)  # zero-padded to n

    torch.testing.assert_close(response.real, torch.sigmoid(gate.mask), atol=EXACT, rtol=0)
    torch.testing.assert_close(fresh(x), x / 2, atol=EXACT, rtol=0)


@pytest.mark.parametrize("mix", ["none", "depthwise", "full"])
def test_a_gate_is_its_filter_and_its_mix_in_any_pieces(
    mix: str, generator: torch.Generator
) -> None:
    gate = gate_of(8, mix, generator)
    x = torch.randn(2, 9, 8, generator=generator)
    expected = filtered_by_hand(x, gate.taps().detach(), 1)
    if isinstance(gate.mix, torch.nn.Linear):
        expected = expected @ gate.mix.weight.T
    elif gate.mix is not None:
        expected = expected * gate.mix
    assert (gate.mix is None) == (mix == "none")

    for y in (gate(x), *(in_pieces(gate, x, lengths) for lengths in PIECES)):
        torch.testing.assert_close(y, expected, atol=EXACT, rtol=0)


def test_taps_keep_the_masks_precision_under_autocast() -> None:
    gate = gate_of(64).float()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        taps = gate.taps()

    assert taps.dtype == torch.float32


@pytest.mark.parametrize(
    ("growth", "expected"), [(1, [1] * 6), (2, [1, 2, 4, 8, 1, 2]), (3, [1, 3, 9, 27, 1, 3])]
)
def test_dilation_grows_over_four_layers_and_starts_again(growth: int, expected: list[int]) -> None:
    config = tiny(wave_dilation_growth=growth)

    assert [wave_dilation(config, layer) for layer in range(6)] == expected


@pytest.mark.parametrize(("layer", "dilation"), [(0, 1), (1, 2), (3, 8), (4, 1)])
def test_a_wave_reaches_back_by_its_dilation_and_never_ahead(
    layer: int, dilation: int, generator: torch.Generator
) -> None:
    wave = CausalWave(tiny(), layer)
    randomise(wave, generator)
    x = torch.randn(1, 30, 8, generator=generator)
    changed = x.clone()
    changed[:, 5] += 1.0

    difference = (wave(changed) - wave(x)).abs().amax(dim=(0, 2))

    # Elsewhere the same numbers are added: they may differ by rounding.
    touched = [t for t, size in enumerate(difference.tolist()) if size > EXACT]
    assert touched == [5, 5 + dilation, 5 + 2 * dilation]


def test_fresh_taps_keep_the_variance_of_a_white_input(generator: torch.Generator) -> None:
    wave = CausalWave(tiny(d_model=256, wave_kernel=16), layer=0)

    wave.initialise(generator)

    # The sum of squares of 16 taps has mean 1; over 256 channels it is known to 1 / sqrt(2048).
    power = wave.taps.square().sum(1).mean().item()
    assert power == pytest.approx(1.0, abs=5 / 2048**0.5)
