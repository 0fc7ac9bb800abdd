"""Our side of the comparison with the published package."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from psannlm.bench.timing import Loss
from psannlm.config.network import ModelConfig
from psannlm.model.bases import build
from psannlm.model.generate import generate
from psannlm.model.loss import CHUNK_TOKENS
from psannlm.model.transformer import Transformer
from psannlm.train.objective import NextToken


class Ours:
    """Our network as its constructor gives it, trained with the loss that our trainer takes."""

    attention = "fused attention"
    loss = f"loss in chunks of {CHUNK_TOKENS} tokens"
    generation = "a step a token, with memory"
    note = ""

    def __init__(self, task: Mapping[str, Any]) -> None:
        self.task = task

    def network(self, *, checkpointing: bool = False) -> Transformer:
        config = ModelConfig(**{**self.task["model"], "grad_checkpoint": checkpointing})
        return build(config, seed=self.task["seed"], device=self.task["device"])

    def loss_of(self, model: nn.Module, *, compiled: bool) -> Loss:
        """Nats of the next token, a chunk of logits at a time."""
        assert isinstance(model, Transformer)
        return NextToken(model, self.task["precision"], CHUNK_TOKENS, compiled=compiled)

    def generator(self, prompt: list[int]) -> Callable[[], int]:
        """Greedy generation with the memory of earlier tokens."""
        model, ids = self.network().eval(), [torch.tensor(prompt)]
        return lambda: len(generate(model, ids, n_tokens=self.task["new_tokens"])[0])
