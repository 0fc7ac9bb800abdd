"""The trainings of a shootout by what they are for, and the rows of all tables."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from psannlm.evidence.table import plain_rows
from psannlm.evidence.text import UNKNOWN, interval
from psannlm.files import MIB
from psannlm.pages.shootout import comparison, plan
from psannlm.pages.shootout import records as stored
from psannlm.pages.shootout.arms import Arm, all_arms, arms_of, is_scaled
from psannlm.pages.shootout.comparison import Comparison, Difference, by_seed, finished, over_seeds
from psannlm.pages.shootout.records import Setting, ShootoutConfig, ShootoutRecord, TrainingRecord
from psannlm.train.pretrained import PARTS
from psannlm.train.recorder import bits_per_byte, perplexity

SINE, SCALED, PLAIN = "respsann", "gelu_scaled", "gelu"  # scaled: with the sine's learned gains
Curve = list[tuple[float, float]]  # amounts spent so far, each with the loss that was reached
FEWEST_VALUES = 3  # of a dimension of a grid that has ends and something between them

MEANS = (  # columns of an arm's row that are means over its finished trainings
    "val_bits_per_byte", "val_top1_acc", "test_loss", "test_bits_per_byte", "train_tokens_per_s",
    "train_seconds", "train_tokens", "train_flops", "n_parameters", "d_mlp", "peak_cuda_mem_gb",
)  # fmt: skip


@dataclass(frozen=True)
class Trainings:
    """The records of a shootout, sorted."""

    config: ShootoutConfig
    by_key: Mapping[str, TrainingRecord]
    gates: Sequence[stored.Gate]  # an arm without one is not ranked
    chosen: plan.Chosen
    compared: Mapping[str, list[TrainingRecord]]  # of every arm, in their order; failed ones too
    unfit: Mapping[str, str]  # arms not compared, with the gates' reason or what is missing

    @classmethod
    def of(cls, records: Sequence[ShootoutRecord], config: ShootoutConfig) -> "Trainings":
        """Sort the records of a shootout, also of one that is not finished."""
        trainings, gates = stored.split(records)
        by_key = {record.key: record for record in trainings}
        chosen = plan.choose(config, by_key.values())
        finals = [by_key.get(plan.key_of(cell, config)) for cell in plan.finals(config, chosen)]
        compared = {
            arm.name: [record for record in finals if record and record.arm == arm.name]
            for arm in arms_of(config)
        }
        why = {gate.arm: gate.refused for gate in gates}
        missing = [c.arm.name for c in plan.tunings(config) if plan.key_of(c, config) not in by_key]
        unfit = {}
        for name, found in compared.items():
            ungated = "" if name in why else "it was not examined by the gates"
            lacking = _lacking(found, config, missing.count(name))
            if reason := why.get(name) or lacking or ungated:
                unfit[name] = reason
        return cls(config, by_key, gates, chosen, compared, unfit)

    @property
    def fit(self) -> dict[str, list[TrainingRecord]]:
        """The final trainings of the arms that are compared."""
        return {name: found for name, found in self.compared.items() if name not in self.unfit}

    @property
    def unplaced(self) -> dict[str, str]:
        """Arms that are not compared, and those of which too many seeds failed, each with why.

        Nothing could be separated from these: they would share the first place for having failed.
        """
        n_seeds = len(self.config.seeds)
        needed = min(comparison.FEWEST_SEEDS, n_seeds)
        few = {
            name: f"{n} of {n_seeds} seeds came to their end, a place needs {needed}"
            for name, found in self.fit.items()
            if (n := len(finished(found))) < needed
        }
        return {**self.unfit, **few}

    def of_cell(self, cell: plan.Cell) -> TrainingRecord | None:
        """The record of a training, if it is there."""
        return self.by_key.get(plan.key_of(cell, self.config))


def _lacking(found: Sequence[TrainingRecord], config: ShootoutConfig, untuned: int) -> str:
    """Which trainings an arm lacks to be ranked; empty if none."""
    n_seeds = len(config.seeds)
    if untuned:
        return f"{untuned} of its tunings are not there yet"
    if not found:
        return "no setting to compare it at: every tuning failed, or its trainings are not there"
    if len(found) < n_seeds:
        return f"{n_seeds - len(found)} of its {n_seeds} seeds are not there"
    return "" if finished(found) else "every compared training failed"


def on_edge(arm: Arm, setting: Setting, config: ShootoutConfig) -> bool:
    """Whether a setting lies at an end of its grid, along three values or more."""
    return any(
        len(set(values)) >= FEWEST_VALUES and chosen in (min(values), max(values))
        for chosen, *values in zip(setting, *plan.grid(arm, config), strict=True)
    )


def tuned(name: str, setting: Setting, config: ShootoutConfig) -> dict[str, float | None]:
    """What a tuning varies; an arm whose nonlinearity has no initial frequency states none."""
    frequency = setting.sine_frequency if is_scaled(all_arms()[name], config) else None
    return {"learning_rate": setting.learning_rate, "sine_frequency": frequency}


def run_row(record: TrainingRecord, config: ShootoutConfig) -> dict[str, Any]:
    """What a training came to, in the units of its files; None where that is unknown."""
    tokens, allocated, rss = record.train_tokens, record.peak_allocated_bytes, record.peak_rss_bytes
    return {
        **vars(record),
        "base": record.arm,
        **_predicted("val", record),
        **_predicted("test", record),
        "train_flops": None if tokens is None else tokens * record.flops_per_token,
        "peak_cuda_mem_gb": None if allocated is None else allocated / 10**9,
        "peak_rss_mib": None if rss is None else rss / MIB,
        **tuned(record.arm, record.setting, config),
    }


def _predicted(split: str, record: TrainingRecord) -> dict[str, Any]:
    """What follows from the loss on a split, as far as it was evaluated."""
    loss, top1, n_bytes, n_tokens = (
        getattr(record, f"{split}_{what}") for what in ("loss", "top1", "bytes", "tokens")
    )
    if loss is None:
        return {}
    return {
        f"{split}_ppl": perplexity(loss),
        f"{split}_bits_per_byte": bits_per_byte(loss, n_bytes / n_tokens),
        f"{split}_top1_acc": top1,
    }


def summary_rows(trainings: Trainings) -> list[dict[str, Any]]:
    """One row per arm: by place and then by loss, those without a place at the end."""
    config, fit, unplaced = trainings.config, trainings.fit, trainings.unplaced
    same = {gate.arm: gate.same_as for gate in trainings.gates if gate.same_as}
    places = comparison.places(fit, same, unplaced)
    against = comparison.compare(fit, config.baseline, same) if config.baseline in fit else {}
    rows = []
    for name, records in trainings.compared.items():
        row = {
            "place": places.get(name),
            "base": name,
            "verdict": "baseline" if name == config.baseline and name in fit else "",
            "refused": unplaced.get(name, ""),
            "same_as": same.get(name, ""),
            **_means(records, config),
        }
        if name in against:
            row |= _compared(against[name])
        if (setting := trainings.chosen.get(name)) is not None:
            row["grid_edge"] = on_edge(all_arms()[name], setting, config)
            row |= tuned(name, setting, config)
        rows.append(row)
    return sorted(rows, key=lambda row: (row["place"] or math.inf, row["val_loss"]))


def _means(records: Sequence[TrainingRecord], config: ShootoutConfig) -> dict[str, Any]:
    rows = [run_row(record, config) for record in finished(records).values()]
    means = {name: mean_of(row.get(name) for row in rows) for name in MEANS}
    losses, test = loss_columns(by_seed(records)), means["test_loss"]
    return {
        **losses,
        "n_failed": len(records) - len(rows),
        "val_ppl": perplexity(losses["val_loss"]) if rows else None,
        "test_ppl": None if test is None else perplexity(test),
        **means,
    }


def mean_of(values: Iterable[Any]) -> Any:
    """Mean of the known values; itself if all are one, so that whole numbers stay whole."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return known[0] if len(set(known)) == 1 else fmean(known)


