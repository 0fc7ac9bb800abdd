"""What is timed and counted of a network: a forward pass, and a whole training step.

Shape letters: B batch, T tokens, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from psannlm.device import autocast
from psannlm.model.cost import Shape
from psannlm.model.transformer import Transformer

Loss = Callable[[Tensor, Tensor], Tensor]
"""Tokens and targets, each (B, T), to nats per token, ()."""


def random_batch(
    vocab_size: int, shape: Shape, *, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Tokens and the tokens that follow them, each (B, T), drawn evenly."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(vocab_size, (shape.batch, shape.tokens + 1), generator=generator)
    return text[:, :-1].contiguous().to(device), text[:, 1:].contiguous().to(device)


def forward_step(
    model: Transformer, tokens: Tensor, *, precision: str, compiled: bool
) -> Callable[[], object]:
    """Logits of a batch in evaluation mode without gradients: the protocol of GPU-03."""
    model.eval()

    def forward(tokens: Tensor) -> Tensor:
        with autocast(tokens.device, precision):
            logits: Tensor = model(tokens)  # (B, T, V)
        return logits

    function = torch.compile(forward) if compiled else forward

    @torch.no_grad()
    def step() -> object:
        return function(tokens)

    return step


def plain_loss(model: Transformer, precision: str) -> Loss:
    """Cross-entropy of the float32 logits of the whole batch."""

    def loss_of(tokens: Tensor, targets: Tensor) -> Tensor:
        with autocast(tokens.device, precision):
            logits = model(tokens)  # (B, T, V)
        return cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    return loss_of


def training_step(
    model: Transformer,
    loss_of: Loss,
    tokens: Tensor,
    targets: Tensor,
    *,
    precision: str,
    learning_rate: float,
) -> tuple[Callable[[], object], Callable[[], Tensor]]:
    """Forward, backward and AdamW on one batch; also a function that tells the latest loss."""
    model.train()
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=learning_rate, fused=True)
    scaler = torch.amp.GradScaler(tokens.device.type, enabled=precision == "fp16")
    latest: list[Tensor] = []

    def step() -> object:
        loss = loss_of(tokens, targets)
        backward: Any = scaler.scale(loss).backward
        backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        latest[:] = [loss.detach()]
        return loss

    return step, lambda: latest[0]
