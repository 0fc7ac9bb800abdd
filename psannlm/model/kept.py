"""What each part of a block keeps for backward in eager training, in bytes by kind of tensor.

A tensor counts as the storage that holds it. Parameters are not counted: they are there anyway.
Shape letters: B batch, T tokens, N = B * T, D d_model, H heads, K head width, F d_mlp, L taps.
"""

from collections import Counter
from dataclasses import dataclass, field

from psannlm.architecture import Architecture
from psannlm.model.cost import Shape
from psannlm.model.positions import ALIBI_FEATURES

WIDE = 4
"""Bytes of a float32."""


@dataclass(frozen=True)
class Step:
    """How a training step is taken, as far as its memory depends on it."""

    shape: Shape
    precision: str
    device_type: str
    variant: str = "default"

    @property
    def n(self) -> int:
        """N, tokens of the step."""
        return self.shape.total

    @property
    def item(self) -> int:
        """Bytes of a number that a product yields, under autocast or without."""
        return WIDE if self.precision == "fp32" else 2

    @property
    def casts(self) -> bool:
        """Whether autocast makes copies of the weights."""
        return self.item != WIDE


@dataclass(frozen=True)
class Kept:
    """Bytes of some parts of a network; of several together, `working` is that of the largest."""

    kinds: Counter[str] = field(default_factory=Counter)
    """Kept from forward to backward, by kind."""

    working: int = 0
    """Held at one time by the backward pass of a part, beside what was kept for it."""

    def __add__(self, other: "Kept") -> "Kept":
        return Kept(self.kinds + other.kinds, max(self.working, other.working))

    @property
    def total(self) -> int:
        """Of all kinds."""
        return sum(self.kinds.values())


def _kept(working: int = 0, **kinds: int) -> Kept:
    return Kept(Counter({name.replace("_", " "): size for name, size in kinds.items()}), working)


def stream(config: Architecture, step: Step) -> Kept:
    """Input of a norm whose output goes into a projection: float32 (N, D)."""
    return _kept(residual_stream=WIDE * step.n * config.d_model)


def norm(config: Architecture, step: Step) -> Kept:
    """A norm whose output goes elsewhere: x, and the root mean square of each row.

    On a CPU torch computes it step by step, and keeps the normalised (N, D) besides.
    """
    normalised = WIDE * step.n * config.d_model if step.device_type == "cpu" else 0
    return stream(config, step) + _kept(norms=normalised + WIDE * step.n)


def attention(config: Architecture, step: Step) -> Kept:
    """q, k, v and the output, (N, H, K) each, and a float32 log-sum-exp per row and head.

    ALiBi makes all four wider. Rotary positions multiply by two (T, K/2) tables of each layer.
    """
    extra = ALIBI_FEATURES * config.n_heads if config.positions == "alibi" else 0
    rows = 4 * step.item * step.n * (config.d_model + extra)
    tables = WIDE * config.context_length * config.d_head if config.positions == "rope" else 0
    return stream(config, step) + _kept(
        attention=rows + WIDE * step.n * config.n_heads, position_tables=tables
    )


def mlp(config: Architecture, step: Step, width: int) -> Kept:
    """z, (N, width), before the nonlinearity."""
    return stream(config, step) + _kept(mlp=step.item * step.n * width)


def weighted(config: Architecture, step: Step, part: str = "mlp") -> Kept:
    """What a learned scalar multiplies, (N, D)."""
    return Kept(Counter({part: step.item * step.n * config.d_model}))


def sine(config: Architecture, step: Step, width: int, part: str = "mlp") -> Kept:
    """Nothing beside z, but with a plain sine all that autograd needs, and the weight it feeds.

    Those are float32 (N, width): z, unless it is one already; f z; and with a decay A sin(f z),
    exp(-d g(z)) and, for the gradients of A and d, sin(f z) and g(z). Then s(z), and A, f and -d.
    """
    if step.variant != "plain_sine":
        return Kept()
    decays, size = config.decay_mode != "none", step.n * width
    learned = set(config.learnable)
    needs_z = "frequency" in learned or config.decay_mode == "abs"
    n_wide = 1 + ("amplitude" in learned) + (needs_z if step.casts else 0)
    n_small = 2
    if decays:
        n_wide += 2 + ("decay" in learned or config.decay_mode == "relu")
        n_small += 1
    numbers = WIDE * n_wide * size + step.item * size + WIDE * n_small * width
    if step.casts:
        numbers -= step.item * size  # the z of `mlp`, of which the float32 copy is kept instead
    copy = step.item * width * config.d_model if step.casts else 0
    return Kept(Counter({part: numbers, "weights cast": copy}))


def gate(config: Architecture, step: Step) -> Kept:
    """Its padded input, its output before and after the mix, its taps and what they come from."""
    width, n_bins, rows = config.d_model, config.gate_n_fft // 2 + 1, step.n * config.d_model
    padded = rows + step.shape.batch * (n_bins - 1) * width
    results = rows if config.gate_mix == "none" else 2 * rows
    copies = 0
    if step.casts:  # of the strength and of the mix
        copies = step.item * (1 + (width if config.gate_mix == "depthwise" else 0))
    taps = (step.item + WIDE) * width * n_bins + WIDE * n_bins**2
    return _kept(gate=step.item * (padded + results) + taps + copies)


def wave(config: Architecture, step: Step, dilation: int) -> Kept:
    """A norm, its padded output, the taps, and z before the sine."""
    width, rows = config.d_model, step.n * config.d_model
    padded = rows + step.shape.batch * (config.wave_kernel - 1) * dilation * width
    own = step.item * (padded + config.wave_kernel * width + rows)
    return norm(config, step) + _kept(wave=own) + sine(config, step, width, "wave")
