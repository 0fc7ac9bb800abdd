"""A whole training step, the same for whatever network: forward, backward and AdamW.

Needs torch alone, so that the interpreter of another package uses this same file.
Shape letters: B batch, T tokens.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]
"""Tokens and targets, each (B, T), to nats per token, ()."""


def training_step(
    model: nn.Module,
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
