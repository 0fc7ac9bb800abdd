"""Broken twins of a single network, its labels, its clock: what GPU-01 to GPU-04 have to see."""

import concurrent.futures
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from psannlm.bench.timing import HostStopwatch
from psannlm.model import mixers, positions, sine, transformer
from psannlm.model.bases import Respsann, Sgrpsann
from psannlm.model.loss import linear_cross_entropy
from psannlm.train import objective
from psannlm.train.plan import Batches
from tests.twins import replacing, seen_by

Patch = pytest.MonkeyPatch


@seen_by("GPU-01", "waveresnet")
@replacing(mixers, "pad")
def padded_on_both_sides(_: Any, x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    reach = sizes[2]
    return pad(x, (0, 0, reach - reach // 2, reach // 2))


@seen_by("GPU-01", "sgrpsann")
@replacing(mixers.SpectralGate, "forward")
def gate_around_the_window(_: Any, gate: Any, x: Tensor, past: object = None) -> Tensor:
    length = x.shape[1]
    n = max(length, gate.taps().shape[1])
    response = torch.fft.rfft(gate.taps(), n=n)
    y = torch.fft.irfft(torch.fft.rfft(x.transpose(1, 2), n=n) * response)
    return y[..., :length].transpose(1, 2) * gate.mix


@seen_by("GPU-01", "respsann")
@replacing(Batches, "batch")
def labels_of_batches_unshifted(right: Any, *given: Any) -> tuple[Tensor, Tensor]:
    tokens, _ = right(*given)
    return tokens, tokens.clone()


@seen_by("GPU-01", "transformer")
@replacing(objective.NextToken, "forward")
def labels_of_the_objective_unshifted(right: Any, own: Any, x: Tensor, _: Tensor) -> Tensor:
    return right(own, x, x)


@seen_by("GPU-01", "respsann")
@replacing(objective.NextToken, "forward")
def labels_two_ahead(right: Any, own: Any, x: Tensor, y: Tensor) -> Tensor:
    return right(own, x, y.roll(-1, dims=1))


@seen_by("GPU-01", "respsann")
@replacing(objective, "linear_cross_entropy")
def loss_averaged_by_chunk(
    _: Any, hidden: Tensor, weight: Tensor, targets: Tensor, *, chunk_tokens: int, compiled: bool
) -> Tensor:
    parts = zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
    return torch.stack([linear_cross_entropy(h, weight, t) for h, t in parts]).mean()


def residual(patch: Patch, scale: Callable[[Respsann], Tensor]) -> None:
    """Weigh what an MLP adds by `scale`."""

    def forward(block: Respsann, x: Tensor, past: object = None, position: int = 0) -> Tensor:
        x = block.attend(x, past, position)
        return x + scale(block) * block.change(x, past)

    patch.setattr(Respsann, "forward", forward)


@seen_by("GPU-01", "respsann")
def residual_scale_without_gradient(patch: Patch) -> None:
    residual(patch, lambda block: block.alpha.detach())


@seen_by("GPU-01", "respsann")
def residual_scale_dropped(patch: Patch) -> None:
    residual(patch, lambda block: 1 + 0 * block.alpha)


@seen_by("GPU-02", "respsann")
def residual_scale_without_gradient_in_bf16(patch: Patch) -> None:
    residual(patch, lambda b: b.alpha.detach() if torch.is_autocast_enabled("cpu") else b.alpha)


@seen_by("GPU-01", "sgrpsann")
@replacing(Respsann, "__init__")
def residual_scale_frozen(right: Any, block: Respsann, *given: Any) -> None:
    right(block, *given)
    block.alpha.requires_grad_(False)


@seen_by("GPU-01", "respsann")
def sines_of_layers_tied(patch: Patch) -> None:
    right, first = Respsann.__init__, []

    def tied(block: Respsann, config: object, layer: int) -> None:
        right(block, config, layer)
        if layer == 0:
            first[:] = [block.mlp.nonlinearity]
        block.mlp.nonlinearity = first[0]

    patch.setattr(Respsann, "__init__", tied)


@seen_by("GPU-01", "waveresnet")
@replacing(sine, "raw_parameter")
def softplus_inverted_wrongly(_: Any, n: int, value: float) -> nn.Parameter:
    return nn.Parameter(torch.full((n,), math.log(math.expm1(value) + 1e-3)))


@seen_by("GPU-01", "respsann")
@replacing(sine.DampedSine, "forward")
def amplitude_and_frequency_swapped(_: Any, own: sine.DampedSine, z: Tensor) -> Tensor:
    return sine.damped_sine(z, own.frequency, own.amplitude, own.decay, own.decay_mode)


@seen_by("GPU-02", "respsann")
@replacing(sine, "damped_sine")
def phase_in_half(_: Any, z: Tensor, amplitude: Tensor, frequency: Tensor, *decay: Any) -> Tensor:
    phase = frequency.to(z.dtype) * z
    exact = sine.damped_sine_reference(z, amplitude, frequency, *decay)
    swing = torch.sin(frequency * z.float())
    return (exact.float() / swing * torch.sin(phase.float())).to(z.dtype)


@seen_by("GPU-01", "respsann")
@replacing(sine._DampedSine, "backward")
def slope_of_the_decay_halved(right: Any, *given: Any) -> Any:
    by_z, by_amplitude, by_frequency, by_decay, mode = right(*given)
    return by_z, by_amplitude, by_frequency, by_decay * 0.5, mode


def attend_to_all(patch: Patch, broken: Callable[[transformer.Attention], bool]) -> None:
    """Leave the mask out where `broken` says so."""
    attend = transformer.Attention._attend

    def unmasked(own: transformer.Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not broken(own):
            return attend(own, q, k, v)
        return scaled_dot_product_attention(q, k, v, scale=own.scale)

    patch.setattr(transformer.Attention, "_attend", unmasked)


@seen_by("GPU-01", "transformer")
def mask_missing(patch: Patch) -> None:
    attend_to_all(patch, lambda _: True)


@seen_by("GPU-01", "respsann")
def mask_missing_in_training(patch: Patch) -> None:
    attend_to_all(patch, lambda attention: attention.training)


@seen_by("GPU-01", "transformer")
@replacing(positions.Rotary, "forward")
def keys_turned_one_too_far(turn: Any, rotary: Any, x: Tensor, position: int) -> Tensor:
    rotary.calls = getattr(rotary, "calls", 0) + 1  # a layer turns its queries, then its keys
    shift = (rotary.calls + 1) % 2
    return turn(rotary, x.roll(-shift, dims=-2), position).roll(shift, dims=-2)


@seen_by("GPU-01", "sgrpsann")
def gate_left_out(patch: Patch) -> None:
    patch.setattr(Sgrpsann, "change", Respsann.change)


@seen_by("GPU-03", "transformer")
@replacing(HostStopwatch, "lap")
def clock_that_does_not_wait(_: Any, own: object, step: Any, n_steps: int) -> list[float]:
    seconds = []
    with concurrent.futures.ThreadPoolExecutor(1) as queue:
        for _ in range(n_steps):
            start = time.perf_counter()
            queue.submit(step)
            seconds.append(time.perf_counter() - start)
    return seconds


@seen_by("GPU-03", "transformer")
@replacing(HostStopwatch, "lap")
def steps_counted_but_not_done(lap: Any, own: object, step: object, n_steps: int) -> list[float]:
    return (lap(own, step, -(-n_steps // 4)) * 4)[:n_steps]


@seen_by("GPU-03", "transformer")
@replacing(HostStopwatch, "lap")
def time_divided_twice(lap: Any, own: object, step: object, n_steps: int) -> list[float]:
    return [sum(lap(own, step, n_steps)) / n_steps**2] * n_steps


@seen_by("GPU-04", "respsann")
@replacing(transformer, "checkpoint")
def checkpointing_without_gradients(_: Any, block: Any, x: Tensor, **options: Any) -> Tensor:
    return x + (block(x) - x).detach()


@seen_by("GPU-04", "respsann")
@replacing(transformer, "checkpoint")
def checkpointing_of_other_features(right: Any, block: Any, x: Tensor, **options: Any) -> Tensor:
    return right(block, x + 1e-4 * x.detach(), **options)


@seen_by("GPU-04", "transformer")
@replacing(transformer, "checkpoint")
def checkpointing_that_saves_everything(_: Any, block: Any, x: Tensor, **options: Any) -> Tensor:
    return block(x)
