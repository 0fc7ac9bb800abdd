"""Rows of the leaderboard: a row a compared training, and a row an arm."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from psannlm.files import MIB
from psannlm.pages.shootout.arms import all_arms, is_scaled
from psannlm.pages.shootout.comparison import Comparison, Difference, compare, mean_interval
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.controls import on_edge
from psannlm.pages.shootout.gates import Gate, same
from psannlm.pages.shootout.ranking import places
from psannlm.pages.shootout.records import TrainingRecord
from psannlm.pages.shootout.results import Trainings, good
from psannlm.train.journal import bits_per_byte, perplexity

GIGABYTE = 10**9

MEANS = (
    "val_bits_per_byte", "val_top1_acc", "test_loss", "test_bits_per_byte", "train_tokens_per_s",
    "train_seconds", "train_tokens", "train_flops", "n_parameters", "d_mlp", "peak_cuda_mem_gb",
)  # fmt: skip
"""Columns of an arm's row that are means over its finished trainings."""


def run_rows(trainings: Trainings) -> Iterator[dict[str, Any]]:
    """A row a compared training, arm by arm and seed by seed, failed ones too."""
    for found in trainings.compared.values():
        for record in found:
            yield run_row(record, trainings.config)


def run_row(record: TrainingRecord, config: ShootoutConfig) -> dict[str, Any]:
    """What a training came to, in the units of its files; None where that is unknown."""
    tokens, allocated = record.train_tokens, record.peak_allocated_bytes
    return {
        "base": record.arm,
        **{name: getattr(record, name) for name in ("seed", "status", "reason", "key")},
        **_predicted("val", record.val_loss, record.val_top1, record.val_bytes, record.val_tokens),
        **_predicted(
            "test", record.test_loss, record.test_top1, record.test_bytes, record.test_tokens
        ),
        "train_loss": record.train_loss,
        "train_tokens_per_s": record.train_tokens_per_s,
        "train_seconds": record.train_seconds,
        "overhead_seconds": record.overhead_seconds,
        "train_tokens": tokens,
        "train_flops": None if tokens is None else tokens * record.flops_per_token,
        "n_parameters": record.n_parameters,
        "d_mlp": record.d_mlp,
        "flops_per_token": record.flops_per_token,
        "peak_cuda_mem_gb": None if allocated is None else allocated / GIGABYTE,
        "peak_rss_mib": None if record.peak_rss_bytes is None else record.peak_rss_bytes / MIB,
        "learning_rate": record.setting.learning_rate,
        "sine_frequency": frequency_of(record.arm, record.setting.sine_frequency, config),
        "leak": record.leak,
        "device": record.device,
        "started_at": record.started_at,
    }


def frequency_of(arm: str, frequency: float, config: ShootoutConfig) -> float | None:
    """The initial frequency of an arm, None where its nonlinearity has none."""
    return frequency if is_scaled(all_arms()[arm], config) else None


def _predicted(
    split: str, loss: float | None, top1: float | None, n_bytes: int | None, n_tokens: int | None
) -> dict[str, Any]:
    density = None if n_bytes is None or not n_tokens else n_bytes / n_tokens
    return {
        f"{split}_loss": loss,
        f"{split}_ppl": perplexity(loss) if loss is not None else None,
        f"{split}_bits_per_byte": None
        if loss is None or density is None
        else bits_per_byte(loss, density),
        f"{split}_top1_acc": top1,
    }


def summary_rows(trainings: Trainings, gates: Sequence[Gate]) -> list[dict[str, Any]]:
    """A row an arm: by place and then by loss, those without a place at the end."""
    alike = same(gates)
    fit = trainings.fit
    unplaced = trainings.unplaced
    found = places(fit, alike, unplaced)
    against = {c.arm: c for c in compare(fit, trainings.config.baseline, alike)}
    if trainings.config.baseline not in fit:
        against = {}
    rows = [
        {
            "place": found.get(name),
            "base": name,
            "verdict": _verdict(name, against, trainings),
            "refused": unplaced.get(name, ""),
            "same_as": alike.get(name, ""),
            **_of_losses(records, trainings),
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


def _of_losses(records: Sequence[TrainingRecord], trainings: Trainings) -> dict[str, Any]:
    rows = [run_row(record, trainings.config) for record in good(records)]
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
    return {
        "learning_rate": setting.learning_rate,
        "sine_frequency": frequency_of(name, setting.sine_frequency, config),
        "grid_edge": on_edge(all_arms()[name], setting, config),
    }
