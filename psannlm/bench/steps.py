"""What is timed and counted of our networks: the task of a process, a batch, steps and peaks.

Shape letters: B batch, T tokens, V vocabulary.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from psannlm.bench.timing import Loss, Timing, stopwatch_for, time_steps
from psannlm.config.network import ModelConfig
from psannlm.device import autocast
from psannlm.model.cost import Shape
from psannlm.model.transformer import Transformer

SETTINGS = {"device", "min_seconds", "min_steps", "learning_rate", "seed"}
"""What tasks take from the configuration of a run as it is."""


@dataclass(frozen=True, kw_only=True)
class NetworkTask:
    """What one process measures of one network; its subclass stands in the module of its worker."""

    model: Mapping[str, Any]  # a ModelConfig; sequences are as long as its context_length
    batch_tokens: int
    modes: tuple[str, ...]
    precision: str
    device: str
    min_seconds: float
    min_steps: int
    learning_rate: float
    seed: int

    @property
    def worker(self) -> tuple[str, ...]:
        """The command that measures it."""
        return (sys.executable, "-m", type(self).__module__)

    @property
    def config(self) -> ModelConfig:
        """The network."""
        return ModelConfig(**self.model)

    @property
    def shape(self) -> Shape:
        """Of the batch."""
        length = self.config.context_length
        return Shape(self.batch_tokens // length, length)

    def timing_of(self, step: Callable[[], object], device: torch.device) -> Timing:
        """What a step takes once it runs steadily."""
        watch, least = stopwatch_for(device), self.min_seconds
        return time_steps(step, stopwatch=watch, min_seconds=least, min_steps=self.min_steps)


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


def finite_loss(last_loss: Callable[[], Tensor], n_steps: int) -> float:
    """The loss after `n_steps` timed steps; raises ArithmeticError if it is not finite."""
    loss = float(last_loss())
    if not math.isfinite(loss):
        raise ArithmeticError(f"loss is {loss} after {n_steps} timed steps")
    return loss


def cuda_peaks(device: torch.device) -> dict[str, int]:
    """Most bytes that torch's allocator had handed out and reserved on a GPU; empty on a CPU."""
    if device.type != "cuda":
        return {}
    return {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
    }
