"""The bases, one class each, and the registry that names them.

A base is the block that a transformer repeats. To add one, write its class and its line in BASES:
notebooks, tests and tables take it from there. A class has `forward`, with a `past` in which it
remembers what its next token needs, `cost`, and `saved`: its parameters and FLOPs, and its
activation memory.
Shape letters: B batch, T tokens, D d_model, F d_mlp.
"""

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from psannlm.config.network import ModelConfig
from psannlm.config.parse import nearest
from psannlm.config.schema import ConfigError
from psannlm.model import cost, saved_activations, transformer
from psannlm.model.cost import Cost, Shape
from psannlm.model.mixers import CausalWave, Rows, SpectralGate, wave_dilation
from psannlm.model.saved_activations import SavedActivations, Step
from psannlm.model.sine import DampedSine
from psannlm.model.transformer import MLP, Attention, Transformer, swiglu_width


class Block(nn.Module):
    """What every base starts with: x += attention(norm(x)), and the norm of what comes next.

    Shape:
        (B, T, D) -> (B, T, D)
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.d_model)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.d_model)

    def attend(self, x: Tensor, past: Rows | None, position: int) -> Tensor:
        """The stream after attention, x + attention(norm(x)), (B, T, D)."""
        y: Tensor = x + self.attention(x, past, position, self.attention_norm)
        return y

    @classmethod
    def cost(cls, config: ModelConfig, shape: Shape) -> Cost:
        """Parameters and forward FLOPs of one such block."""
        return cost.attention(config, shape) + cost.norm(config.d_model)

    @classmethod
    def saved(cls, config: ModelConfig, step: Step, layer: int) -> SavedActivations:
        """Bytes that eager training saves of such a block for backward."""
        return saved_activations.attention(config, step)


class TransformerBlock(Block):
    """The baseline: x += mlp(norm(x)) with the nonlinearity that `config.mlp` names."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.mlp: nn.Module
        match config.mlp:
            case "swiglu":
                self.mlp = transformer.SwiGLU(config)
            case "gelu":
                self.mlp = MLP(config, gelu)
            case "relu_squared":
                self.mlp = MLP(config, transformer.relu_squared)
            case "gelu_scaled":
                self.mlp = MLP(config, transformer.GeluScaled(config.d_mlp, config))

    def forward(self, x: Tensor, past: Rows | None = None, position: int = 0) -> Tensor:
        x = self.attend(x, past, position)
        y: Tensor = x + self.mlp(x, self.mlp_norm)
        return y

    @classmethod
    def cost(cls, config: ModelConfig, shape: Shape) -> Cost:
        mlp = cost.mlp(config, shape)
        if config.mlp == "swiglu":
            mlp = cost.swiglu(config, shape, swiglu_width(config.d_model, config.d_mlp))
        elif config.mlp == "gelu_scaled":
            mlp += Cost({"mlp": 2 * config.d_mlp})
        return super().cost(config, shape) + cost.norm(config.d_model) + mlp

    @classmethod
    def saved(cls, config: ModelConfig, step: Step, layer: int) -> SavedActivations:
        width = into = config.d_mlp
        if config.mlp == "swiglu":
            into = swiglu_width(config.d_model, config.d_mlp)
            width = 2 * into
        n_working = {"gelu": 2, "relu_squared": 5, "gelu_scaled": 5, "swiglu": 5}[config.mlp]
        mlp = saved_activations.mlp(config, step, width, into, n_working * step.item)
        return super().saved(config, step, layer) + mlp


