"""GPU-01: a network computes its formulas, sees no future, and learns the next token.

Shape letters: B batch, T tokens, V vocabulary.
"""

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from psannlm.checks import formulas, labels, networks, structure, texts
from psannlm.checks.findings import Case, Measure, Result
from psannlm.checks.formulas import Exact
from psannlm.checks.reference import CHANGES
from psannlm.model.bases import build
from psannlm.model.transformer import Transformer
from psannlm.train.batches import Batches

SEQUENCES = 2
"""Sequences on which a network is held to its formulas."""

FIT_TOKENS = 64
"""Tokens of a fitted sequence at most: few steps learn a short text."""


def check(case: Case) -> Result:
    """Look at a network before, during and after a short fit to real text.

    Raises:
        ConfigError: The corpus is missing, broken or too short.
    """
    config = case.config
    batches = texts.batches_of(config, config.batch, rows=config.batch)
    fresh = build(case.network, seed=config.seed, device=case.device)
    measures = structure.structure_measures(case, fresh)
    short = min(FIT_TOKENS, config.context_length)
    few = texts.batches_of(config, config.batch, length=short, rows=config.batch)
    fitted, facts = fit_measures(case, fresh, few)
    measures += fitted

    noisy = networks.perturbed(case.network, case.device, config.seed)
    tokens, targets = (part[:SEQUENCES].to(case.device) for part in batches.batch(0))
    batch = tokens, targets
    measures.append(gradient_measure(noisy, batch))
    rounding = torch.finfo(torch.float32).eps * case.network.d_mlp
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
    measures += [*distinct, *labels.label_measures(noisy, batches)]
    return Result(measures=tuple(measures), facts=facts | counts)


def gradient_measure(model: Transformer, batch: tuple[Tensor, Tensor]) -> Measure:
    """How many parameters that are learned get no gradient, or one that is no number or zero."""
    model.zero_grad()
    networks.loss_of(model, batch).backward()  # type: ignore[no-untyped-call]
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
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=case.config.learning_rate, fused=True)
    batch = batches.batch(0)
    losses = []
    for _ in range(case.config.fit_steps):
        loss = networks.loss_of(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    with torch.no_grad():
        losses.append(networks.loss_of(model, batch).item())
    blind, frequencies = math.log(case.network.vocab_size), unigram_entropy(batch[1])
    spread = case.network.init_std * math.sqrt(case.network.d_model)
    return [
        Measure(
            name="first loss against the logarithm of the vocabulary, nats",
            value=abs(losses[0] - blind),
            bound=spread**2 / 2 + 3 * spread,
            why="features have size 1, so first logits spread by init_std * sqrt(d_model) = s: "
            "their log-sum-exp adds s^2 / 2, and the targets' own lie within 3 s",
        ),
        Measure(
            name=f"loss after {case.config.fit_steps} steps, nats",
            value=losses[-1],
            bound=frequencies,
            why="the entropy of the fitted bytes: what knowing no more than how often each "
            "stands there costs",
        ),
    ], {"losses of the fit, nats": losses}


def unigram_entropy(tokens: Tensor) -> float:
    """Entropy of the frequencies of tokens, in nats."""
    n = tokens.numel()
    shares = [count / n for count in Counter(tokens.flatten().tolist()).values()]
    return -sum(share * math.log(share) for share in shares)
