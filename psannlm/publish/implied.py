"""What the conditions of a published figure imply: a network, its costs, the peak of its device."""

from psannlm.bench.ceiling import stated_peak
from psannlm.config.network import ModelConfig
from psannlm.config.schema import ConfigError
from psannlm.files import MIB
from psannlm.model.bases import cost_of
from psannlm.model.cost import Cost, Shape, training_bytes
from psannlm.publish.published import Conditions

SMALLEST_VOCABULARY = 2
MLP_RATIO = 4
"""Width of an MLP over that of its network, as the published package builds one by default."""


def network(conditions: Conditions, **missing: int) -> ModelConfig:
    """The network that conditions describe, without a wave block, as it was published.

    Args:
        conditions: Base and shape.
        **missing: What they leave open.

    Raises:
        ConfigError: A part of the shape is still open.
    """
    names = ("vocab_size", "context_length", "d_model", "n_layers", "n_heads", "d_mlp")
    shape = {name: missing.get(name, getattr(conditions, name)) for name in names}
    if unknown := [name for name, value in shape.items() if value is None]:
        raise ConfigError(f"a network needs {', '.join(unknown)}; state them")
    return ModelConfig(base=conditions.base, wave="none", **shape)


def cost_of_pass(conditions: Conditions) -> tuple[Cost, int]:
    """The cost of one forward pass under these conditions, and its tokens."""
    shape = Shape(conditions.batch or 1, conditions.context_length or 1)
    return cost_of(network(conditions), shape), shape.total


def smallest(conditions: Conditions) -> ModelConfig:
    """The smallest network of the width and depth that is stated, its MLP of the usual width."""
    return network(
        conditions,
        vocab_size=SMALLEST_VOCABULARY,
        context_length=1,
        n_heads=1,
        d_mlp=MLP_RATIO * (conditions.d_model or 1),
    )


def held_mib(n_parameters: int) -> float:
    """What float32 weights, gradients and AdamW's moments take at least, in MiB."""
    return sum(training_bytes(n_parameters, 0)) / MIB


def peak_of(conditions: Conditions, precision: str) -> float:
    """What the maker states for the device, in FLOP/s.

    Raises:
        ConfigError: No datasheet of that device is known.
    """
    peak = stated_peak(conditions.device, precision)
    if peak is None:
        raise ConfigError(f"no datasheet of {conditions.device!r} gives its {precision} peak")
    return peak
