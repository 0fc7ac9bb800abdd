"""The trainings of a shootout by what they are for, and the rows of those that are compared."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from psannlm.files import MIB
from psannlm.pages.shootout.arms import Arm, all_arms, arms_of, is_scaled
from psannlm.pages.shootout.comparison import (
    FEWEST_SEEDS,
    Comparison,
    Difference,
    compare,
    mean_interval,
    places,
)
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.plan import Cell, Chosen, choose, finals, key_of, tunings
from psannlm.pages.shootout.records import (
    Gate,
    Setting,
    ShootoutRecord,
    TrainingRecord,
    gates_of,
    trainings_of,
)
from psannlm.train.journal import bits_per_byte, perplexity

FEWEST_VALUES = 3
"""Values of a dimension of a grid that has ends and something between them."""

GIGABYTE = 10**9

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
    gates: Sequence[Gate]
    """An arm without one is not ranked."""

    chosen: Chosen
    compared: Mapping[str, list[TrainingRecord]]
    """Of every arm, in the order of arms: its final trainings by seed, failed ones too."""

    unfit: Mapping[str, str]
    """Arms that are not compared, each with the reason: the gates', or that training is missing."""

    @classmethod
    def of(cls, records: Sequence[ShootoutRecord], config: ShootoutConfig) -> "Trainings":
        """Sort the records of a shootout, also of one that is not finished."""
        by_key = {record.key: record for record in trainings_of(records)}
        chosen = choose(config, by_key.values())
        compared: dict[str, list[TrainingRecord]] = {arm.name: [] for arm in arms_of(config)}
        for cell in finals(config, chosen):
            if (record := by_key.get(key_of(cell, config))) is not None:
                compared[cell.arm.name].append(record)
        gates = gates_of(records)
        why = {gate.arm: gate.refused for gate in gates}
        missing = [c.arm.name for c in tunings(config) if key_of(c, config) not in by_key]
        reasons = {
            name: why.get(name)
            or _unfinished(found, config, missing.count(name), is_gated=name in why)
            for name, found in compared.items()
        }
        unfit = {name: reason for name, reason in reasons.items() if reason}
        return cls(config, by_key, gates, chosen, compared, unfit)

    @property
    def fit(self) -> dict[str, list[TrainingRecord]]:
        """The final trainings of the arms that are compared."""
        return {name: found for name, found in self.compared.items() if name not in self.unfit}

    @property
    def finished(self) -> list[TrainingRecord]:
        """The compared trainings that came to their end, arm by arm."""
        return [record for found in self.compared.values() for record in good(found)]

    @property
    def same(self) -> dict[str, str]:
        """Of each arm that is the same network as one before it, the first such arm."""
        return {gate.arm: gate.same_as for gate in self.gates if gate.same_as}

    @property
    def unplaced(self) -> dict[str, str]:
        """Arms that get no place, each with the reason.

        Those that are not compared, and those of which so many seeds failed that nothing could be
        separated from them: they would share the first place for having failed.
        """
        needed = min(FEWEST_SEEDS, len(self.config.seeds))
        ended = {name: len(by_seed(found)) for name, found in self.fit.items()}
        few = {
            name: f"{n} of {len(self.config.seeds)} seeds came to their end, a place needs {needed}"
            for name, n in ended.items()
            if n < needed
        }
        return {**self.unfit, **few}

    def of_cell(self, cell: Cell) -> TrainingRecord | None:
        """The record of a training, if it is there."""
        return self.by_key.get(key_of(cell, self.config))


def good(records: Iterable[TrainingRecord]) -> list[TrainingRecord]:
    """Those that came to their end."""
    return [record for record in records if record.status == "ok"]


def by_seed(records: Iterable[TrainingRecord]) -> dict[int, float]:
    """Validation losses of the trainings that came to their end."""
    return {r.seed: r.val_loss for r in good(records) if r.val_loss is not None}


def _unfinished(
    found: Sequence[TrainingRecord], config: ShootoutConfig, untuned: int, *, is_gated: bool
) -> str:
    """Why an arm cannot be ranked by these trainings; empty if it can."""
    if untuned:
        return f"{untuned} of its tunings are not there yet"
    if not found:
        return "no setting to compare it at: every tuning failed, or its trainings are not there"
    if len(found) < len(config.seeds):
        return f"{len(config.seeds) - len(found)} of its {len(config.seeds)} seeds are not there"
    if not by_seed(found):
        return "every compared training failed"
    return "" if is_gated else "it was not examined by the gates"


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


