"""GPU-02: half precision gives the loss, the gradients and the course of fp32, but for rounding.

What rounding may do is not guessed: the formulas are computed in float64 with what enters and
leaves each matrix product rounded to the half precision, and their deviation is the yardstick.
Shape letters: B batch, T tokens.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from psannlm.checks import structure
from psannlm.checks.findings import Case, Measure, Result, UncheckableError
from psannlm.checks.networks import (
    Batch,
    Named,
    batches_of,
    difference,
    gradients_of,
    joined,
    loss_of,
    optimizer_of,
    perturbed,
    train_step,
)
from psannlm.checks.reference import CHANGES, Cut, Reference, cut_to, exact, token_losses
from psannlm.device import DTYPES
from psannlm.model.bases import build
from psannlm.model.sine import DampedSine
from psannlm.model.transformer import Transformer

STEPS = 20
"""Of a trajectory."""

STEP_TOKENS = 64
"""Tokens of a step of a trajectory at most."""

SCALES = {"bf16": 1.0, "fp16": 2.0**12}
"""Factors that keep small gradients of a loss in the range of a precision, taken out afterwards."""

ORDERS = 2
"""Twice the yardstick: kernels round at other places than the formulas do."""

KINDS = 4
"""For one kind of parameter, which may be one number a layer, whose error is itself a draw."""


@dataclass(frozen=True)
class Outcome:
    """Loss and gradients on one batch."""

    loss: float
    gradients: Named
    token_losses: Tensor | None = None
    """(B, T), of the formulas only."""


@dataclass(frozen=True)
class Pairs:
    """For each seed, the outcome in full precision and in half."""

    full: Sequence[Outcome]
    half: Sequence[Outcome]

    @property
    def loss(self) -> float:
        """The worst relative difference of a loss."""
        return worst(abs(h.loss - f.loss) / f.loss for f, h in self._each())

    @property
    def token_loss(self) -> float:
        """The worst root mean square difference of token losses, over the loss."""
        return worst(
            (h.token_losses - f.token_losses).square().mean().sqrt().item() / f.loss
            for f, h in self._each()
            if f.token_losses is not None and h.token_losses is not None
        )

    @property
    def gradient(self) -> float:
        """The worst norm of a difference of gradients, over the norm in full precision."""
        return worst(difference(joined(h.gradients), joined(f.gradients)) for f, h in self._each())

    @property
    def turn(self) -> float:
        """The largest 1 - cosine between gradients of all parameters together."""
        pairs = ((joined(f.gradients), joined(h.gradients)) for f, h in self._each())
        return worst(1 - (a @ b / (a.norm() * b.norm())).item() for a, b in pairs)

    @property
    def by_kind(self) -> dict[str, float]:
        """As `gradient`, for each kind of parameter; all layers and seeds of it are joined."""
        full, half = (pooled(o.gradients for o in part) for part in (self.full, self.half))
        return {kind: difference(half[kind], full[kind]) for kind in full}

    def _each(self) -> Iterable[tuple[Outcome, Outcome]]:
        return zip(self.full, self.half, strict=True)


def check(case: Case) -> Result:
    """Compare each precision with fp32, over seeds of weights with text of their own.

    Raises:
        UncheckableError: The device has none of the precisions, or the base no formulas.
    """
    if case.base not in CHANGES:
        raise UncheckableError(f"{case.base} has no formulas in checks/reference.py to round")
    missing = {p: _missing(DTYPES[p], case.device) for p in case.config.precision}
    if all(missing.values()):
        raise UncheckableError("; ".join(f"{p}: {why}" for p, why in missing.items()))
    facts: dict[str, Any] = {f"{p}, skipped": why for p, why in missing.items() if why}
    measures: list[Measure] = []
    seeds = range(case.config.seed, case.config.seed + case.config.n_seeds)
    models = [perturbed(case.network, case.device, seed) for seed in seeds]
    batches = batches_of(case.config, len(models))
    full = [of_network(m, batches.batch(n), "fp32") for n, m in enumerate(models)]
    plain = [of_formulas(m, batches.batch(n), "fp32") for n, m in enumerate(models)]
    course = trajectories(case, "fp32")
    for precision in (p for p, why in missing.items() if not why):
        half = [of_network(m, batches.batch(n), precision) for n, m in enumerate(models)]
        cut = [of_formulas(m, batches.batch(n), precision) for n, m in enumerate(models)]
        found, yardstick = Pairs(full, half), Pairs(plain, cut)
        other = trajectories(case, precision)
        measures += parity_measures(precision, found, yardstick)
        measures += [trajectory_measure(precision, course, other)]
        sines = [m for m in models[0].modules() if isinstance(m, DampedSine)]
        measures += [structure.phase_measure(s, DTYPES[precision], case.device) for s in sines[:1]]
        facts[f"{precision}, gradient by kind"] = found.by_kind
        facts[f"{precision}, losses"] = other[0]
    return Result(measures=tuple(measures), facts=facts | {"fp32, losses": course[0]})


def of_network(model: Transformer, batch: Batch, precision: str) -> Outcome:
    """Of the network as it is trained, in a precision."""
    scale = SCALES.get(precision, 1.0)
    model.zero_grad()
    loss = loss_of(model, batch, precision)
    (loss * scale).backward()  # type: ignore[no-untyped-call]
    return Outcome(loss.item(), gradients_of(model, scale))


def of_formulas(model: Transformer, batch: Batch, precision: str) -> Outcome:
    """Of its formulas in float64, rounded to a half precision around each matrix product."""
    cut: Cut = exact if precision == "fp32" else cut_to(DTYPES[precision])
    scale = SCALES.get(precision, 1.0)
    device = next(model.parameters()).device
    reference = Reference.of(model, torch.float64, cut)
    tokens, targets = (part.to(device) for part in batch)
    losses = token_losses(reference.logits(tokens), targets)
    gradients = reference.gradients(losses.mean() * scale)
    scaled = {name: gradient / scale for name, gradient in gradients.items()}
    return Outcome(losses.mean().item(), scaled, losses.detach())


def parity_measures(precision: str, found: Pairs, yardstick: Pairs) -> list[Measure]:
    """What half precision does to a loss and its gradients, beside what it may do."""
    why = f"{ORDERS} times what rounding each matrix product to {precision} does to the formulas"
    gradient = ORDERS * yardstick.gradient
    kinds = found.by_kind
    kind = max(kinds, key=lambda name: kinds[name])
    return [
        Measure(
            name=f"{precision}: loss against fp32, rel_diff",
            value=found.loss,
            bound=ORDERS * yardstick.token_loss,
            why=f"{why}, token by token as root mean square, which the mean cannot exceed",
        ),
        Measure(
            name=f"{precision}: gradient against fp32, relative norm of the difference",
            value=found.gradient,
            bound=gradient,
            why=why,
        ),
        Measure(
            name=f"{precision}: 1 - cosine between the gradient and that of fp32",
            value=found.turn,
            bound=1 - math.sqrt(max(0.0, 1 - gradient**2)),
            why="the sine of the angle between two vectors is at most their relative difference",
        ),
        Measure(
            name=f"{precision}: gradient of the worst kind of parameter, {kind}, relative",
            value=kinds[kind],
            bound=KINDS * max(yardstick.by_kind.values()),
            why=f"{KINDS} times what rounding does to the worst kind of parameter of the formulas: "
            "a kind with one number a layer has few errors to average",
        ),
    ]


def trajectories(case: Case, precision: str) -> list[list[float]]:
    """Losses before the first steps of a training, for each seed on text of its own."""
    config, scale = case.config, SCALES.get(precision, 1.0)
    length = min(STEP_TOKENS, config.context_length)
    batches = batches_of(config, config.n_seeds, length=length)
    losses = []
    for n in range(config.n_seeds):
        model = build(case.network, seed=config.seed + n, device=case.device)
        optimizer = optimizer_of(model, config)
        # One batch for all steps: a byte that first appears in a later one would take Adam a step
        # of full length along the signs of its gradient, however small and rounded these are.
        batch = batches.batch(n)
        steps = [train_step(model, optimizer, batch, precision, scale) for _ in range(STEPS)]
        losses.append([loss.item() for loss in steps])
    return losses


def trajectory_measure(precision: str, full: list[list[float]], half: list[list[float]]) -> Measure:
    """How far losses of the same steps part, beside what one step gains."""
    gaps = [
        math.sqrt(sum((f - h) ** 2 for f, h in zip(one, other, strict=True)) / len(one))
        for one, other in zip(full, half, strict=True)
    ]
    gains = [(one[0] - one[-1]) / (len(one) - 1) for one in full]
    return Measure(
        name=f"{precision}: losses of {len(full[0])} steps against fp32, root mean square, nats",
        value=worst(gaps),
        bound=min(gains),
        why="what one of these steps gains on average: half precision may not fall behind by it",
    )


def pooled(gradients: Iterable[Named]) -> dict[str, Tensor]:
    """Gradients by kind of parameter, layers and seeds joined."""
    kinds: dict[str, list[Tensor]] = {}
    for one in gradients:
        for name, gradient in one.items():
            kind = re.sub(r"^blocks\.\d+\.", "", name)
            kinds.setdefault(kind, []).append(gradient.flatten())
    return {kind: torch.cat(parts) for kind, parts in kinds.items()}


def worst(values: Iterable[float]) -> float:
    """The largest value; what is no number is the worst of all."""
    return max((v if math.isfinite(v) else math.inf for v in values), default=0.0)


def _missing(dtype: torch.dtype, device: torch.device) -> str | None:
    """Why the device multiplies no matrices of a dtype, or None if it does."""
    try:
        one = torch.ones(2, 2, dtype=dtype, device=device)
        (one @ one).sum().item()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None
