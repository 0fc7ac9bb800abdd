"""What a network costs by construction: parameters, FLOPs and bytes, from its configuration alone.

A multiplication and an addition are two FLOPs. Only matrix products and convolutions count: norms,
nonlinearities and the embedding's look-up are measured as time, not as FLOPs.
Shape letters: B batch, T tokens, D d_model, H heads, K head width, F d_mlp, L taps, V vocabulary.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from psannlm.config.network import Architecture, ModelConfig
from psannlm.model.positions import ALIBI_FEATURES

MASKED, FILTER = "attention, masked", "filters"


class Shape(NamedTuple):
    """Of one forward pass."""

    batch: int
    tokens: int

    @property
    def total(self) -> int:
        """B * T."""
        return self.batch * self.tokens


@dataclass(frozen=True)
class Cost:
    """Parameters and forward FLOPs, each by the part of the network that has them."""

    parameters: Mapping[str, int] = field(default_factory=dict)
    flops: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            Counter(self.parameters) + Counter(other.parameters),
            Counter(self.flops) + Counter(other.flops),
        )

    def times(self, n: int) -> "Cost":
        """The cost of n of these."""
        return Cost(
            {part: n * count for part, count in self.parameters.items()},
            {part: n * count for part, count in self.flops.items()},
        )

    @property
    def n_parameters(self) -> int:
        """All of them, learned or frozen."""
        return sum(self.parameters.values())

    @property
    def executed_flops(self) -> int:
        """Of one forward pass as torch counts it, masked scores and filters included."""
        return sum(self.flops.values())

    @property
    def model_flops(self) -> int:
        """Of the matrix products that a forward pass needs: half of the scores, no filters.

        The numerator of MFU; a training step needs three times as much.
        """
        return sum(count for part, count in self.flops.items() if part not in (MASKED, FILTER))


def attention(config: Architecture, shape: Shape) -> Cost:
    """Four D x D projections without bias, and two products of queries, keys and values."""
    width = config.d_model
    # 2 products, 2 FLOPs, T (T + 1) / 2 pairs.
    needed = 2 * shape.total * (shape.tokens + 1) * width
    extra = ALIBI_FEATURES * config.n_heads if config.positions == "alibi" else 0
    executed = 4 * shape.total * shape.tokens * (width + extra)
    return Cost(
        {"attention": 4 * width * width},
        {
            "attention, projections": 8 * shape.total * width * width,
            "attention, scores": needed,
            MASKED: executed - needed,
        },
    )


def mlp(config: Architecture, shape: Shape) -> Cost:
    """Linear(D, F) and Linear(F, D) with biases."""
    width, hidden = config.d_model, config.d_mlp
    n_parameters = 2 * width * hidden + hidden + width
    return Cost({"mlp": n_parameters}, {"mlp": 4 * shape.total * width * hidden})


def swiglu(config: Architecture, shape: Shape, hidden: int) -> Cost:
    """Linear(D, 2 F') and Linear(F', D) with biases, F' = `hidden`."""
    width = config.d_model
    n_parameters = 3 * width * hidden + 2 * hidden + width
    return Cost({"mlp": n_parameters}, {"mlp": 6 * shape.total * width * hidden})


def sine(config: Architecture, n_features: int, part: str = "mlp") -> Cost:
    """A, f and, unless decay_mode is none, d of each feature."""
    return Cost({part: (2 if config.decay_mode == "none" else 3) * n_features})


def norm(width: int) -> Cost:
    """A gain per feature."""
    return Cost({"norms": width})


def gate(config: Architecture, shape: Shape) -> Cost:
    """A mask of n/2 + 1 bins per channel, its product with the tap matrix, the filter, the mix."""
    width, n_bins = config.d_model, config.gate_n_fft // 2 + 1
    mixes = {"none": 0, "depthwise": width, "full": width * width}
    product = 2 * shape.total * width * width if config.gate_mix == "full" else 0
    return Cost(
        {"gate": width * n_bins + mixes[config.gate_mix]},
        {"gate": product, FILTER: 2 * width * n_bins * (shape.total + n_bins)},
    )


def wave(config: Architecture, shape: Shape) -> Cost:
    """L taps and a bias per channel, a sine, and Linear(D, D) without bias."""
    width, taps = config.d_model, config.wave_kernel
    flops = {"wave": 2 * shape.total * width * width, FILTER: 2 * shape.total * width * taps}
    return sine(config, width, "wave") + Cost({"wave": width * (taps + 1 + width)}, flops)


def ends(config: ModelConfig, shape: Shape) -> Cost:
    """Embedding, last norm and untied head."""
    size = config.vocab_size * config.d_model
    ends = Cost({"embedding": size, "head": size}, {"head": 2 * shape.total * size})
    return ends + norm(config.d_model)


def training_bytes(n_parameters: int) -> dict[str, int]:
    """What training holds whatever the batch: float32 weights, and two moments a weight of AdamW.

    AdamW holds a step count a tensor besides, which is left out.
    """
    size = 4 * n_parameters
    return {"parameters": size, "gradients": size, "optimizer": 2 * size}
