"""The damped sine, the nonlinearity that this report is about.

    s(z) = A * exp(-d * g(z)) * sin(f * z),    g(z) = |z|, max(z, 0) or 0

A amplitude, d decay, f frequency (radians per unit of z): one of each per feature, all positive.
Shape letters: F = features; ... = any leading dimensions.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from psannlm.config.network import Architecture, DecayMode

FREQUENCY_FLOOR = 1e-6


def damped_sine_reference(
    z: Tensor, amplitude: Tensor, frequency: Tensor, decay: Tensor | None, decay_mode: DecayMode
) -> Tensor:
    """The formula in plain torch, differentiated by autograd: what faster paths are held to.

    Args:
        z: Pre-activation, (..., F), of any floating dtype.
        amplitude: A, (F,).
        frequency: f, (F,).
        decay: d, (F,); None exactly when `decay_mode` is "none".
        decay_mode: Chooses g.

    Returns:
        s(z), (..., F), in the dtype of z; computed in float32 at least.
    """
    x = z.to(wide(z.dtype))
    y = amplitude * torch.sin(frequency * x)  # (..., F)
    if decay is not None:
        y = y * torch.exp(-decay * (x.abs() if decay_mode == "abs" else x.relu()))
    return y.to(z.dtype)


def damped_sine(
    z: Tensor, amplitude: Tensor, frequency: Tensor, decay: Tensor | None, decay_mode: DecayMode
) -> Tensor:
    """The same function with its gradient written out: it saves z alone of the (..., F) tensors."""
    apply: Callable[..., Tensor] = _DampedSine.apply
    return apply(z, amplitude, frequency, decay, decay_mode)


class _DampedSine(torch.autograd.Function):
    """The gradient, with E = exp(-d g(z)), S = sin(f z), C = cos(f z).

    ds/dz = A E (f C - d g'(z) S),  ds/dA = E S,  ds/df = A E z C,  ds/dd = -A E S g(z).
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        amplitude: Tensor,
        frequency: Tensor,
        decay: Tensor | None,
        decay_mode: DecayMode,
    ) -> Tensor:
        ctx.save_for_backward(z, amplitude, frequency, decay)
        ctx.decay_mode = decay_mode
        return damped_sine_reference(z, amplitude, frequency, decay, decay_mode)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # In place where it can be: many (..., F) tensors at one time would make the peak of memory.
        z, amplitude, frequency, decay = ctx.saved_tensors
        wants_z, wants_amplitude, wants_frequency, wants_decay, _ = ctx.needs_input_grad
        rows = tuple(range(z.dim() - 1))
        x = z.to(wide(z.dtype))
        phase = frequency * x
        sine, cosine = torch.sin(phase), phase.cos_()  # (..., F)
        outer = gradients[0].to(x.dtype)
        by_amplitude = by_frequency = by_decay = by_z = None
        if decay is not None:
            size = x.abs() if ctx.decay_mode == "abs" else x.relu()
            outer = (-decay * size).exp_().mul_(outer)
            if wants_decay:
                by_decay = -amplitude * size.mul_(outer).mul_(sine).sum(rows)
            del size
        if wants_amplitude:
            by_amplitude = (outer * sine).sum(rows)
        if wants_frequency:
            by_frequency = amplitude * (outer * x).mul_(cosine).sum(rows)
        if wants_z:
            slope = cosine.mul_(frequency)
            if decay is not None:
                turn = x.sign() if ctx.decay_mode == "abs" else x > 0
                slope -= sine.mul_(decay).mul_(turn)
            by_z = slope.mul_(outer).mul_(amplitude).to(z.dtype)
        return by_z, by_amplitude, by_frequency, by_decay, None


class DampedSine(nn.Module):
    """A damped sine with its own A, d and f for each feature.

    Each is the softplus of an unconstrained parameter, and so stays positive; the frequency has
    a floor of 1e-6 besides. What `config.learnable` does not name stays at its initial value.
    `decay_mode: none` has no decay at all. A sine that is `plain` leaves its gradient to autograd.

    Shape:
        (..., F) -> (..., F), in the dtype of the input.
    """

    def __init__(self, n_features: int, config: Architecture) -> None:
        super().__init__()
        self.decay_mode = config.decay_mode
        self.plain = False
        self.raw_amplitude = raw_parameter(n_features, config.sine_amplitude)
        self.raw_frequency = raw_parameter(n_features, config.sine_frequency - FREQUENCY_FLOOR)
        self.raw_decay = (
            raw_parameter(n_features, config.sine_decay) if self.decay_mode != "none" else None
        )
        for part in {"amplitude", "frequency", "decay"} - set(config.learnable):
            if (raw := getattr(self, f"raw_{part}")) is not None:
                raw.requires_grad_(False)
        self.frequency_mean, self.frequency_std = config.sine_frequency, config.freq_init_std

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw each initial f from a normal distribution of spread freq_init_std, made positive."""
        if self.frequency_std > 0:
            drawn = torch.empty_like(self.raw_frequency)
            drawn.normal_(self.frequency_mean, self.frequency_std, generator=generator)
            start = drawn.abs().clamp_min(1e-3)
            self.raw_frequency.copy_(start + torch.log(-torch.expm1(-start)))  # as `raw_parameter`

    @property
    def amplitude(self) -> Tensor:
        """A, (F,)."""
        return softplus(self.raw_amplitude)

    @property
    def frequency(self) -> Tensor:
        """f, (F,), in radians per unit of z."""
        return softplus(self.raw_frequency) + FREQUENCY_FLOOR

    @property
    def decay(self) -> Tensor | None:
        """d, (F,), per unit of g(z); None without decay."""
        return None if self.raw_decay is None else softplus(self.raw_decay)

    def forward(self, z: Tensor) -> Tensor:
        # A compiled graph saves no more than z anyway, and its compiler sees through plain torch
        # better than through a custom backward.
        plain = self.plain or torch.compiler.is_compiling()
        function = damped_sine_reference if plain else damped_sine
        return function(z, self.amplitude, self.frequency, self.decay, self.decay_mode)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype to compute in, float32 at least.

    bfloat16 has 8 significant bits: from |f z| = 64 on, its rounding alone would move the phase of
    a sine by up to a quarter of a radian.
    """
    return torch.promote_types(dtype, torch.float32)


def raw_parameter(n_features: int, value: float) -> nn.Parameter:
    """A parameter (F,) whose softplus is `value` everywhere."""
    # log(e^v - 1) without overflow for a large v.
    return nn.Parameter(torch.full((n_features,), value + math.log(-math.expm1(-value))))
