"""Tiny networks for tests: one shape, every option of every base, and weights moved by training."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from psannlm.config.network import ModelConfig
from psannlm.model.bases import build
from psannlm.model.transformer import Transformer

TINY: dict[str, Any] = {
    "base": "respsann",
    "vocab_size": 7,
    "context_length": 24,
    "d_model": 8,
    "n_layers": 2,
    "n_heads": 2,
    "d_mlp": 12,
    "gate_n_fft": 8,
}

OPTIONS: dict[str, dict[str, Any]] = {
    f"{base}-{option}-{value}": {"base": base, option: value}
    for base, option, values in (
        ("transformer", "mlp", ("gelu", "relu_squared", "swiglu", "gelu_scaled")),
        ("respsann", "decay_mode", ("abs", "relu", "none")),
        ("sgrpsann", "gate_mix", ("none", "depthwise", "full")),
        ("sgrpsann", "gate_n_fft", (2, 64)),
        ("waveresnet", "wave", ("none", "interleave", "replace")),
        ("waveresnet", "wave_kernel", (1,)),
    )
    for value in values
}
OPTIONS["waveresnet-no_decay"] = {"base": "waveresnet", "wave": "replace", "decay_mode": "none"}

VARIANTS: dict[str, dict[str, Any]] = {
    f"{name}-{positions}": {**options, "positions": positions}
    for name, options in OPTIONS.items()
    for positions in ("rope", "alibi", "sinusoidal")
}
"""Every base with every option of its own, at each kind of positions."""


def tiny(**overrides: Any) -> ModelConfig:
    """The smallest network that has several heads and layers; keywords override."""
    return ModelConfig(**{**TINY, **overrides})


def moved(config: ModelConfig, seed: int = 0) -> Transformer:
    """A network whose parameters all stand away from their initial values.

    Gates that start at a neutral value, zero biases and equal gains would hide mistakes.
    """
    model = build(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.4 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def tokens_of(config: ModelConfig, batch: int, length: int, seed: int = 2) -> Tensor:
    """Random token ids, (batch, length)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (batch, length), generator=generator)


def batch_of(config: ModelConfig, batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Random token ids and those that follow them, (batch, length) each."""
    rows = tokens_of(config, batch, length + 1)
    return rows[:, :-1], rows[:, 1:]


def loss_and_gradients(
    model: Transformer, tokens: Tensor
) -> tuple[Tensor, dict[str, Tensor | None]]:
    """The loss of the next token, and its gradient by each parameter."""
    loss = cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Give every parameter a value from a normal distribution."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=generator)