def _compared(found: Comparison) -> dict[str, Any]:
    return {
        "verdict": found.verdict,
        **ends("difference", found.seeds),
        **ends("documents", found.documents),
        "p": found.p,
        "p_holm": found.p_holm,
        **ends("test_difference", found.test),
    }


def loss_columns(losses: Mapping[int, float]) -> dict[str, Any]:
    """Number of seeds, and the mean of their losses with its interval."""
    return {"n_seeds": len(losses), **ends("val_loss", comparison.paired(list(losses.values())))}


def ends(name: str, found: Difference) -> dict[str, float]:
    """A difference with its interval, as three columns."""
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def tuning_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """One row per finished tuning run, in the order of arms and grids."""
    config = trainings.config
    for cell in plan.tunings(config):
        if (record := trainings.of_cell(cell)) is not None:
            chosen = trainings.chosen.get(cell.arm.name) == cell.setting
            edge = chosen and on_edge(cell.arm, cell.setting, config)
            yield run_row(record, config) | {"chosen": chosen, "grid_edge": edge}


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
        corrected = comparison.holm([difference.p for difference in found])
        for row, difference, p in zip(rows, found, corrected, strict=False):
            verdict = Comparison(difference, difference, difference).judged(p).verdict
            row |= {"p": difference.p, "p_holm": p, "verdict": verdict}
            row |= ends("difference", difference)
        yield from rows[:-1]
        yield rows[-1] | {"verdict": "baseline"}


def scale_rows(trainings: Trainings) -> list[dict[str, Any]]:
    """One row per arm and initial scale, with those of compared trainings, and its losses."""
    config, rows = trainings.config, []
    for name, scale in itertools.product(config.scale_arms, config.scales):
        if name in trainings.chosen:
            setting = plan.scaled(all_arms()[name], config, trainings.chosen[name], scale)
            records = _side(name, setting, trainings)
            losses = by_seed(records)
            row = {"base": name, "scale": scale, "learning_rate": setting.learning_rate}
            row |= {"n_failed": len(records) - len(losses), "losses": losses}
            rows.append(row | loss_columns(losses))
    return rows


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
        curves: dict[tuple[str, int], Curve] = {
            key: [(float(row[budget]), row["val_loss"]) for row in rows]
            for key, rows in itertools.groupby(points, itemgetter("base", "seed"))
        }
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


def gain_rows(finals: comparison.Finals) -> Iterator[dict[str, Any]]:
    """The sine against gelu and the scaled gelu, and that against gelu: one row each.

    Each is one planned comparison, so not corrected.
    """
    for arm, other in ((SINE, PLAIN), (SINE, SCALED), (SCALED, PLAIN)):
        pair = {name: finals.get(name, ()) for name in (arm, other)}
        found = comparison.compare(pair, other, {})[arm]
        row = {"base": arm, "other": other, "n": found.seeds.n, "verdict": found.verdict}
        yield row | ends("difference", found.seeds)


def training_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """One row per training, failed ones too, with what was tried."""
    for record in trainings.by_key.values():
        is_tuning = record.seed == trainings.config.tuning_seed
        part = "compared" if record.final else "tuning" if is_tuning else "control"
        learned = ", ".join(record.setting.learnable) or "none"
        tried = record.setting._asdict() | {"part": part, "learned": learned}
        yield run_row(record, trainings.config) | tried
