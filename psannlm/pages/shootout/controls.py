"""Rows beside the leaderboard: tunings, ablation, scales, equal budgets, and what was learned."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from psannlm.evidence.table import plain_rows
from psannlm.evidence.text import UNKNOWN, interval
from psannlm.pages.shootout import plan
from psannlm.pages.shootout.arms import all_arms
from psannlm.pages.shootout.comparison import (
    Comparison,
    Finals,
    by_seed,
    compare,
    finished,
    holm,
    over_seeds,
)
from psannlm.pages.shootout.records import Setting, TrainingRecord
from psannlm.pages.shootout.results import Trainings, ends, loss_columns, on_edge, tuned
from psannlm.train.pretrained import PARTS

SINE, SCALED, PLAIN = "respsann", "gelu_scaled", "gelu"
"""The damped sine; gelu with the same learned gains, before and after it; gelu by itself."""

Curve = list[tuple[float, float]]  # amounts spent so far, each with the loss that was reached


def tuning_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """One row per finished tuning run, in the order of arms and grids."""
    config = trainings.config
    for cell in plan.tunings(config):
        record, name = trainings.of_cell(cell), cell.arm.name
        if record is not None:
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
        if (setting := trainings.chosen.get(name)) is None:
            continue
        losses = {
            subset: by_seed(_side(name, setting._replace(learnable=subset), trainings))
            for subset in plan.subsets()
        }
        rows = [
            {"base": name, "learnable": " + ".join(subset) or "none", **loss_columns(mine)}
            for subset, mine in losses.items()
        ]
        *frozen, full = losses.values()
        found = [over_seeds(mine, full) for mine in frozen]
        for row, difference, p in zip(rows, found, holm([f.p for f in found]), strict=False):
            verdict = Comparison(difference, difference, difference).judged(p).verdict
            row |= ends("difference", difference)
            row |= {"p": difference.p, "p_holm": p, "verdict": verdict}
        yield from rows[:-1]
        yield rows[-1] | {"verdict": "baseline"}


def scale_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """One row per arm and initial scale, with those of compared trainings."""
    for name, scale, setting, records in _scaled(trainings):
        losses = by_seed(records)
        yield {
            "base": name,
            "scale": scale,
            "learning_rate": setting.learning_rate,
            "n_failed": len(records) - len(losses),
            **loss_columns(losses),
        }


def scale_seed_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """One row per training behind the means of the scales."""
    for name, scale, _, records in _scaled(trainings):
        for seed, loss in by_seed(records).items():
            yield {"base": name, "scale": scale, "seed": seed, "val_loss": loss}


def _scaled(trainings: Trainings) -> Iterator[tuple[str, float, Setting, list[TrainingRecord]]]:
    config = trainings.config
    for name in config.scale_arms:
        for scale in config.scales if name in trainings.chosen else ():
            setting = plan.scaled(all_arms()[name], config, trainings.chosen[name], scale)
            yield name, scale, setting, _side(name, setting, trainings)


def _side(name: str, setting: Setting, trainings: Trainings) -> list[TrainingRecord]:
    """The trainings of that setting with the seeds that side experiments take, as far as there."""
    seeds = trainings.config.seeds[: trainings.config.side_seeds]
    cells = [plan.Cell(all_arms()[name], setting, seed) for seed in seeds]
    return [record for cell in cells if (record := trainings.of_cell(cell)) is not None]


def matched_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """One row per budget and ranked arm; none for a budget that not all of them reach.

    A loss on the way is not that of a training planned to end there: its learning rate had not
    fallen.
    """
    points = [row for row in item_rows("curve", trainings) if row["base"] in trainings.fit]
    for budget in ("tokens", "flops", "seconds"):
        curves: dict[tuple[str, int], Curve] = {}
        for row in points:
            curve = curves.setdefault((row["base"], row["seed"]), [])
            curve.append((float(row[budget]), row["val_loss"]))
        if (amount := common_budget(list(curves.values()))) is None:
            continue
        losses: dict[str, dict[int, float]] = {}
        for (name, seed), curve in curves.items():
            losses.setdefault(name, {})[seed] = at_budget(curve, amount)
        baseline = losses.get(trainings.config.baseline, {})
        for name, mine in losses.items():
            row = {"budget": budget, "amount": amount, "base": name, **loss_columns(mine)}
            if name != trainings.config.baseline:
                row |= ends("difference", over_seeds(mine, baseline))
            yield row


def at_budget(curve: Curve, amount: float) -> float:
    """Loss at an amount within the curve, interpolated between the two evaluations around it.

    A straight line over the logarithm of the amount: losses fall about as much with every doubling,
    while a straight line over the amount itself would lie above so bent a curve, most where
    evaluations are sparse.
    """
    amounts, losses = zip(*curve, strict=True)
    return float(np.interp(np.log(amount), np.log(amounts), losses))


def common_budget(curves: Sequence[Curve]) -> float | None:
    """The largest amount that all curves reach and none begins after; None if there is none."""
    if not curves:
        return None
    reached = min(curve[-1][0] for curve in curves)
    return reached if reached >= max(curve[0][0] for curve in curves) else None


def item_rows(field: str, trainings: Trainings) -> Iterator[dict[str, Any]]:
    """One row per compared training and evaluation, learned parameter, score or document of it."""
    for found in trainings.compared.values():
        for record in finished(found).values():
            for number, item in enumerate(getattr(record, field)):
                row = {"base": record.arm, "seed": record.seed, "document": number}
                if field == "curve":
                    row["flops"] = item.tokens * record.flops_per_token
                yield row | item._asdict()


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


def task_rows(scores: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per arm and metric of a task, means over seeds."""
    groups = scores.astype({"value": float, "stderr": float}).groupby(
        ["task", "metric", "base"], sort=False
    )
    found = groups.agg(
        value=("value", "mean"),
        value_low=("value", "min"),
        value_high=("value", "max"),
        stderr=("stderr", "mean"),
        chance=("chance", "first"),
        n_items=("n_items", "first"),
        n_seeds=("seed", "size"),
    )
    return plain_rows(found.reset_index())


def gain_rows(finals: Finals) -> Iterator[dict[str, Any]]:
    """The sine against gelu and the scaled gelu, and that against gelu: one row each.

    Each is one planned comparison, so not corrected.
    """
    for arm, other in ((SINE, PLAIN), (SINE, SCALED), (SCALED, PLAIN)):
        found = compare({name: finals.get(name, ()) for name in (arm, other)}, other, {})[arm]
        row = {"base": arm, "other": other, "n": found.seeds.n, "verdict": found.verdict}
        yield row | ends("difference", found.seeds)


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
