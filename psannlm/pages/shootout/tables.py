"""The tables of a shootout, each computed from the records of its trainings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from psannlm.pages.shootout import (
    controls as shootout_controls,
)
from psannlm.pages.shootout import (
    curves as shootout_curves,
)
from psannlm.pages.shootout import (
    summary as shootout_summary,
)
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.gates import Gate
from psannlm.pages.shootout.records import TrainingRecord
from psannlm.pages.shootout.results import Trainings

RUNS = (
    "base", "seed", "status", "reason", "key", "val_loss", "val_ppl", "val_bits_per_byte",
    "val_top1_acc", "test_loss", "test_ppl", "test_bits_per_byte", "test_top1_acc", "train_loss",
    "train_tokens_per_s", "train_seconds", "overhead_seconds", "train_tokens", "train_flops",
    "n_parameters", "d_mlp", "flops_per_token", "peak_cuda_mem_gb", "peak_rss_mib",
    "learning_rate", "sine_frequency", "leak", "device", "started_at",
)  # fmt: skip
"""One row a compared training; `base` is the name of its arm, peak_cuda_mem_gb in 10**9 bytes."""

SUMMARY = (
    "place", "base", "verdict", "refused", "same_as", "n_seeds", "n_failed", "val_loss",
    "val_loss_low", "val_loss_high", "val_ppl", "val_bits_per_byte", "val_top1_acc", "test_loss",
    "test_ppl", "test_bits_per_byte", "difference", "difference_low", "difference_high",
    "documents_low", "documents_high", "p", "p_holm", "test_difference", "test_difference_low",
    "test_difference_high", "train_tokens_per_s", "train_seconds", "train_tokens", "train_flops",
    "n_parameters", "d_mlp", "peak_cuda_mem_gb", "learning_rate", "sine_frequency", "grid_edge",
)  # fmt: skip
"""One row an arm, by place and then by loss; means over seeds, `difference` to the baseline.
val_ppl is the exponential of the mean loss. Refused arms have no place."""

TIMED = ("train_tokens_per_s", "train_seconds", "overhead_seconds", "peak_rss_mib", "started_at")
"""Columns that a repetition cannot reproduce to the last digit."""

TUNING = (
    "base", "learning_rate", "sine_frequency", "seed", "status", "reason", "val_loss", "chosen",
    "grid_edge",
)  # fmt: skip
"""One row a tuning; grid_edge: chosen, at an end of a grid of three values or more."""

ABLATION = (
    "base", "learnable", "n_seeds", "val_loss", "val_loss_low", "val_loss_high", "difference",
    "difference_low", "difference_high", "p", "p_holm", "verdict",
)  # fmt: skip
"""One row a subset of learned parameters; `difference` to all of them learned, paired by seed."""

SCALES = (
    "base", "scale", "learning_rate", "n_seeds", "n_failed", "val_loss", "val_loss_low",
    "val_loss_high",
)  # fmt: skip
"""One row an arm and initial scale."""

CURVES = ("base", "seed", "step", "tokens", "flops", "seconds", "val_loss")
"""One row an evaluation of a compared training."""

MATCHED = (
    "budget", "amount", "base", "n_seeds", "val_loss", "val_loss_low", "val_loss_high",
    "difference", "difference_low", "difference_high",
)  # fmt: skip
"""Loss of each arm at one budget for all: `tokens`, `flops` or `seconds`, the largest amount that
all compared trainings reach, interpolated between evaluations."""

LEARNED = ("base", "seed", "layer", "part", "before", "after", "low", "high")
DOCUMENTS = ("base", "seed", "document", "nats", "n_tokens")
SCORES = ("base", "seed", "task", "metric", "value", "stderr", "n_items", "chance")


@dataclass(frozen=True)
class Shootout:
    """Everything that the page, its files and its sentences are made of."""

    records: list[TrainingRecord]
    gates: list[Gate]
    runs: pd.DataFrame
    summary: pd.DataFrame
    tuning: pd.DataFrame
    ablation: pd.DataFrame
    scales: pd.DataFrame
    curves: pd.DataFrame
    matched: pd.DataFrame
    learned: pd.DataFrame
    scores: pd.DataFrame


def shootout_of(
    records: Sequence[TrainingRecord], gates: Sequence[Gate], config: ShootoutConfig
) -> Shootout:
    """All tables of a shootout, also of one that is not finished.

    No arm has a place of which a tuning or a seed is still to come, or that no gate has examined.

    Args:
        records: Of all trainings so far, in any order.
        gates: Of the arms.
        config: Of the shootout.
    """
    trainings = Trainings.of(records, gates, config)
    return Shootout(
        records=list(records),
        gates=list(gates),
        runs=frame(shootout_summary.run_rows(trainings), RUNS),
        summary=frame(shootout_summary.summary_rows(trainings, gates), SUMMARY),
        tuning=frame(shootout_controls.tuning_rows(trainings), TUNING),
        ablation=frame(shootout_controls.ablation_rows(trainings), ABLATION),
        scales=frame(shootout_controls.scale_rows(trainings), SCALES),
        curves=frame(shootout_curves.curve_rows(trainings), CURVES),
        matched=frame(shootout_curves.matched_rows(trainings), MATCHED),
        learned=frame(shootout_curves.learned_rows(trainings), LEARNED),
        scores=frame(shootout_curves.score_rows(trainings), SCORES),
    )


def frame(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """A table of those columns; what a row does not have is unknown.

    Whole numbers stay whole where some of a column are unknown: it then holds None.
    """
    found = list(rows)
    table = {name: _column([row.get(name) for row in found]) for name in columns}
    return pd.DataFrame(table, columns=list(columns))


def _column(values: list[Any]) -> pd.Series:
    known = [value for value in values if value is not None]
    if len(known) < len(values) and all(isinstance(value, int) for value in known):
        return pd.Series(values, dtype=object)
    return pd.Series(values)
