"""What a network is asked to be: its shape, its base, its options.

Knows nothing of torch, nor of what the network is used for.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from psannlm.config import schema
from psannlm.config.schema import Rule

Positions = Literal["rope", "alibi", "sinusoidal"]
DecayMode = Literal["abs", "relu", "none"]
SinePart = Literal["amplitude", "frequency", "decay"]
Nonlinearity = Literal["gelu", "relu_squared", "swiglu", "gelu_scaled"]


class Architecture(schema.Strict):
    """Shape and options that all bases share; those of other bases than the one built are idle."""

    vocab_size: schema.Vocabulary  # V, token ids
    context_length: schema.Length  # most tokens of a sequence
    d_model: schema.Width  # D, width of the residual stream
    n_layers: schema.Depth
    n_heads: schema.Width  # H
    d_mlp: schema.Width  # F, hidden width of an MLP
    positions: Positions = "rope"
    init_std: schema.Positive = 0.02  # standard deviation of the initial weights
    sine_amplitude: schema.Positive = 1.0  # initial A
    sine_frequency: schema.Positive = 1.0  # initial f, radians per unit of z
    sine_decay: schema.Positive = 0.01  # initial d, per unit of g(z)
    decay_mode: DecayMode = "abs"
    learnable: schema.AnyOf[SinePart] = ("amplitude", "frequency", "decay")
    freq_init_std: schema.NotNegative = 0.0  # spread of the initial f over features
    mlp: Nonlinearity = "gelu"  # of the base `transformer`
    gate_n_fft: Annotated[schema.Whole, Field(ge=2, le=4096)] = 64
    gate_strength: schema.Number = 1.0  # initial, learned
    gate_mix: Literal["none", "depthwise", "full"] = "depthwise"
    wave: Literal["none", "interleave", "replace"] = "interleave"
    wave_kernel: Annotated[schema.Whole, Field(ge=1, le=64)] = 3
    wave_dilation_growth: Annotated[schema.Whole, Field(ge=1, le=8)] = 2
    grad_checkpoint: bool = False

    rules: ClassVar[tuple[Rule, ...]] = (
        schema.multiple_of("d_model", "n_heads"),
        Rule(
            ("positions", "d_model", "n_heads"),
            lambda kind, width, heads: kind != "rope" or width % heads or width // heads % 2 == 0,
            "positions: {} needs an even head width, got d_model / n_heads = {} / {}",
        ),
        Rule(
            ("positions", "d_model"),
            lambda kind, width: kind != "sinusoidal" or width % 2 == 0,
            "positions: {} needs an even d_model, got {}",
        ),
        Rule(("gate_n_fft",), lambda n_fft: n_fft % 2 == 0, "gate_n_fft must be even, got {}"),
        Rule(
            ("sine_frequency",), lambda f: f > 1e-5, "sine_frequency must be more than 1e-5, got {}"
        ),
    )

    @property
    def d_head(self) -> int:
        """K, the width of one attention head."""
        return self.d_model // self.n_heads

    def network_of(self, base: str, **changes: Any) -> "ModelConfig":
        """The network of `base` in this shape, but for what is changed by name."""
        shared = {name: getattr(self, name) for name in Architecture.model_fields}
        return ModelConfig(base=base, **shared | changes)


class ModelConfig(Architecture):
    """One network: an architecture with the base it is built as."""

    base: schema.Text
