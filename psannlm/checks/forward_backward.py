"""GPU-01: a network computes its formulas, sees no future, and learns the next token.

Shape letters: B batch, T tokens, V vocabulary.
"""

import math
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from psannlm.checks import formulas, networks, structure
from psannlm.checks.findings import Case, Measure, Result
from psannlm.checks.formulas import Exact
from psannlm.checks.networks import EPSILON, Batch, batches_of, loss_of, perturbed
from psannlm.checks.reference import CHANGES
from psannlm.model.bases import build
from psannlm.model.transformer import Transformer
from psannlm.train.batches import Batches

SEQUENCES = 2
"""Sequences on which a network is held to its formulas."""

FIT_TOKENS = 64
"""Tokens of a fitted sequence at most: few steps learn a short text."""

COPY_SCALE = 10.0
"""Of the embeddings of the copying network: positions of size 1 do not blur them."""


def check(case: Case) -> Result:
    """Look at a network before, during and after a short fit to real text."""
    config = case.config
    batches = batches_of(config, config.batch, rows=config.batch)
    fresh = build(case.network, seed=config.seed, device=case.device)
    measures = structure.structure_measures(case, fresh)
    short = min(FIT_TOKENS, config.context_length)
    few = batches_of(config, config.batch, length=short, rows=config.batch)
    fitted, facts = fit_measures(case, fresh, few)
    measures += fitted

    noisy = perturbed(case.network, case.device, config.seed)
    tokens, targets = (part[:SEQUENCES].to(case.device) for part in batches.batch(0))
    batch = tokens, targets
    measures.append(gradient_measure(noisy, batch))
    rounding = EPSILON * case.network.d_mlp
    if case.base in CHANGES:
        exact = Exact.of(noisy, batch)
        rounding = exact.logits_rounding
        measures += formulas.formula_measures(noisy, batch, exact)
    else:
        facts["formulas"] = f"{case.base} has none in checks/reference.py to be held to"
    row = tokens[:1]
    measures += [
        formulas.leak_measure("after the fit", fresh, row, rounding),
        formulas.leak_measure("with noisy parameters", noisy, row, rounding),
    ]
    distinct, counts = structure.distinct_measures(case, noisy, tokens, rounding)
    measures += [*distinct, *label_measures(noisy, batches)]
    return Result(measures=tuple(measures), facts=facts | counts)


def gradient_measure(model: Transformer, batch: Batch) -> Measure:
    """How many parameters that are learned get no gradient, or one that is no number or zero."""
    model.zero_grad()
    loss_of(model, batch).backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    return Measure(
        name="learned parameters without a finite gradient other than zero",
        value=sum(g is None or not (g.isfinite().all() and g.any()) for g in gradients),
        bound=0,
        why="with noisy parameters every one of them has a part in the loss",
    )


def fit_measures(
    case: Case, model: Transformer, batches: Batches
) -> tuple[list[Measure], dict[str, Any]]:
    """Fit the network to the windows of one step and judge its first and last loss.

    Args:
        case: How many steps, and how long.
        model: Freshly built; fitted afterwards.
        batches: Of which step 0 is taken again and again.
    """
    optimizer = networks.optimizer_of(model, case.config)
    batch = batches.batch(0)
    losses = [
        networks.train_step(model, optimizer, batch).item() for _ in range(case.config.fit_steps)
    ]
    with torch.no_grad():
        losses.append(loss_of(model, batch).item())
    spread = case.network.init_std * math.sqrt(case.network.d_model)
    return [
        Measure(
            name="first loss against the logarithm of the vocabulary, nats",
            value=abs(losses[0] - math.log(case.network.vocab_size)),
            bound=spread**2 / 2 + 3 * spread,
            why="features have size 1, so first logits spread by init_std * sqrt(d_model) = s: "
            "their log-sum-exp adds s^2 / 2, and the targets' own lie within 3 s",
        ),
        Measure(
            name=f"loss after {case.config.fit_steps} steps, nats",
            value=losses[-1],
            bound=unigram_entropy(batch[1]),
            why="the entropy of the fitted bytes: what knowing no more than how often each "
            "stands there costs",
        ),
    ], {"losses of the fit, nats": losses}


def unigram_entropy(tokens: Tensor) -> float:
    """Entropy of the frequencies of tokens, in nats."""
    n = tokens.numel()
    shares = [count / n for count in Counter(tokens.flatten().tolist()).values()]
    return -sum(share * math.log(share) for share in shares)


def label_measures(model: Transformer, batches: Batches) -> list[Measure]:
    """The loss of the trainer beside one by hand, and beside that of a network that copies.

    Args:
        model: With parameters that tell tokens apart; becomes a network that copies.
        batches: Those that a training would take.
    """
    batch = batches.batch(0)
    # Not a divisor of B * T: the last chunk is shorter, and must not weigh more for it.
    chunk = max(1, 2 * batch[0].numel() // 5)
    wanted = loss_by_hand(model, text_of(batches))
    with torch.no_grad():
        found = loss_of(model, batch, chunk_tokens=chunk).item()
        copied = loss_of(copying(model), batch, chunk_tokens=chunk).item()
    return [
        Measure(
            name="loss of the trainer against logits[t] and token t + 1 by hand, relative",
            value=abs(found - wanted) / wanted,
            bound=model.config.d_model * EPSILON,
            why="a logit is a sum of d_model products, each of which float32 rounds once",
        ),
        Measure(
            name="loss of a network that repeats its input, nats",
            value=copied,
            bound=math.log(model.config.vocab_size),
            upper=False,
            why="whoever repeats a token where the next is asked for is worse than a blind guess",
        ),
    ]


def text_of(batches: Batches) -> Tensor:
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
