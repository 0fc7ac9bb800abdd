"""Broken twins of a single network, its labels, its clock: what GPU-01 to GPU-04 have to see."""

import concurrent.futures
import math
import time

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from psannlm.bench.timing import HostStopwatch
from psannlm.model import mixers, positions, sine, transformer
from psannlm.model.bases import Respsann, Sgrpsann
from psannlm.model.loss import linear_cross_entropy
from psannlm.train import objective
from psannlm.train.batches import Batches
from tests.twins import Twin

Patch = pytest.MonkeyPatch


def padded_on_both_sides(patch: Patch) -> None:
    def centred(x: Tensor, sizes: tuple[int, ...]) -> Tensor:
        reach = sizes[2]
        return pad(x, (0, 0, reach - reach // 2, reach // 2))

    patch.setattr(mixers, "pad", centred)


def gate_around_the_window(patch: Patch) -> None:
    def circular(self: mixers.SpectralGate, x: Tensor, past: object = None) -> Tensor:
        length = x.shape[1]
        response = torch.fft.rfft(self.taps(), n=max(length, self.taps().shape[1]))
        y = torch.fft.irfft(
            torch.fft.rfft(x.transpose(1, 2), n=max(length, self.taps().shape[1])) * response
        )
        return y[..., :length].transpose(1, 2) * self.mix

    patch.setattr(mixers.SpectralGate, "forward", circular)


def labels_of_batches_unshifted(patch: Patch) -> None:
    rows_of = Batches._rows

    def unshifted(self: Batches, windows: object) -> tuple[Tensor, Tensor]:
        tokens, _ = rows_of(self, windows)
        return tokens, tokens.clone()

    patch.setattr(Batches, "_rows", unshifted)


def labels_of_the_objective_unshifted(patch: Patch) -> None:
    forward = objective.NextToken.forward
    patch.setattr(objective.NextToken, "forward", lambda self, x, _: forward(self, x, x))


def labels_two_ahead(patch: Patch) -> None:
    forward = objective.NextToken.forward
    patch.setattr(
        objective.NextToken, "forward", lambda self, x, y: forward(self, x, y.roll(-1, dims=1))
    )


def loss_of_unequal_chunks(patch: Patch) -> None:
    def mean_of_means(
        hidden: Tensor, weight: Tensor, targets: Tensor, *, chunk_tokens: int, compiled: bool
    ) -> Tensor:
        parts = zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
        return torch.stack([linear_cross_entropy(h, weight, t) for h, t in parts]).mean()

    patch.setattr(objective, "linear_cross_entropy", mean_of_means)


def residual(patch: Patch, scale: object) -> None:
    """Weigh what an MLP adds by `scale`, a function of the block."""

    def forward(self: Respsann, x: Tensor, past: object = None, position: int = 0) -> Tensor:
        x = self.attend(x, past, position)
        return x + scale(self) * self.change(x, past)

    patch.setattr(Respsann, "forward", forward)


def residual_scale_detached(patch: Patch) -> None:
    residual(patch, lambda block: block.alpha.detach())


def residual_scale_dropped(patch: Patch) -> None:
    residual(patch, lambda block: 1 + 0 * block.alpha)


def residual_scale_detached_in_half(patch: Patch) -> None:
    residual(
        patch,
        lambda b: b.alpha.detach() if torch.is_autocast_enabled("cpu") else b.alpha,
    )


def after_init(patch: Patch, change: object) -> None:
    """Do something to each block of respsann once it is made."""
    init = Respsann.__init__

    def changed(self: Respsann, config: object, layer: int) -> None:
        init(self, config, layer)
        change(self, layer)

    patch.setattr(Respsann, "__init__", changed)


def residual_scale_frozen(patch: Patch) -> None:
    after_init(patch, lambda block, _: block.alpha.requires_grad_(False))


def sines_of_layers_tied(patch: Patch) -> None:
    first: list[nn.Module] = []

    def tie(block: Respsann, layer: int) -> None:
        if layer == 0:
            first[:] = [block.mlp.nonlinearity]
        block.mlp.nonlinearity = first[0]

    after_init(patch, tie)


def softplus_inverted_wrongly(patch: Patch) -> None:
    patch.setattr(
        sine,
        "raw_parameter",
        lambda n, value: nn.Parameter(torch.full((n,), math.log(math.expm1(value) + 1e-3))),
    )


def amplitude_and_frequency_swapped(patch: Patch) -> None:
    def swapped(self: sine.DampedSine, z: Tensor) -> Tensor:
        return sine.damped_sine(z, self.frequency, self.amplitude, self.decay, self.decay_mode)

    patch.setattr(sine.DampedSine, "forward", swapped)


def phase_in_half(patch: Patch) -> None:
    def narrow(
        z: Tensor, amplitude: Tensor, frequency: Tensor, decay: Tensor | None, mode: object
    ) -> Tensor:
        phase = frequency.to(z.dtype) * z
        exact = sine.damped_sine_reference(z, amplitude, frequency, decay, mode)
        swing = torch.sin(frequency * z.float())
        return (exact.float() / swing * torch.sin(phase.float())).to(z.dtype)

    patch.setattr(sine, "damped_sine", narrow)


def slope_of_the_decay_forgotten(patch: Patch) -> None:
    backward = sine._DampedSine.backward

    def without(ctx: object, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        by_z, by_amplitude, by_frequency, by_decay, mode = backward(ctx, *gradients)
        return by_z, by_amplitude, by_frequency, by_decay * 0.5, mode

    patch.setattr(sine._DampedSine, "backward", staticmethod(without))


def attend_to_all(patch: Patch, broken: object) -> None:
    """Leave the mask out where `broken`, a function of the attention, says so."""
    attend = transformer.Attention._attend

    def unmasked(self: transformer.Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not broken(self):
            return attend(self, q, k, v)
        return scaled_dot_product_attention(q, k, v, scale=self.scale)

    patch.setattr(transformer.Attention, "_attend", unmasked)


def mask_missing(patch: Patch) -> None:
    attend_to_all(patch, lambda _: True)


def mask_missing_in_training(patch: Patch) -> None:
    attend_to_all(patch, lambda attention: attention.training)


def keys_turned_one_too_far(patch: Patch) -> None:
    forward = positions.Rotary.forward
    calls = iter(range(10**9))

    def shifted(self: positions.Rotary, x: Tensor, position: int) -> Tensor:
        if next(calls) % 2 == 0:
            return forward(self, x, position)
        return forward(self, x.roll(-1, dims=-2), position).roll(1, dims=-2)

    patch.setattr(positions.Rotary, "forward", shifted)


def gate_left_out(patch: Patch) -> None:
    patch.setattr(Sgrpsann, "change", Respsann.change)


def clock_that_does_not_wait(patch: Patch) -> None:
    def lap(self: HostStopwatch, step: object, n_steps: int) -> list[float]:
        seconds = []
        with concurrent.futures.ThreadPoolExecutor(1) as queue:
            for _ in range(n_steps):
                start = time.perf_counter()
                queue.submit(step)
                seconds.append(time.perf_counter() - start)
        return seconds

    patch.setattr(HostStopwatch, "lap", lap)


def steps_counted_but_not_done(patch: Patch) -> None:
    lap = HostStopwatch.lap
    patch.setattr(
        HostStopwatch,
        "lap",
        lambda self, step, n_steps: (lap(self, step, -(-n_steps // 4)) * 4)[:n_steps],
    )


def steps_timed_once(patch: Patch) -> None:
    lap = HostStopwatch.lap

    def divided(self: HostStopwatch, step: object, n_steps: int) -> list[float]:
        total = sum(lap(self, step, n_steps))
        return [total / n_steps**2] * n_steps

    patch.setattr(HostStopwatch, "lap", divided)


def checkpointing_without_gradients(patch: Patch) -> None:
    def detached(block: nn.Module, x: Tensor, use_reentrant: bool) -> Tensor:
        return x + (block(x) - x).detach()

    patch.setattr(transformer, "checkpoint", detached)


def checkpointing_on_other_features(patch: Patch) -> None:
    checkpoint = transformer.checkpoint
    patch.setattr(
        transformer,
        "checkpoint",
        lambda block, x, use_reentrant: checkpoint(
            block, x + 1e-4 * x.detach(), use_reentrant=use_reentrant
        ),
    )


def checkpointing_that_keeps_all(patch: Patch) -> None:
    patch.setattr(transformer, "checkpoint", lambda block, x, use_reentrant: block(x))


NETWORK_TWINS = [
    Twin("future leak by conv padding", "GPU-01", "waveresnet", padded_on_both_sides),
    Twin("future leak by the gate", "GPU-01", "sgrpsann", gate_around_the_window),
    Twin("attention mask missing", "GPU-01", "transformer", mask_missing),
    Twin("mask missing in training only", "GPU-01", "respsann", mask_missing_in_training),
    Twin("unshifted labels, batches", "GPU-01", "respsann", labels_of_batches_unshifted),
    Twin("unshifted labels, objective", "GPU-01", "transformer", labels_of_the_objective_unshifted),
    Twin("labels two ahead", "GPU-01", "respsann", labels_two_ahead),
    Twin("loss averaged by chunk", "GPU-01", "respsann", loss_of_unequal_chunks),
    Twin("missing gradient", "GPU-01", "respsann", residual_scale_detached),
    Twin("wrong gradient of the decay", "GPU-01", "respsann", slope_of_the_decay_forgotten),
    Twin("parameter frozen", "GPU-01", "sgrpsann", residual_scale_frozen),
    Twin("sine parameters tied across layers", "GPU-01", "respsann", sines_of_layers_tied),
    Twin("wrong softplus inverse", "GPU-01", "waveresnet", softplus_inverted_wrongly),
    Twin("dropped residual scale", "GPU-01", "respsann", residual_scale_dropped),
    Twin("swapped A and f", "GPU-01", "respsann", amplitude_and_frequency_swapped),
    Twin("wrong rotary offset of keys", "GPU-01", "transformer", keys_turned_one_too_far),
    Twin("gate left out", "GPU-01", "sgrpsann", gate_left_out),
    Twin("bf16 phase", "GPU-02", "respsann", phase_in_half),
    Twin("gradient lost in bf16", "GPU-02", "respsann", residual_scale_detached_in_half),
    Twin("timing without waiting", "GPU-03", "transformer", clock_that_does_not_wait),
    Twin("steps counted but not done", "GPU-03", "transformer", steps_counted_but_not_done),
    Twin("time divided twice", "GPU-03", "transformer", steps_timed_once),
    Twin("checkpointing drops a gradient", "GPU-04", "respsann", checkpointing_without_gradients),
    Twin("checkpointing of other features", "GPU-04", "respsann", checkpointing_on_other_features),
    Twin("checkpointing keeps everything", "GPU-04", "transformer", checkpointing_that_keeps_all),
]
