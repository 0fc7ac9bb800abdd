"""What is reported of a network: how well it predicts a split, every token of it once.

Shape letters: b windows at a time, T tokens of each.
"""

import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from psannlm.model.loss import IGNORED
from psannlm.train.data import Tokens
from psannlm.train.distributed import Ranks


class Document(NamedTuple):
    """How well a network predicts one document, and the end of text after it."""

    nats: float
    n_tokens: int


@dataclass(frozen=True)
class Evaluation:
    """How well a network predicts a split, every token of it."""

    loss: float  # nats a token
    top1: float  # share of tokens that were the likeliest
    n_tokens: int
    n_bytes: int  # UTF-8 bytes of the text that the tokens spell
    documents: tuple[Document, ...] = ()  # in the order of the split; their nats add up to the loss

    @property
    def perplexity(self) -> float:
        """Exponential of the loss; comparable between equal tokenizers only."""
        return perplexity(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits that the network needs for a byte of the text; comparable between tokenizers."""
        return bits_per_byte(self.loss, self.n_bytes / self.n_tokens)


def perplexity(loss: float) -> float:
    """exp(loss), of a loss in nats per token; infinite where a float cannot hold it."""
    return math.exp(loss) if loss < math.log(sys.float_info.max) else math.inf


def bits_per_byte(loss: float, bytes_per_token: float) -> float:
    """Loss / ln 2 / bytes per token: comparable between tokenizers, and with compressors."""
    return loss / math.log(2) / bytes_per_token


@torch.no_grad()
def evaluate(
    objective: nn.Module, tokens: Tokens, context_length: int, *, batch: int, ranks: Ranks
) -> Evaluation:
    """Evaluate a `NextToken`, shared between ranks or not, on a whole split.

    Windows of T = `context_length` tokens follow one another without overlap; each rank takes every
    world-th `batch` of them.
    """
    was_training = objective.training
    objective.eval()
    n_documents = int(np.count_nonzero(tokens.ids[:-1] == tokens.ids[0]))
    # Of nats, hits and tokens: the sum over the split, then that of each document.
    sums = torch.zeros(3, 1 + n_documents, dtype=torch.float64, device=ranks.device)
    windows = evaluation_windows(tokens, context_length, batch)
    while group := tuple(itertools.islice(windows, ranks.world)):
        # Every rank calls the network equally often, as FSDP2 gathers weights in each call.
        inputs, targets, numbers = group[min(ranks.rank, len(group) - 1)]
        if ranks.rank >= len(group):
            targets = torch.full_like(targets, IGNORED)
        targets = targets.to(ranks.device)
        losses, hits = objective(inputs.to(ranks.device), targets)
        rows = torch.stack([losses, hits, targets.flatten() != IGNORED]).double()  # (3, b * T)
        sums[:, 0] += rows.sum(1)
        sums.index_add_(1, numbers.to(ranks.device), rows)
    objective.train(was_training)
    (nats, right, count), *found = ranks.sum(sums).T.tolist()
    documents = tuple(Document(own, int(n_tokens)) for own, _, n_tokens in found)
    return Evaluation(nats / count, right / count, int(count), tokens.n_bytes, documents)


def evaluation_windows(
    tokens: Tokens, context_length: int, batch: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """All predicted tokens of a split, each once and in order, in b = `batch` windows at once.

    Token ids and the ids that follow them, each int64 (b, T), and the number of the document of
    each that follows, (b * T,). What the last batch has no tokens for has the target IGNORED.
    """
    ids, size = np.asarray(tokens.ids), batch * context_length
    # From 1: a split begins with an end of text, and as many stand before a token.
    numbers = np.cumsum(ids[:-1] == ids[0])
    for start in range(0, tokens.n_predicted, size):
        part = torch.from_numpy(ids[start : start + size + 1].astype(np.int64))
        fill = (0, size + 1 - len(part))
        inputs, targets = pad(part[:-1], fill), pad(part[1:], fill, value=IGNORED)
        of_documents = pad(torch.from_numpy(numbers[start : start + size]), fill)
        yield inputs.view(batch, -1), targets.view(batch, -1), of_documents