def tuned(name: str, setting: Setting, config: ShootoutConfig) -> dict[str, float | None]:
    """What a tuning varies; an arm whose nonlinearity has no initial frequency states none."""
    scaled = is_scaled(all_arms()[name], config)
    return {
        "learning_rate": setting.learning_rate,
        "sine_frequency": setting.sine_frequency if scaled else None,
    }


def run_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """One row per compared training, arm by arm and seed by seed, failed ones too."""
    for found in trainings.compared.values():
        for record in found:
            yield run_row(record, trainings.config)


def run_row(record: TrainingRecord, config: ShootoutConfig) -> dict[str, Any]:
    """What a training came to, in the units of its files; None where that is unknown."""
    tokens, allocated = record.train_tokens, record.peak_allocated_bytes
    return {
        **vars(record),
        "base": record.arm,
        **_predicted("val", record.val_loss, record.val_top1, record.val_bytes, record.val_tokens),
        **_predicted(
            "test", record.test_loss, record.test_top1, record.test_bytes, record.test_tokens
        ),
        "train_flops": None if tokens is None else tokens * record.flops_per_token,
        "peak_cuda_mem_gb": None if allocated is None else allocated / GIGABYTE,
        "peak_rss_mib": None if record.peak_rss_bytes is None else record.peak_rss_bytes / MIB,
        **tuned(record.arm, record.setting, config),
    }


def _predicted(
    split: str, loss: float | None, top1: float | None, n_bytes: int | None, n_tokens: int | None
) -> dict[str, Any]:
    bits = None
    if loss is not None and n_bytes is not None and n_tokens:
        bits = bits_per_byte(loss, n_bytes / n_tokens)
    return {
        f"{split}_ppl": perplexity(loss) if loss is not None else None,
        f"{split}_bits_per_byte": bits,
        f"{split}_top1_acc": top1,
    }


def summary_rows(trainings: Trainings) -> list[dict[str, Any]]:
    """One row per arm: by place and then by loss, those without a place at the end."""
    fit, unplaced, baseline = trainings.fit, trainings.unplaced, trainings.config.baseline
    found = places(fit, trainings.same, unplaced)
    against = {c.arm: c for c in compare(fit, baseline, trainings.same)} if baseline in fit else {}
    rows = [
        {
            "place": found.get(name),
            "base": name,
            "verdict": _verdict(name, against, trainings),
            "refused": unplaced.get(name, ""),
            "same_as": trainings.same.get(name, ""),
            **_means(records, trainings.config),
            **_differences(against.get(name)),
            **_of_setting(name, trainings),
        }
        for name, records in trainings.compared.items()
    ]
    return sorted(rows, key=_order)


def _order(row: Mapping[str, Any]) -> tuple[bool, int, bool, float]:
    place, loss = row["place"], row["val_loss"]
    return place is None, place or 0, loss is None, loss or 0.0


def _verdict(name: str, against: Mapping[str, Comparison], trainings: Trainings) -> str:
    if name in trainings.unfit:
        return ""
    if name == trainings.config.baseline:
        return "baseline"
    return against[name].verdict if name in against else ""


def _means(records: Sequence[TrainingRecord], config: ShootoutConfig) -> dict[str, Any]:
    rows = [run_row(record, config) for record in good(records)]
    mean, low, high = mean_interval([row["val_loss"] for row in rows])
    means = {name: mean_of(row[name] for row in rows) for name in MEANS}
    test = means["test_loss"]
    return {
        "n_seeds": len(rows),
        "n_failed": len(records) - len(rows),
        "val_loss": mean,
        "val_loss_low": low,
        "val_loss_high": high,
        "val_ppl": perplexity(mean) if rows else None,
        "test_ppl": None if test is None else perplexity(test),
        **means,
    }


def mean_of(values: Iterable[Any]) -> Any:
    """Mean of the known values; itself if all are one, so that whole numbers stay whole."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return known[0] if len(set(known)) == 1 else fmean(known)


def _differences(found: Comparison | None) -> dict[str, Any]:
    if found is None:
        return {}
    return {
        **ends("difference", found.seeds),
        "documents_low": found.documents.low,
        "documents_high": found.documents.high,
        "p": found.p,
        "p_holm": found.p_holm,
        **ends("test_difference", found.test),
    }


def ends(name: str, difference: Difference) -> dict[str, float]:
    """A difference with its interval, as three columns."""
    return {
        name: difference.mean,
        f"{name}_low": difference.low,
        f"{name}_high": difference.high,
    }


def _of_setting(name: str, trainings: Trainings) -> dict[str, Any]:
    setting, config = trainings.chosen.get(name), trainings.config
    if setting is None:
        return {}
    edge = on_edge(all_arms()[name], setting, config)
    return tuned(name, setting, config) | {"grid_edge": edge}