class Respsann(Block):
    """x += alpha * mlp(norm(x)), its nonlinearity a damped sine, alpha a learned scalar."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.mlp = MLP(config, DampedSine(config.d_mlp, config))
        self.alpha = nn.Parameter(torch.ones(1))

    def change(self, x: Tensor, past: Rows | None) -> Tensor:
        """What the MLP adds before alpha weighs it, (B, T, D)."""
        y: Tensor = self.mlp(x, self.mlp_norm)
        return y

    def forward(self, x: Tensor, past: Rows | None = None, position: int = 0) -> Tensor:
        x = self.attend(x, past, position)
        return x + self.alpha.to(x.dtype) * self.change(x, past)

    @classmethod
    def cost(cls, config: ModelConfig, shape: Shape) -> Cost:
        mlp = cost.mlp(config, shape) + cost.sine(config, config.d_mlp) + Cost({"mlp": 1})
        return super().cost(config, shape) + cost.norm(config.d_model) + mlp

    @classmethod
    def saved(cls, config: ModelConfig, step: Step, layer: int) -> SavedActivations:
        change = cls.saved_by_change(config, step) + saved_activations.weighted(config, step)
        return super().saved(config, step, layer) + change

    @classmethod
    def saved_by_change(cls, config: ModelConfig, step: Step) -> SavedActivations:
        """Of what the MLP adds before alpha weighs it."""
        width, working = config.d_mlp, saved_activations.sine_working(config, step)
        mlp = saved_activations.mlp(config, step, width, width, working)
        return mlp + saved_activations.sine(config, step, width)


class Sgrpsann(Respsann):
    """respsann whose MLP output y passes a causal spectral gate: y += strength * gate(y)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.gate = SpectralGate(config)
        self.strength = nn.Parameter(torch.tensor([float(config.gate_strength)]))

    def change(self, x: Tensor, past: Rows | None) -> Tensor:
        y = super().change(x, past)
        gated: Tensor = self.gate(y, past)
        return y + self.strength.to(y.dtype) * gated

    @classmethod
    def cost(cls, config: ModelConfig, shape: Shape) -> Cost:
        return super().cost(config, shape) + cost.gate(config, shape) + Cost({"gate": 1})

    @classmethod
    def saved_by_change(cls, config: ModelConfig, step: Step) -> SavedActivations:
        return super().saved_by_change(config, step) + saved_activations.gate(config, step)


class Waveresnet(Respsann):
    """respsann with a wave block a layer: x += wave(norm(x)), beside the MLP or instead of it."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__(config, layer)
        if config.wave != "none":
            self.wave_norm = nn.RMSNorm(config.d_model)
            self.wave = CausalWave(config, layer)
        self.order = config.wave
        if config.wave == "replace":
            del self.mlp, self.mlp_norm, self.alpha

    def forward(self, x: Tensor, past: Rows | None = None, position: int = 0) -> Tensor:
        x = self.attend(x, past, position)
        if self.order != "none":
            x = x + self.wave(self.wave_norm(x), past)
        if self.order == "replace":
            return x
        return x + self.alpha.to(x.dtype) * self.change(x, past)

    @classmethod
    def cost(cls, config: ModelConfig, shape: Shape) -> Cost:
        block = Block.cost if config.wave == "replace" else super().cost
        if config.wave == "none":
            return block(config, shape)
        return block(config, shape) + cost.norm(config.d_model) + cost.wave(config, shape)

    @classmethod
    def saved(cls, config: ModelConfig, step: Step, layer: int) -> SavedActivations:
        first = Block.saved(config, step, layer)
        if config.wave != "none":
            first += saved_activations.wave(config, step, wave_dilation(config, layer))
        if config.wave == "replace":
            return first
        return first + cls.saved_by_change(config, step) + saved_activations.weighted(config, step)


BASES: Mapping[str, type[Block]] = {
    "respsann": Respsann,
    "sgrpsann": Sgrpsann,
    "waveresnet": Waveresnet,
    "transformer": TransformerBlock,
}


def build(config: ModelConfig, *, seed: int, device: torch.device | str = "cpu") -> Transformer:
    """A freshly initialised network, its weights the same on every device.

    Raises:
        ConfigError: No such base.
    """
    with torch.random.fork_rng(devices=[]):  # torch draws weights of its own, which are replaced
        model = Transformer(config, base_of(config))
    initialise(model, seed)
    return model.to(device)


def cost_of(config: ModelConfig, shape: Shape) -> Cost:
    """Parameters and forward FLOPs of the whole network for sequences of that shape."""
    return base_of(config).cost(config, shape).times(config.n_layers) + cost.ends(config, shape)


def base_of(config: ModelConfig) -> type[Block]:
    """The block class that `config.base` names."""
    if config.base not in BASES:
        near = nearest(config.base, BASES) or "."
        raise ConfigError(f"unknown base {config.base!r}{near} There are: {', '.join(BASES)}")
    return BASES[config.base]


@torch.no_grad()
def initialise(model: Transformer, seed: int) -> None:
    """Draw all weights from N(0, init_std), those that write to the residual stream narrower.

    A layer writes twice or more; 1 / sqrt(2 n_layers) keeps the stream's variance (Radford et
    al. 2019). Biases are zero. What a module draws depends on the seed and its name alone, so two
    bases start with equal weights wherever they have the same module.
    """
    narrower = 1 / math.sqrt(2 * model.config.n_layers)
    for name, module in model.named_modules():
        digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        if isinstance(module, nn.Linear | nn.Embedding):
            std = model.config.init_std * (narrower if name.endswith(".out") else 1.0)
            nn.init.normal_(module.weight, std=std, generator=generator)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, DampedSine | CausalWave):
            module.initialise(generator)
