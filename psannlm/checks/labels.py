"""Whether a network is trained to predict the next token, and not the one it is given.

Shape letters: B batch, T tokens, D d_model, V vocabulary.
"""

import math

import numpy as np
import torch
from torch import Tensor

from psannlm.checks.findings import Measure
from psannlm.checks.networks import loss_of
from psannlm.model.transformer import Transformer
from psannlm.train.batches import Batches

COPY_SCALE = 10.0
"""Of the embeddings of the copying network: positions of size 1 do not blur them."""


def rows_of(batches: Batches) -> Tensor:
    """The windows of step 0 as they stand in the text, int64 (B, T + 1)."""
    length = batches.context_length
    starts = batches.windows(np.arange(batches.batch_sequences)) * length
    text = np.asarray(batches.tokens.ids).astype(np.int64)
    return torch.from_numpy(np.stack([text[s : s + length + 1] for s in starts]))


def loss_by_hand(model: Transformer, rows: Tensor, shift: int = 1) -> float:
    """Mean nats that logits[t] give to the token at t + shift, token by token in float64.

    Args:
        model: Called without its objective.
        rows: (B, T + 1); logits come from the first T tokens.
        shift: 1 for the next token, 0 for the token itself.
    """
    device = next(model.parameters()).device
    n_tokens = rows.shape[1] - 1
    with torch.no_grad():
        logits = model(rows[:, :-1].to(device)).double().cpu()
    total = 0.0
    for row, logits_of_row in zip(rows, logits, strict=True):
        probabilities = torch.softmax(logits_of_row, -1)
        for t in range(n_tokens):
            total -= math.log(probabilities[t, row[t + shift]].item())
    return total / (len(rows) * n_tokens)


def label_measures(model: Transformer, batches: Batches) -> list[Measure]:
    """The loss of the trainer beside one by hand, and beside that of a network that copies.

    Args:
        model: With parameters that tell tokens apart; becomes a network that copies.
        batches: Those that a training would take.
    """
    batch, rows = batches.batch(0), rows_of(batches)
    # Not a divisor of B * T: the last chunk is shorter, and must not weigh more for it.
    chunk = max(1, 2 * batch[0].numel() // 5)
    wanted = loss_by_hand(model, rows)
    with torch.no_grad():
        found = loss_of(model, batch, chunk_tokens=chunk).item()
        copied = loss_of(copying(model), batch, chunk_tokens=chunk).item()
    vocabulary, width = model.config.vocab_size, model.config.d_model
    return [
        Measure(
            name="loss of the trainer against logits[t] and token t + 1 by hand, relative",
            value=abs(found - wanted) / wanted,
            bound=width * torch.finfo(torch.float32).eps,
            why="a logit is a sum of d_model products, each of which float32 rounds once",
        ),
        Measure(
            name="loss of a network that repeats its input, nats",
            value=copied,
            bound=math.log(vocabulary),
            upper=False,
            why="whoever repeats a token where the next is asked for is worse than a blind guess",
        ),
    ]


@torch.no_grad()
def copying(model: Transformer) -> Transformer:
    """The network with blocks that add nothing and a head that finds the embedding again.

    What writes to the residual stream is a linear map named `out`; at zero, a block is idle. Equal
    lengths make an embedding its own nearest one.
    """
    for name, parameter in model.named_parameters():
        if name.endswith((".out.weight", ".out.bias")):
            parameter.zero_()
    table = torch.nn.functional.normalize(model.embedding.weight, dim=1)
    model.embedding.weight.copy_(COPY_SCALE * model.config.d_model**0.5 * table)
    model.norm.weight.fill_(1.0)
    # The nearest other embedding lies at a cosine below 1; enough of a factor tells them apart.
    nearest = (table @ table.T).fill_diagonal_(-1.0).max().item()
    model.lm_head.weight.copy_(table * 20 / max(1 - nearest, 1e-3) / model.config.d_model**0.5)
    return model
