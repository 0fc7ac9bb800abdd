"""Whether a network computes its formulas, and whether a logit ever sees the future.

Shape letters: B batch, T tokens, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from psannlm.checks.findings import Measure
from psannlm.checks.networks import Batch, Named, difference, gradients_of, joined, loss_of
from psannlm.checks.reference import Reference, token_losses
from psannlm.model.transformer import Transformer

ORDERS = 2
"""Twice the rounding of the formulas in float32: a fast path adds up in an order of its own."""


@dataclass(frozen=True)
class Exact:
    """The formulas of a network in float64 on one batch, and what float32 makes of them."""

    logits: Tensor
    gradients: Named
    logits_rounding: float
    """Relative norm by which float32 logits of the same formulas are off."""

    gradients_rounding: float

    @classmethod
    def of(cls, model: Transformer, batch: Batch) -> "Exact":
        """Of the parameters that the network has now."""
        wide, narrow = (_computed(model, batch, t) for t in (torch.float64, torch.float32))
        return cls(
            *wide,
            logits_rounding=difference(narrow[0], wide[0]),
            gradients_rounding=difference(joined(narrow[1]), joined(wide[1])),
        )


def _computed(model: Transformer, batch: Batch, dtype: torch.dtype) -> tuple[Tensor, Named]:
    """Logits and gradients by the formulas."""
    reference = Reference.of(model, dtype)
    logits = reference.logits(batch[0])
    return logits.detach(), reference.gradients(token_losses(logits, batch[1]).mean())


def formula_measures(model: Transformer, batch: Batch, exact: Exact) -> list[Measure]:
    """Logits and gradients of the fast network beside those of its formulas."""
    model.zero_grad()
    loss_of(model, batch).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        logits = model(batch[0])
    gradients = joined(gradients_of(model))
    return [
        Measure(
            name=f"{kind} against the formulas in float64, relative norm of the difference",
            value=difference(found, wanted),
            bound=ORDERS * rounding,
            why="twice what float32 rounding alone does to the same formulas, written a second "
            "time",
        )
        for kind, found, wanted, rounding in (
            ("logits", logits, exact.logits, exact.logits_rounding),
            ("gradients", gradients, joined(exact.gradients), exact.gradients_rounding),
        )
    ]


def leak(model: Transformer, tokens: Tensor) -> float:
    """How far changed tokens move logits before them, over the largest logit.

    Changes the first, the middle and the last token and those at its quarters, one at a time, in
    training mode and in evaluation mode; the worst of all is told.

    Args:
        model: Its mode is what it was afterwards.
        tokens: (1, T).
    """
    length, was_training = tokens.shape[1], model.training
    places = sorted({0, min(1, length - 1), length // 4, length // 2, 3 * length // 4, length - 1})
    changed = tokens.repeat(len(places) + 1, 1)
    for row, place in enumerate(places, start=1):
        changed[row, place] = (changed[row, place] + 1) % model.config.vocab_size
    worst = 0.0
    for training in (True, False):
        with torch.no_grad():
            logits = model.train(training)(changed).double()
        for row, place in enumerate(places, start=1):
            moved = (logits[row, :place] - logits[0, :place]).abs()
            worst = max(worst, moved.max().item() if place else 0.0)
        worst = worst if logits.isfinite().all() else float("inf")
    model.train(was_training)
    return worst / float(logits.abs().max().item())


def leak_measure(name: str, model: Transformer, tokens: Tensor, rounding: float) -> Measure:
    """The leak of a network beside what rounding alone may do."""
    return Measure(
        name=f"largest change of a logit before a changed token, {name}, over the largest logit",
        value=leak(model, tokens),
        bound=rounding,
        why="nothing but rounding may differ, and float32 rounding moves logits by this much",
    )
