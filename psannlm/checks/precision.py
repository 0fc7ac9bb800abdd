"""GPU-02: half precision gives the loss, the gradients and the course of fp32, but for rounding.

What rounding may do is not guessed: the formulas are computed in float64 with what enters and
leaves each matrix product rounded to the half precision, and their deviation is the yardstick.
Shape letters: B batch, T tokens.
"""

import collections
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from psannlm.checks import networks, reference
from psannlm.checks.findings import Case, Measure, Result, UncheckableError
from psannlm.checks.forward_backward import phase_measure
from psannlm.checks.networks import Batch, Named, difference, joined
from psannlm.checks.reference import CHANGES
from psannlm.device import DTYPES
from psannlm.model.bases import build
from psannlm.model.sine import DampedSine
from psannlm.model.transformer import Transformer

STEPS = 20  # of a trajectory
# Factors that keep small gradients of a loss in the range of a precision, taken out afterwards.
SCALES = {"fp32": 1.0, "bf16": 1.0, "fp16": 2.0**12}
ORDERS = 2  # times the yardstick: kernels round at other places than the formulas do
KINDS = 4  # for one kind of parameter, maybe one number a layer, whose error is itself a draw


class Outcome(NamedTuple):
    """What a network, or its formulas, make of one batch."""

    losses: Tensor  # float64, of each token where formulas tell them, else their mean alone
    gradients: Named


class Gaps(NamedTuple):
    """How far half precision is from full precision, at the worst of all seeds."""

    loss: float  # root mean square of the differences of losses, over the mean loss
    gradient: float  # norm of the difference over the norm in full precision
    turn: float  # 1 - cosine between gradients of all parameters together
    by_kind: Mapping[str, float]  # as `gradient`, of a kind of parameter in all layers and seeds


def gaps(full: Sequence[Outcome], half: Sequence[Outcome]) -> Gaps:
    """Compare the outcomes of the same seeds."""
    pairs = list(zip(full, half, strict=True))
    gradients = [(joined(f.gradients), joined(h.gradients)) for f, h in pairs]
    losses = ((h.losses - f.losses).square().mean().sqrt() / f.losses.mean() for f, h in pairs)
    of_full, of_half = (pooled(outcome.gradients for outcome in part) for part in (full, half))
    return Gaps(
        loss=worst(loss.item() for loss in losses),
        gradient=worst(difference(h, f) for f, h in gradients),
        turn=worst(1 - cosine_similarity(f, h, dim=0).item() for f, h in gradients),
        by_kind={kind: difference(of_half[kind], of_full[kind]) for kind in of_full},
    )


def check(case: Case) -> Result:
    """Compare each precision with fp32, over seeds of weights with text of their own.

    What the device emulates is compared in a tiny shape, which the facts name.
    """
    if case.base not in CHANGES:
        raise UncheckableError(f"{case.base} has no formulas in checks/reference.py to round")
    missing = {p: networks.missing_products(case.device, p) for p in case.config.precision}
    if all(missing.values()):
        raise UncheckableError("; ".join(f"{p}: {why}" for p, why in missing.items()))
    facts: dict[str, Any] = {f"{p}, skipped": why for p, why in missing.items() if why}
    cases = {p: case.in_precision(p) for p, why in missing.items() if not why}
    small = [p for p, there in cases.items() if there is not case]
    facts |= {f"{p}, emulated": cases[p].shape for p in small}
    measures: list[Measure] = []
    for precisions in ([p for p in cases if p not in small], small):
        if precisions:
            found = _compared(cases[precisions[0]], precisions)
            measures += found.measures
            facts |= found.facts
    return Result(measures=measures, facts=facts)


