"""What is timed and counted of our networks: a batch, a forward pass, and the plain loss.

Shape letters: B batch, T tokens, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from psannlm.bench.timing import Loss
from psannlm.device import autocast
from psannlm.model.cost import Shape
from psannlm.model.transformer import Transformer


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
