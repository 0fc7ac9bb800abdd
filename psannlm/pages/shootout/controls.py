"""Rows of what stands behind a leaderboard: tunings, the sine's ablation, initial scales."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from psannlm.pages.shootout.arms import Arm, all_arms, is_scaled
from psannlm.pages.shootout.comparison import (
    Contrast,
    Difference,
    holm,
    mean_interval,
    paired,
    verdict_of,
)
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.plan import Cell, scaled, subsets, tunings
from psannlm.pages.shootout.records import Setting, TrainingRecord
from psannlm.pages.shootout.results import Trainings, by_seed

FEWEST_VALUES = 3
"""Values of a dimension of a grid that has ends and something between them."""


def on_edge(arm: Arm, setting: Setting, config: ShootoutConfig) -> bool:
    """Whether a setting lies at an end of its grid, so that a better one may lie beyond.

    Only along a dimension of three values or more: of two, each is an end. The dimensions are the
    learning rate, and the initial frequency of arms that have one.
    """
    dimensions = [(setting.learning_rate, config.learning_rates)]
    if is_scaled(arm, config):
        dimensions = [
            (setting.learning_rate, config.scaled_learning_rates),
            (setting.sine_frequency, config.scaled_frequencies),
        ]
    return any(
        len(set(values)) >= FEWEST_VALUES and chosen in (min(values), max(values))
        for chosen, values in dimensions
    )


def tuning_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """A row a tuning that is there, in the order of arms and grids."""
    config = trainings.config
    for cell in tunings(config):
        record = trainings.of_cell(cell)
        if record is None:
            continue
        chosen = trainings.chosen.get(cell.arm.name) == cell.setting
        yield {
            "base": cell.arm.name,
            "learning_rate": cell.setting.learning_rate,
            "sine_frequency": cell.setting.sine_frequency if is_scaled(cell.arm, config) else None,
            "seed": cell.seed,
            "status": record.status,
            "reason": record.reason,
            "val_loss": record.val_loss,
            "chosen": chosen,
            "grid_edge": chosen and on_edge(cell.arm, cell.setting, config),
        }


def ablation_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """A row an arm and subset of learned parameters, against the arm with all of them learned.

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
    found = {subset: _paired(losses[subset], losses[full]) for subset in frozen}
    corrected = dict(zip(frozen, holm([found[subset].p for subset in frozen]), strict=True))
    for subset, mine in losses.items():
        yield {
            "base": name,
            "learnable": learnable_name(subset),
            "n_seeds": len(mine),
            **interval_of(mine.values()),
            **(
                {"verdict": "baseline"}
                if subset == full
                else _difference(found[subset], corrected[subset])
            ),
        }


def learnable_name(subset: Sequence[str]) -> str:
    """A subset of the sine's parameters as tables name it."""
    return " + ".join(subset) or "none"


def _difference(found: Difference, p_holm: float) -> dict[str, Any]:
    return {
        "difference": found.mean,
        "difference_low": found.low,
        "difference_high": found.high,
        "p": found.p,
        "p_holm": p_holm,
        "verdict": verdict_of(Contrast(found, found), p_holm),
    }


def scale_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """A row an arm and initial scale, those that are compared trainings at once too."""
    config = trainings.config
    for name in config.scale_arms:
        if name not in trainings.chosen:
            continue
        arm = all_arms()[name]
        for scale in config.scales:
            setting = scaled(arm, config, trainings.chosen[name], scale)
            records = _side(arm, setting, trainings)
            mine = by_seed(records)
            yield {
                "base": name,
                "scale": scale,
                "learning_rate": setting.learning_rate,
                "n_seeds": len(mine),
                "n_failed": len(records) - len(mine),
                **interval_of(mine.values()),
            }


def interval_of(losses: Iterable[float]) -> dict[str, float | None]:
    """Mean loss with its interval, as three columns; None where they are unknown."""
    found = (None if math.isnan(value) else value for value in mean_interval(list(losses)))
    return dict(zip(("val_loss", "val_loss_low", "val_loss_high"), found, strict=True))


def _side(arm: Arm, setting: Setting, trainings: Trainings) -> list[TrainingRecord]:
    """The trainings of that setting with the seeds that side experiments take, as far as there."""
    seeds = trainings.config.seeds[: trainings.config.side_seeds]
    found = [trainings.of_cell(Cell(arm, setting, seed)) for seed in seeds]
    return [record for record in found if record is not None]


def _paired(mine: dict[int, float], other: dict[int, float]) -> Difference:
    return paired([mine[seed] - other[seed] for seed in sorted(mine.keys() & other.keys())])
