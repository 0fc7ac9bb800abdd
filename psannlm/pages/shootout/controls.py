"""Rows beside the leaderboard: tunings, ablation, scales, equal budgets, and what was learned."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from psannlm.evidence.text import UNKNOWN, interval
from psannlm.pages.shootout.arms import Arm, all_arms
from psannlm.pages.shootout.budgets import at_budget, common_budget
from psannlm.pages.shootout.comparison import Contrast, holm, mean_interval, paired, verdict_of
from psannlm.pages.shootout.plan import Cell, scaled, subsets, tunings
from psannlm.pages.shootout.records import Learned, Score, Setting, TrainingRecord
from psannlm.pages.shootout.results import Trainings, by_seed, ends, good, on_edge, tuned
from psannlm.train.learned import PARTS

BUDGETS = ("tokens", "flops", "seconds")


def tuning_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """One row per finished tuning run, in the order of arms and grids."""
    config = trainings.config
    for cell in tunings(config):
        record, name = trainings.of_cell(cell), cell.arm.name
        if record is None:
            continue
        chosen = trainings.chosen.get(name) == cell.setting
        yield {
            **vars(record),
            "base": name,
            **tuned(name, cell.setting, config),
            "chosen": chosen,
            "grid_edge": chosen and on_edge(cell.arm, cell.setting, config),
        }


def ablation_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """One row per arm and subset of learned parameters, against the arm with all of them learned.

    Differences are paired by seed, and corrected for the other subsets of the arm. The verdict asks
    what that on arms asks, of seeds alone: documents are kept of compared trainings only.
    """
    for name in trainings.config.ablation:
        if name in trainings.chosen:
            yield from _ablation_of(name, trainings)


def _ablation_of(name: str, trainings: Trainings) -> Iterator[dict[str, Any]]:
    arm, setting = all_arms()[name], trainings.chosen[name]
    *frozen, full = subsets()
    losses = {
        subset: by_seed(_side(arm, setting._replace(learnable=subset), trainings))
        for subset in (*frozen, full)
    }
    found = {subset: paired(_gaps(losses[subset], losses[full])) for subset in frozen}
    corrected = dict(zip(frozen, holm([found[subset].p for subset in frozen]), strict=True))
    for subset, mine in losses.items():
        row = {
            "base": name,
            "learnable": " + ".join(subset) or "none",
            "n_seeds": len(mine),
            **interval_of(mine.values()),
            "verdict": "baseline",
        }
        if subset != full:
            difference, p_holm = found[subset], corrected[subset]
            row |= ends("difference", difference) | {
                "p": difference.p,
                "p_holm": p_holm,
                "verdict": verdict_of(Contrast(difference, difference), p_holm),
            }
        yield row


def scale_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """One row per arm and initial scale, with those of compared trainings."""
    for name, scale, setting, records in _scaled(trainings):
        mine = by_seed(records)
        yield {
            "base": name,
            "scale": scale,
            "learning_rate": setting.learning_rate,
            "n_seeds": len(mine),
            "n_failed": len(records) - len(mine),
            **interval_of(mine.values()),
        }


def scale_seed_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """One row per training behind the means of the scales."""
    for name, scale, _, records in _scaled(trainings):
        for seed, loss in by_seed(records).items():
            yield {"base": name, "scale": scale, "seed": seed, "val_loss": loss}


def _scaled(trainings: Trainings) -> Iterator[tuple[str, float, Setting, list[TrainingRecord]]]:
    config = trainings.config
    for name in config.scale_arms:
        if name in trainings.chosen:
            arm = all_arms()[name]
            for scale in config.scales:
                setting = scaled(arm, config, trainings.chosen[name], scale)
                yield name, scale, setting, _side(arm, setting, trainings)


def interval_of(losses: Iterable[float]) -> dict[str, float | None]:
    """Mean loss with its interval, as three columns; None where they are unknown."""
    found = (None if math.isnan(value) else value for value in mean_interval(list(losses)))
    return dict(zip(("val_loss", "val_loss_low", "val_loss_high"), found, strict=True))


def _side(arm: Arm, setting: Setting, trainings: Trainings) -> list[TrainingRecord]:
    """The trainings of that setting with the seeds that side experiments take, as far as there."""
    seeds = trainings.config.seeds[: trainings.config.side_seeds]
    found = [trainings.of_cell(Cell(arm, setting, seed)) for seed in seeds]
    return [record for record in found if record is not None]


def _gaps(mine: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    return [mine[seed] - other[seed] for seed in sorted(mine.keys() & other.keys())]


def matched_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """One row per budget and ranked arm; none for a budget that not all of them reach."""
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
            row |= ends("difference", paired(_gaps(mine, theirs)))
        yield row


def _curve(record: TrainingRecord, budget: str) -> list[tuple[float, float]]:
    """Losses of a training over what it has spent."""
    spent = {
        "tokens": [float(point.tokens) for point in record.curve],
        "flops": [float(point.tokens * record.flops_per_token) for point in record.curve],
        "seconds": [point.seconds for point in record.curve],
    }
    return list(zip(spent[budget], (point.val_loss for point in record.curve), strict=True))


def curve_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """One row per evaluation of a compared training."""
    for record in trainings.finished:
        for point in record.curve:
            flops = point.tokens * record.flops_per_token
            yield _named(record) | point._asdict() | {"flops": flops}


def learned_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """One row per compared training, layer and learned parameter."""
    for record in trainings.finished:
        for learned in record.learned:
            yield _named(record) | dict(zip(Learned._fields, learned, strict=True))


def layer_rows(learned: pd.DataFrame) -> Iterator[dict[str, str]]:
    """One row per arm and layer: means of its learned parameters over seeds, as text."""
    for (base, layer), group in learned.groupby(["base", "layer"], sort=False):
        row = {"base": base, "layer": layer, "n_seeds": f"{group['seed'].nunique()}"}
        means = group.groupby("part")[["before", "after", "low", "high"]].mean()
        for part in PARTS:
            row[part] = UNKNOWN
            if part in means.index:
                before, after, low, high = means.loc[part]
                row[part] = f"{before:.3f} → {interval(after, low, high, '.3f')}"
        yield row


def score_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """One row per compared training and metric of a task."""
    for record in trainings.finished:
        for score in record.scores:
            yield _named(record) | dict(zip(Score._fields, score, strict=True))


def task_rows(scores: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """One row per arm and metric of a task, means over seeds."""
    keys = ["task", "metric", "base"]
    for key, group in scores.groupby(keys, sort=False):
        yield {
            **dict(zip(keys, key, strict=True)),
            "value": float(group["value"].mean()),
            "value_low": group["value"].min(),
            "value_high": group["value"].max(),
            "stderr": group["stderr"].mean(),
            "chance": group["chance"].iloc[0],
            "n_items": int(group["n_items"].iloc[0]),
            "n_seeds": len(group),
        }


def document_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """One row per compared training and document of the validation split, by its number."""
    for record in trainings.finished:
        for number, document in enumerate(record.documents):
            yield _named(record) | {"document": number, **document._asdict()}


def training_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """One row per training, failed ones too, with what was tried."""
    for record in trainings.by_key.values():
        is_tuning = record.seed == trainings.config.tuning_seed
        yield {
            **vars(record),
            **record.setting._asdict(),
            "base": record.arm,
            "part": "compared" if record.final else "tuning" if is_tuning else "control",
            "learned": ", ".join(record.setting.learnable) or "none",
        }


def _named(record: TrainingRecord) -> dict[str, Any]:
    return {"base": record.arm, "seed": record.seed}