def _compared(case: Case, precisions: Sequence[str]) -> Result:
    """Compare precisions with fp32 in the shape of the case."""
    measures: list[Measure] = []
    facts: dict[str, Any] = {}
    seeds = range(case.config.seed, case.config.seed + case.config.n_seeds)
    models = [networks.perturbed(case.network, case.device, seed) for seed in seeds]
    batches = networks.batches_of(case.config, len(models))
    given = [(model, batches.batch(n)) for n, model in enumerate(models)]
    full = [of_network(*one, "fp32") for one in given]
    exact = [of_formulas(*one, "fp32") for one in given]
    course = trajectories(case, "fp32")
    for precision in precisions:
        found = gaps(full, [of_network(*one, precision) for one in given])
        yardstick = gaps(exact, [of_formulas(*one, precision) for one in given])
        measures += parity_measures(precision, found, yardstick)
        other = trajectories(case, precision)
        measures.append(trajectory_measure(precision, course, other))
        sines = [m for m in models[0].modules() if isinstance(m, DampedSine)]
        measures += [phase_measure(sine, DTYPES[precision]) for sine in sines[:1]]
        facts[f"{precision}, gradient by kind"] = found.by_kind
        facts[f"{precision}, losses"] = other[0]
    return Result(measures=measures, facts=facts | {"fp32, losses": course[0]})


def of_network(model: Transformer, batch: Batch, precision: str) -> Outcome:
    """Of the network as it is trained, in a precision."""
    loss = networks.loss_of(model, batch, precision)
    return Outcome(loss.detach().double(), networks.gradients_of(model, loss, SCALES[precision]))


def of_formulas(model: Transformer, batch: Batch, precision: str) -> Outcome:
    """Of its formulas in float64, rounded to a half precision around each matrix product."""
    cut = reference.exact if precision == "fp32" else reference.cut_to(DTYPES[precision])
    formulas = reference.Reference.of(model, torch.float64, cut)
    tokens, targets = (part.to(model.embedding.weight.device) for part in batch)
    losses = reference.token_losses(formulas.logits(tokens), targets)
    gradients = networks.gradients_of(formulas.weights, losses.mean(), SCALES[precision])
    return Outcome(losses.detach(), gradients)


def parity_measures(precision: str, found: Gaps, yardstick: Gaps) -> list[Measure]:
    """What half precision does to a loss and its gradients, beside what it may do."""
    why = f"{ORDERS} times what rounding each matrix product to {precision} does to the formulas"
    gradient = ORDERS * yardstick.gradient
    kind = max(found.by_kind, key=lambda name: found.by_kind[name])
    return [
        Measure(
            name=f"{precision}: loss against fp32, rel_diff",
            value=found.loss,
            bound=ORDERS * yardstick.loss,
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
            value=found.by_kind[kind],
            bound=KINDS * max(yardstick.by_kind.values()),
            why=f"{KINDS} times what rounding does to the worst kind of parameter of the formulas: "
            "a kind with one number a layer has few errors to average",
        ),
    ]


def trajectories(case: Case, precision: str) -> list[list[float]]:
    """Losses before the first steps of a training, for each seed on text of its own."""
    config = case.config
    length = min(64, config.context_length)
    batches = networks.batches_of(config, config.n_seeds, length=length)
    losses = []
    for n in range(config.n_seeds):
        model = build(case.network, seed=config.seed + n, device=case.device)
        optimizer = networks.optimizer_of(model, config)
        # One batch for all steps: a byte that first appears in a later one would take Adam a step
        # of full length along the signs of its gradient, however small and rounded these are.
        given = model, optimizer, batches.batch(n), precision, SCALES[precision]
        losses.append([networks.train_step(*given).item() for _ in range(STEPS)])
    return losses


def trajectory_measure(precision: str, full: list[list[float]], half: list[list[float]]) -> Measure:
    """How far losses of the same steps part, beside what one step gains."""
    gains = [(one[0] - one[-1]) / (len(one) - 1) for one in full]
    return Measure(
        name=f"{precision}: losses of {len(full[0])} steps against fp32, root mean square, nats",
        value=worst((torch.tensor(full) - torch.tensor(half)).square().mean(1).sqrt().tolist()),
        bound=min(gains),
        why="what one of these steps gains on average: half precision may not fall behind by it",
    )


def pooled(gradients: Iterable[Named]) -> dict[str, Tensor]:
    """Gradients by kind of parameter, layers and seeds joined."""
    kinds: dict[str, list[Tensor]] = collections.defaultdict(list)
    for name, gradient in (item for one in gradients for item in one.items()):
        kinds[re.sub(r"^blocks\.\d+\.", "", name)].append(gradient.flatten())
    return {kind: torch.cat(parts) for kind, parts in kinds.items()}


def worst(values: Iterable[float]) -> float:
    """The largest value; what is no number is the worst of all."""
    return max((v if math.isfinite(v) else math.inf for v in values), default=0.0)
