"""The trainings of a shootout by what they are for, and the rows of those that are compared."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from psannlm.files import MIB
from psannlm.pages.shootout import comparison, plan
from psannlm.pages.shootout.arms import Arm, all_arms, arms_of, is_scaled
from psannlm.pages.shootout.comparison import Difference, by_seed, finished, paired
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.records import (
    Gate,
    Setting,
    ShootoutRecord,
    TrainingRecord,
    gates_of,
    trainings_of,
)
from psannlm.train.journal import bits_per_byte, perplexity

FEWEST_VALUES = 3  # of a dimension of a grid that has ends and something between them

MEANS = (
    "val_bits_per_byte", "val_top1_acc", "test_loss", "test_bits_per_byte", "train_tokens_per_s",
    "train_seconds", "train_tokens", "train_flops", "n_parameters", "d_mlp", "peak_cuda_mem_gb",
)  # fmt: skip
"""Columns of an arm's row that are means over its finished trainings."""


@dataclass(frozen=True)
class Trainings:
    """The records of a shootout, sorted."""

    config: ShootoutConfig
    by_key: Mapping[str, TrainingRecord]
    gates: Sequence[Gate]  # an arm without one is not ranked
    chosen: plan.Chosen
    compared: Mapping[str, list[TrainingRecord]]  # of every arm, in their order; failed ones too
    unfit: Mapping[str, str]  # arms not compared, with the gates' reason or what is missing

    @classmethod
    def of(cls, records: Sequence[ShootoutRecord], config: ShootoutConfig) -> "Trainings":
        """Sort the records of a shootout, also of one that is not finished."""
        by_key = {record.key: record for record in trainings_of(records)}
        chosen = plan.choose(config, by_key.values())
        finals = [by_key.get(plan.key_of(cell, config)) for cell in plan.finals(config, chosen)]
        compared = {
            arm.name: [record for record in finals if record and record.arm == arm.name]
            for arm in arms_of(config)
        }
        gates = gates_of(records)
        why = {gate.arm: gate.refused for gate in gates}
        tunings = plan.tunings(config)
        missing = [c.arm.name for c in tunings if plan.key_of(c, config) not in by_key]
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
        """Arms that get no place, each with the reason.

        Those that are not compared, and those of which so many seeds failed that nothing could be
        separated from them: they would share the first place for having failed.
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
    rates, frequencies, *_ = map(set, zip(*plan.grid(arm, config), strict=True))
    return any(
        len(values) >= FEWEST_VALUES and chosen in (min(values), max(values))
        for chosen, values in (
            (setting.learning_rate, rates),
            (setting.sine_frequency, frequencies),
        )
    )


def tuned(name: str, setting: Setting, config: ShootoutConfig) -> dict[str, float | None]:
    """What a tuning varies; an arm whose nonlinearity has no initial frequency states none."""
    scaled = is_scaled(all_arms()[name], config)
    return {
        "learning_rate": setting.learning_rate,
        "sine_frequency": setting.sine_frequency if scaled else None,
    }


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


def _compared(found: comparison.Comparison) -> dict[str, Any]:
    return {
        "verdict": found.verdict,
        **ends("difference", found.seeds),
        "documents_low": found.documents.low,
        "documents_high": found.documents.high,
        "p": found.p,
        "p_holm": found.p_holm,
        **ends("test_difference", found.test),
    }


def loss_columns(losses: Mapping[int, float]) -> dict[str, Any]:
    """Number of seeds, and the mean of their losses with its interval."""
    return {"n_seeds": len(losses), **ends("val_loss", paired(list(losses.values())))}


def ends(name: str, difference: Difference) -> dict[str, float]:
    """A difference with its interval, as three columns."""
    low, high = difference.low, difference.high
    return {name: difference.mean, f"{name}_low": low, f"{name}_high": high}
