"""Rows of what compared trainings left beside their losses: curves, learned parameters, scores."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from psannlm.pages.shootout.budgets import at_budget, common_budget
from psannlm.pages.shootout.comparison import paired
from psannlm.pages.shootout.controls import interval_of
from psannlm.pages.shootout.records import Learned, Score, TrainingRecord
from psannlm.pages.shootout.results import Trainings, good

BUDGETS = ("tokens", "flops", "seconds")


def finished(trainings: Trainings) -> list[TrainingRecord]:
    """The compared trainings that came to their end, arm by arm."""
    return good(chain.from_iterable(trainings.compared.values()))


def curve_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """A row an evaluation of a compared training."""
    for record in finished(trainings):
        for point in record.curve:
            flops = point.tokens * record.flops_per_token
            yield {**_named(record), **point._asdict(), "flops": flops}


def matched_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """A row a budget and arm that is ranked; none for a budget that not all of them reach."""
    fit = {name: good(found) for name, found in trainings.fit.items()}
    for budget in BUDGETS:
        curves = {
            name: {record.seed: _curve(record, budget) for record in found}
            for name, found in fit.items()
        }
        amount = common_budget([curve for mine in curves.values() for curve in mine.values()])
        if amount is not None:
            yield from _at(budget, amount, curves, trainings.config.baseline)


def _at(
    budget: str,
    amount: float,
    curves: Mapping[str, Mapping[int, Sequence[tuple[float, float]]]],
    baseline: str,
) -> Iterator[dict[str, Any]]:
    losses = {
        name: {
            seed: loss
            for seed, curve in mine.items()
            if (loss := at_budget(curve, amount)) is not None
        }
        for name, mine in curves.items()
    }
    theirs = losses.get(baseline, {})
    for name, mine in losses.items():
        row = {
            "budget": budget,
            "amount": amount,
            "base": name,
            "n_seeds": len(mine),
            **interval_of(mine.values()),
        }
        if name != baseline and theirs:
            shared = sorted(mine.keys() & theirs.keys())
            found = paired([mine[seed] - theirs[seed] for seed in shared])
            row |= {
                "difference": found.mean,
                "difference_low": found.low,
                "difference_high": found.high,
            }
        yield row


def _curve(record: TrainingRecord, budget: str) -> list[tuple[float, float]]:
    """Losses of a training over what it has spent."""
    spent = {
        "tokens": [float(point.tokens) for point in record.curve],
        "flops": [float(point.tokens * record.flops_per_token) for point in record.curve],
        "seconds": [point.seconds for point in record.curve],
    }
    return list(zip(spent[budget], (point.val_loss for point in record.curve), strict=True))


def learned_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """A row a compared training, layer and learned parameter."""
    for record in finished(trainings):
        for learned in record.learned:
            yield _named(record) | dict(zip(Learned._fields, learned, strict=True))


def score_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """A row a compared training and metric of a task."""
    for record in finished(trainings):
        for score in record.scores:
            values = dict(zip(Score._fields, score, strict=True))
            yield _named(record) | {k: v for k, v in values.items() if k != "items"}


def document_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """A row a compared training and document of the validation split, by its number."""
    for record in finished(trainings):
        for number, document in enumerate(record.documents):
            yield _named(record) | {"document": number, **document._asdict()}


def _named(record: TrainingRecord) -> dict[str, Any]:
    return {"base": record.arm, "seed": record.seed}
