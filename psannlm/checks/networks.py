"""Networks under a check: built, moved away from their initial values, and what they compute."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from psannlm.config.network import ModelConfig
from psannlm.model.bases import build
from psannlm.model.loss import CHUNK_TOKENS
from psannlm.model.transformer import Transformer
from psannlm.train.objective import NextToken

Named = Mapping[str, Tensor]
"""Tensors by the names of the parameters that they belong to."""

VECTOR_NOISE = 0.3
"""Noise of what is no matrix: gains, biases, sine parameters, filters, scalars."""


def perturbed(config: ModelConfig, device: torch.device, seed: int) -> Transformer:
    """A network with all parameters noisy.

    What starts neutral, such as alpha = 1 or a bias of zero, would hide mistakes. A matrix gets
    noise of 1 / sqrt(its inputs), so that features keep their size from layer to layer. Noise is
    drawn by name: two networks with the same parameters get the same.
    """
    model = build(config, seed=seed)
    matrices = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            digest = hashlib.sha256(f"noise {seed} {name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            size = parameter.shape[1] ** -0.5 if name in matrices else VECTOR_NOISE
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model.to(device)


def loss_of(
    model: Transformer,
    batch: tuple[Tensor, Tensor],
    precision: str = "fp32",
    chunk_tokens: int = CHUNK_TOKENS,
) -> Tensor:
    """The loss that the trainer minimises on a batch, in training mode."""
    device = next(model.parameters()).device
    objective = NextToken(model, precision, chunk_tokens).train()
    loss: Tensor = objective(*(part.to(device) for part in batch))
    return loss


def gradients_of(model: Transformer, scale: float = 1.0) -> dict[str, Tensor]:
    """The gradient of each learned parameter over `scale`, in float64; zeros if it has none."""
    named = model.named_parameters(remove_duplicate=False)
    learned = {name: p for name, p in named if p.requires_grad}
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in learned.items()}
    return {name: gradient.double() / scale for name, gradient in found.items()}


def difference(found: Tensor, wanted: Tensor) -> float:
    """The norm of the difference over the norm of what is wanted; 0 if both are zero."""
    exact = wanted.detach().double()
    gap = float((found.detach().double() - exact).norm())
    return gap and gap / max(float(exact.norm()), torch.finfo(torch.float32).tiny)


def joined(named: Named) -> Tensor:
    """All tensors in one, float64, in the order of their names."""
    return torch.cat([named[name].double().flatten() for name in sorted(named)])
