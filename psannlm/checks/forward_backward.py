"""GPU-01: a network computes its formulas, sees no future, and learns the next token.

Shape letters: B batch, T tokens, V vocabulary.
"""

import math
from typing import Any

import numpy as np
import torch
from scipy.stats import entropy
from torch import Tensor

from psannlm.checks import networks, structure
from psannlm.checks.findings import Case, Measure, Result
from psannlm.checks.networks import EPSILON, Batch, difference, gradients_of, joined, leak, loss_of
from psannlm.checks.reference import CHANGES, Reference, token_losses
from psannlm.model.bases import build
from psannlm.model.transformer import Transformer
from psannlm.train.plan import Batches

SEQUENCES = 2  # on which a network is held to its formulas
FIT_TOKENS = 64  # of a fitted sequence at most: few steps learn a short text
ORDERS = 2
"""Twice the rounding of the formulas in float32: a fast path adds up in an order of its own."""
COPY_SCALE = 10.0  # of the embeddings of the copying network: positions of size 1 do not blur them


def check(case: Case) -> Result:
    """Look at a network before, during and after a short fit to real text."""
    config = case.config
    fresh = build(case.network, seed=config.seed, device=case.device)
    measures = structure.structure_measures(case, fresh)
    short = min(FIT_TOKENS, config.context_length)
    few = networks.batches_of(config, config.batch, length=short, rows=config.batch).batch(0)
    losses = fit(case, fresh, few)
    measures += fit_measures(case, losses, few[1])
    facts: dict[str, Any] = {"losses of the fit, nats": losses}

    noisy = networks.perturbed(case.network, case.device, config.seed)
    batches = networks.batches_of(config, config.batch, rows=config.batch)
    tokens, targets = (part[:SEQUENCES].to(case.device) for part in batches.batch(0))
    measures.append(gradient_measure(noisy, (tokens, targets)))
    rounding = EPSILON * case.network.d_mlp
    if case.base in CHANGES:
        exact, rounding = formula_measures(noisy, (tokens, targets))
        measures += exact
    else:
        facts["formulas"] = f"{case.base} has none in checks/reference.py to be held to"
    for name, model in (("after the fit", fresh), ("with noisy parameters", noisy)):
        measures.append(leak_measure(name, model, tokens[:1], rounding))
    distinct, counts = structure.distinct_measure(case, noisy, tokens, rounding)
    measures += [distinct, *label_measures(noisy, batches)]
    return Result(measures=measures, facts=facts | counts)


def fit(case: Case, model: Transformer, batch: Batch) -> list[float]:
    """Fit a network to one batch; its losses before each step, and after the last."""
    optimizer = networks.optimizer_of(model, case.config)
    steps = range(case.config.fit_steps)
    losses = [networks.train_step(model, optimizer, batch).item() for _ in steps]
    with torch.no_grad():
        return [*losses, loss_of(model, batch).item()]


def fit_measures(case: Case, losses: list[float], targets: Tensor) -> list[Measure]:
    """The first and the last loss of a fit."""
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
            bound=float(entropy(np.bincount(targets.flatten()))),
            why="the entropy of the fitted bytes: what knowing no more than how often each "
            "stands there costs",
        ),
    ]


def gradient_measure(model: Transformer, batch: Batch) -> Measure:
    """How many parameters that are learned get no gradient, or one that is no number or zero."""
    gradients = gradients_of(model, loss_of(model, batch)).values()
    return Measure(
        name="learned parameters without a finite gradient other than zero",
        value=sum(not (g.isfinite().all() and g.any()) for g in gradients),
        bound=0,
        why="with noisy parameters every one of them has a part in the loss",
    )


def formula_measures(model: Transformer, batch: Batch) -> tuple[list[Measure], float]:
    """Logits and gradients of the fast network beside those of its formulas.

    Returned besides is how far float32 logits of the same formulas are off, as a relative norm.
    """
    exact, rounded = (_by_formulas(model, batch, t) for t in (torch.float64, torch.float32))
    gradients = joined(gradients_of(model, loss_of(model, batch)))
    with torch.no_grad():
        found = model(batch[0]), gradients
    roundings = [difference(r, e) for r, e in zip(rounded, exact, strict=True)]
    measures = [
        Measure(
            name=f"{kind} against the formulas in float64, relative norm of the difference",
            value=difference(f, e),
            bound=ORDERS * rounding,
            why="twice what float32 rounding alone does to the same formulas, written a second "
            "time",
        )
        for kind, f, e, rounding in zip(
            ("logits", "gradients"), found, exact, roundings, strict=True
        )
    ]
    return measures, roundings[0]


def _by_formulas(model: Transformer, batch: Batch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Logits, and all gradients in one."""
    reference = Reference.of(model, dtype)
    logits = reference.logits(batch[0])
    gradients = reference.gradients(token_losses(logits, batch[1]).mean())
    return logits.detach(), joined(gradients)


def leak_measure(name: str, model: Transformer, tokens: Tensor, rounding: float) -> Measure:
    """The leak of a network beside what rounding alone may do."""
    return Measure(
        name=f"largest change of a logit before a changed token, {name}, over the largest logit",
        value=leak(model, tokens),
        bound=rounding,
        why="nothing but rounding may differ, and float32 rounding moves logits by this much",
    )


def label_measures(model: Transformer, batches: Batches) -> list[Measure]:
    """The loss of the trainer beside one by hand, and beside that of a network that copies.

    `model` has parameters that tell tokens apart, and becomes a network that copies.
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


def loss_by_hand(model: Transformer, rows: Tensor) -> float:
    """Mean nats that logits[t] give to the token at t + 1 of rows, (B, T + 1), in float64."""
    with torch.no_grad():
        logits = model(rows[:, :-1].to(next(model.parameters()).device)).double().cpu()
    probabilities = logits.softmax(-1).gather(2, rows[:, 1:, None])
    return float(-probabilities.log().mean())


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
