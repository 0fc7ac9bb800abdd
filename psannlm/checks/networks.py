"""Networks under a check, the real text they are fed, and what they compute from it.

Shape letters: B batch, T tokens, N windows.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from psannlm import ROOT
from psannlm.checks.config import ValidationConfig
from psannlm.config.network import ModelConfig
from psannlm.config.schema import ConfigError
from psannlm.corpora.corpus import load
from psannlm.model.bases import build
from psannlm.model.loss import CHUNK_TOKENS
from psannlm.model.transformer import Transformer
from psannlm.train.batches import Batches
from psannlm.train.objective import NextToken
from psannlm.train.shards import Tokens, stream
from psannlm.train.tokenizer import byte_tokenizer

Batch = tuple[Tensor, Tensor]
"""Tokens and targets, each (B, T)."""

Named = Mapping[str, Tensor]
"""Tensors by the names of the parameters that they belong to."""

EPSILON = torch.finfo(torch.float32).eps
"""Distance from 1 to the next float32."""

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


def batches_of(
    config: ValidationConfig, n_windows: int, *, length: int | None = None, rows: int = 1
) -> Batches:
    """Batches over the first N = `n_windows` windows of the training split, a token a byte.

    Args:
        config: Its corpus and seed are read.
        n_windows: N.
        length: T; None for the context length.
        rows: B.
    """
    length = length or config.context_length
    return Batches(tokens_of(config, n_windows * length + 1), length, rows, config.seed)


def passages(config: ValidationConfig, count: int, length: int) -> Tensor:
    """Token ids, int64 (count, length): passages of the training split, one after the other.

    The mark that begins its first document is left out, so that all is text up to its end.
    """
    tokens = tokens_of(config, count * length + 1)
    return torch.from_numpy(tokens.ids[1:].astype(np.int64)).view(count, length)


def tokens_of(config: ValidationConfig, n_tokens: int) -> Tokens:
    """The first tokens of the training split of the corpus.

    Raises:
        ConfigError: The corpus is missing, broken or too short, or the vocabulary has no bytes.
    """
    path = ROOT / config.corpus
    parts = stream(load(path).texts("train", n_tokens), byte_tokenizer())
    ids = np.asarray([token for part, _ in parts for token in part][:n_tokens], dtype=np.uint16)
    if len(ids) < n_tokens:
        raise ConfigError(
            f"{path} must hold {n_tokens:,} bytes of training text, got {len(ids):,}; "
            "name a longer corpus, or shorten batch or context_length"
        )
    sha256 = hashlib.sha256(ids.tobytes()).hexdigest()
    tokens = Tokens(ids, n_bytes=n_tokens, sha256=sha256)
    tokens.check(config.vocab_size)
    return tokens


def loss_of(
    model: Transformer, batch: Batch, precision: str = "fp32", chunk_tokens: int = CHUNK_TOKENS
) -> Tensor:
    """The loss that the trainer minimises on a batch, in training mode."""
    device = next(model.parameters()).device
    objective = NextToken(model, precision, chunk_tokens).train()
    loss: Tensor = objective(*(part.to(device) for part in batch))
    return loss


def optimizer_of(module: nn.Module, config: ValidationConfig, **options: Any) -> AdamW:
    """AdamW of all learned parameters at one learning rate."""
    learned = [p for p in module.parameters() if p.requires_grad]
    return AdamW(learned, lr=config.learning_rate, fused=True, **options)


def train_step(
    model: Transformer,
    optimizer: Optimizer,
    batch: Batch,
    precision: str = "fp32",
    scale: float = 1.0,
) -> Tensor:
    """Take one optimizer step on a batch; returns the loss before it.

    Args:
        model: All its learned parameters are the optimizer's.
        optimizer: Its gradients must be unset.
        batch: (B, T) each, on any device.
        precision: Of the products.
        scale: Of the loss in backward, taken out of the gradients afterwards.
    """
    loss = loss_of(model, batch, precision)
    (loss * scale).backward()  # type: ignore[no-untyped-call]
    if scale != 1:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad /= scale
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def gradients_of(model: Transformer, scale: float = 1.0) -> dict[str, Tensor]:
    """The gradient of each learned parameter over `scale`, in float64; zeros if it has none."""
    named = model.named_parameters(remove_duplicate=False)
    learned = {name: p for name, p in named if p.requires_grad}
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in learned.items()}
    return {name: gradient.double() / scale for name, gradient in found.items()}


def difference(found: Tensor, wanted: Tensor, terms: Tensor | None = None) -> float:
    """|found - wanted| / |wanted| in float64, or over |terms| if that is larger.

    What cancels by chance is small beside the terms that it is a sum of, and its rounding is not.
    Zero if both are equal, else infinite if all that it is divided by is zero.
    """
    exact = wanted.detach().double()
    gap = float((found.detach().double() - exact).norm())
    size = float(exact.norm())
    if terms is not None:
        size = max(size, float(terms.detach().double().norm()))
    return gap and (gap / size if size else float("inf"))


def joined(named: Named) -> Tensor:
    """All tensors in one, float64, in the order of their names."""
    return torch.cat([named[name].double().flatten() for name in sorted(named)])
