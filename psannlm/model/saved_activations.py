"""What each part of a block saves for backward in eager training, in bytes by kind of tensor.

A tensor counts as the storage that holds it. Parameters are not counted: they are there anyway.
Shape letters: B batch, T tokens, N = B * T, D d_model, H heads, K head width, F d_mlp, L taps.
"""

from collections import Counter
from dataclasses import InitVar, dataclass, field

from psannlm.config.network import Architecture
from psannlm.model import cost
from psannlm.model.cost import Shape
from psannlm.model.positions import ALIBI_FEATURES

WIDE = 4  # bytes of a float32


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
class SavedActivations:
    """What consecutive parts of a network hold; `first + second` is first, then second, in forward.

    Backward takes the last part first: while it works, all before it is still saved, and what it
    saved has become the gradients of its weights when its predecessor works. The peak is the
    largest of those moments.
    """

    kinds: Counter[str] = field(default_factory=Counter)  # bytes saved for backward, by kind
    working: InitVar[int] = 0  # most bytes that backward holds besides, gradients included
    gradients: int = 0  # bytes of the weights' gradients once backward has passed
    peak: int = 0  # most bytes that these parts hold at one time

    def __post_init__(self, working: int) -> None:
        object.__setattr__(self, "peak", max(self.peak, self.total + working, self.gradients))

    def __add__(self, other: "SavedActivations") -> "SavedActivations":
        return SavedActivations(
            self.kinds + other.kinds,
            gradients=self.gradients + other.gradients,
            peak=max(self.total + other.peak, self.peak + other.gradients),
        )

    @property
    def total(self) -> int:
        """Of all kinds."""
        return sum(self.kinds.values())


def _saved(working: int = 0, gradients: int = 0, **kinds: int) -> SavedActivations:
    named = Counter({name.replace("_", " "): size for name, size in kinds.items()})
    return SavedActivations(named, working, gradients)


def stream(config: Architecture, step: Step) -> SavedActivations:
    """Input of a norm whose output goes into a projection: float32 (N, D)."""
    return _saved(residual_stream=WIDE * step.n * config.d_model)


def norm(config: Architecture, step: Step) -> SavedActivations:
    """A norm whose output goes elsewhere: x, and the root mean square of each row.

    On a CPU torch computes it step by step, and saves the normalised (N, D) besides.
    """
    normalised = WIDE * step.n * config.d_model if step.device_type == "cpu" else 0
    return stream(config, step) + _saved(norms=normalised + WIDE * step.n)


def attention(config: Architecture, step: Step) -> SavedActivations:
    """q, k, v and the output, (N, H, K) each, and a float32 log-sum-exp per row and head.

    ALiBi makes all four wider. Rotary positions multiply by two (T, K/2) tables of each layer.
    """
    extra = ALIBI_FEATURES * config.n_heads if config.positions == "alibi" else 0
    rows = 4 * step.item * step.n * (config.d_model + extra)
    tables = WIDE * config.context_length * config.d_head if config.positions == "rope" else 0
    results = step.n * (config.d_model + extra)
    # Gradients of the stream, of q, k, v and the output, and of qkv as rotation gives it back.
    working = 2 * WIDE * step.n * config.d_model + 8 * step.item * results
    gradients = WIDE * cost.attention(config, step.shape).n_parameters
    return stream(config, step) + _saved(
        working + gradients,
        gradients,
        attention=rows + WIDE * step.n * config.n_heads,
        position_tables=tables,
    )


def mlp(config: Architecture, step: Step, width: int, into: int, working: int) -> SavedActivations:
    """z, (N, width), before a nonlinearity, and then `into` features.

    For each of the (N, into) numbers backward holds `working` bytes at one time: the nonlinearity
    computed again, its gradient, and what its own backward makes.
    """
    weights = config.d_model * (width + into) + width + config.d_model
    held = step.n * (2 * WIDE * config.d_model + working * into) + WIDE * config.d_model * into
    return stream(config, step) + _saved(held, WIDE * weights, mlp=step.item * step.n * width)


def sine_working(config: Architecture, step: Step) -> int:
    """Bytes for each number of a damped sine, when its backward holds most.

    The gradient of s; in float32 z, unless it is one already, sine and cosine of f z, and two
    more, or three with a decay. A plain sine holds less, as it has saved the rest: the gradients of
    a product and of its two factors, of which one stands where s(z) was if that was as wide.
    """
    if step.variant == "plain_sine":
        return (3 if step.casts else 2) * WIDE
    n_wide = 3 if config.decay_mode == "none" else 4
    return step.item + WIDE * (n_wide + (2 if step.casts else 0))


def weighted(config: Architecture, step: Step) -> SavedActivations:
    """What a learned scalar multiplies, (N, D)."""
    return _saved(mlp=step.item * step.n * config.d_model)


def sine(config: Architecture, step: Step, width: int, part: str = "mlp") -> SavedActivations:
    """Nothing beside z, but with a plain sine all that autograd needs, and the weight it feeds.

    Those are float32 (N, width): z, unless it is one already; f z; and with a decay A sin(f z),
    exp(-d g(z)) and, for the gradients of A and d, sin(f z) and g(z). Then s(z), and A, f and -d.
    """
    if step.variant != "plain_sine":
        return SavedActivations()
    size, n_small, learned = step.n * width, 2, set(config.learnable)
    needs_z = "frequency" in learned or config.decay_mode == "abs"
    n_wide = 1 + ("amplitude" in learned) + (needs_z if step.casts else 0)
    if config.decay_mode != "none":
        n_wide += 2 + ("decay" in learned or config.decay_mode == "relu")
        n_small += 1
    numbers = WIDE * n_wide * size + step.item * size + WIDE * n_small * width
    if step.casts or not needs_z:
        numbers -= step.item * size  # the z of `mlp`: a float32 copy is saved instead, or none
    copy = step.item * width * config.d_model if step.casts else 0
    weight = WIDE * width * config.d_model
    working = 2 * WIDE * step.n * config.d_model + sine_working(config, step) * size + weight
    return SavedActivations(Counter({part: numbers, "weights cast": copy}), working)


def gate(config: Architecture, step: Step) -> SavedActivations:
    """Its padded input, its output before and after the mix, its taps and what they come from."""
    width, n_bins, rows = config.d_model, config.gate_n_fft // 2 + 1, step.n * config.d_model
    padded = rows + step.shape.batch * (n_bins - 1) * width
    results = rows if config.gate_mix == "none" else 2 * rows
    gradients = WIDE * cost.gate(config, step.shape).n_parameters
    working = gradients + WIDE * step.n * width + 3 * step.item * padded
    # Of the strength and of the mix.
    copies = step.casts * step.item * (1 + (width if config.gate_mix == "depthwise" else 0))
    taps = (step.item + WIDE) * width * n_bins + WIDE * n_bins**2
    return _saved(working, gradients, gate=step.item * (padded + results) + taps + copies)


def wave(config: Architecture, step: Step, dilation: int) -> SavedActivations:
    """A norm, its padded output, the taps, and z before the sine."""
    width, rows = config.d_model, step.n * config.d_model
    padded = rows + step.shape.batch * (config.wave_kernel - 1) * dilation * width
    own = step.item * (padded + config.wave_kernel * width + rows)
    gradients = WIDE * cost.wave(config, step.shape).n_parameters
    working = gradients + (2 * WIDE + sine_working(config, step)) * rows
    wave = _saved(working, gradients, wave=own)
    return norm(config, step) + wave + sine(config, step, width, "wave")
