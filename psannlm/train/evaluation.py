"""What is reported of a network: how well it predicts a split, every token of it once."""

import itertools
from dataclasses import dataclass

import torch
from torch import nn

from psannlm.model.loss import IGNORED
from psannlm.train import journal
from psannlm.train.batches import evaluation_windows
from psannlm.train.distributed import Ranks
from psannlm.train.shards import Tokens


@dataclass(frozen=True)
class Evaluation:
    """How well a network predicts a split, every token of it."""

    loss: float
    """Nats a token."""

    top1: float
    """Share of tokens that were the likeliest."""

    n_tokens: int
    n_bytes: int
    """UTF-8 bytes of the text that the tokens spell."""

    @property
    def perplexity(self) -> float:
        """Exponential of the loss; comparable between equal tokenizers only."""
        return journal.perplexity(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits that the network needs for a byte of the text; comparable between tokenizers."""
        return journal.bits_per_byte(self.loss, self.n_bytes / self.n_tokens)


@torch.no_grad()
def evaluate(
    objective: nn.Module, tokens: Tokens, *, context_length: int, batch: int, ranks: Ranks
) -> Evaluation:
    """Evaluate on a whole split.

    Args:
        objective: A `NextToken`, shared between ranks or not.
        tokens: The split.
        context_length: T; windows of that length follow one another without overlap.
        batch: Windows at a time.
        ranks: Each takes every world-th batch.
    """
    was_training = objective.training
    objective.eval()
    sums = torch.zeros(3, dtype=torch.float64, device=ranks.device)
    windows = evaluation_windows(tokens, context_length, batch)
    while group := tuple(itertools.islice(windows, ranks.world)):
        # Every rank calls the network equally often, as FSDP2 gathers weights in each call.
        inputs, targets = group[min(ranks.rank, len(group) - 1)]
        if ranks.rank >= len(group):
            targets = torch.full_like(targets, IGNORED)
        sums += objective(inputs.to(ranks.device), targets.to(ranks.device))
    objective.train(was_training)
    nats, hits, count = ranks.sum(sums).tolist()
    return Evaluation(nats / count, hits / count, int(count), tokens.n_bytes)
