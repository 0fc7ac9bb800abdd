"""The throughput table: from records to one row a base, batch, mode and precision.

It is computed in one place, and everything that shows a number of throughput takes it from there:
the CSV file, the page, its sentences, the figures, the check of the evidence.
"""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

import pandas as pd

from psannlm.bench.ceiling import stated_peak
from psannlm.bench.statistics import (
    Interval,
    median_interval,
    noise_floor,
    ratio_interval,
    verdict,
)
from psannlm.files import MIB
from psannlm.pages.throughput.config import ThroughputConfig
from psannlm.pages.throughput.plan import again, labels
from psannlm.pages.throughput.records import CEILING, CellRecord

COLUMNS = (
    "timestamp", "base", "batch_tokens", "tokens_per_s",  # as the original plan orders them
    "label", "mode", "precision", "context_length", "tokens_per_s_low", "tokens_per_s_high",
    "ratio", "ratio_low", "ratio_high", "verdict", "noise_floor", "n_ok", "n_failed", "status",
    "reason", "step_seconds", "flop_per_s", "ceiling_flop_per_s", "mfu", "mfu_stated",
    "compiled", "first_compile_seconds", "later_compile_seconds", "peak_allocated_mib",
    "peak_reserved_mib", "peak_rss_mib", "device",
)  # fmt: skip


def throughput_table(
    records: Iterable[CellRecord], config: ThroughputConfig, *, timestamp: str, device: str
) -> pd.DataFrame:
    """One row for each label, batch, mode and precision of the run, failed ones too.

    Args:
        records: Of all cells.
        config: Of the run.
        timestamp: Name of the run folder.
        device: Name of the measured device.
    """
    records = list(records)
    rows = []
    for precision in config.precision:
        ceiling = _ceiling(records, precision)
        for mode in config.mode:
            for tokens in config.batch_tokens:
                wanted = (mode, tokens, precision)
                by_label = {
                    label: [r for r in records if r.label == label and _setting(r) == wanted]
                    for label in labels(config)
                }
                rows += _block(by_label, config, ceiling, device)
    for row in rows:
        row["timestamp"] = timestamp
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _setting(record: CellRecord) -> tuple[str, int, str]:
    return record.mode, record.batch_tokens, record.precision


def _block(
    by_label: dict[str, list[CellRecord]],
    config: ThroughputConfig,
    ceiling: float | None,
    device: str,
) -> list[dict[str, Any]]:
    """Rows that are compared with one another: all labels of one batch, mode and precision."""
    rates = {
        label: {r.repeat: r.tokens_per_s for r in records if r.status == "ok"}
        for label, records in by_label.items()
    }
    ratios = {label: ratio_interval(rates[label], rates[config.baseline]) for label in rates}
    floor = noise_floor(ratios[again(config.baseline)])
    rows = []
    for label, records in by_label.items():
        if not records:
            continue
        row = _row(records, ceiling, device) | {"noise_floor": floor, "label": label}
        if row["status"] == "ok":
            row |= _comparison(label, ratios[label], config.baseline, floor)
        rows.append(row)
    return rows


def _comparison(
    label: str, ratio: Interval | None, baseline: str, floor: float | None
) -> dict[str, Any]:
    if label == baseline:
        return {"ratio": 1.0, "verdict": "baseline"}
    word = "noise floor" if label == again(baseline) else verdict(ratio, floor)
    if ratio is None:
        return {"verdict": word}
    return {
        "ratio": ratio.median,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "verdict": word,
    }


def _row(records: Sequence[CellRecord], ceiling: float | None, device: str) -> dict[str, Any]:
    one = records[0]
    good = [r for r in records if r.status == "ok"]
    reasons = list(dict.fromkeys(r.reason for r in records if r.status != "ok"))
    row: dict[str, Any] = {
        "base": one.base,
        "batch_tokens": one.batch_tokens,
        "mode": one.mode,
        "precision": one.precision,
        "context_length": one.context_length,
        "n_ok": len(good),
        "n_failed": len(records) - len(good),
        "status": "ok" if good else "failed",
        "reason": "; ".join(reasons),
        "compiled": one.compiled,
        "device": device,
    }
    if not good:
        return row
    speed = median_interval([r.tokens_per_s for r in good])
    flop_per_s = median(r.flop_per_s for r in good)
    stated = stated_peak(device, one.precision)
    compiling = [r.compile_seconds for r in good if r.compile_seconds is not None]
    row |= {
        "tokens_per_s": speed.median,
        "tokens_per_s_low": speed.low,
        "tokens_per_s_high": speed.high,
        "step_seconds": one.batch_tokens / speed.median,
        "flop_per_s": flop_per_s,
        "ceiling_flop_per_s": ceiling,
        "mfu": flop_per_s / ceiling if ceiling else None,
        "mfu_stated": flop_per_s / stated if stated else None,
        "compiled": good[0].compiled,
        "first_compile_seconds": max(compiling, default=None),
        "later_compile_seconds": min(compiling, default=None),
        "peak_allocated_mib": _mib(r.peak_allocated_bytes for r in good),
        "peak_reserved_mib": _mib(r.peak_reserved_bytes for r in good),
        "peak_rss_mib": _mib(r.peak_rss_bytes for r in good),
    }
    if row["mfu"] is not None and row["mfu"] > 1:
        row |= {"status": "refused", "reason": "faster than the measured matmul ceiling"}
    return row


def _mib(values: Iterable[int | None]) -> float | None:
    known = [value / MIB for value in values if value is not None]
    return max(known, default=None)


def _ceiling(records: Iterable[CellRecord], precision: str) -> float | None:
    """Median over the processes that measured it, FLOP/s."""
    rates = [
        r.flop_per_s
        for r in records
        if r.mode == CEILING and r.precision == precision and r.status == "ok"
    ]
    return median(rates) if rates else None


def best_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The fastest batch of each base, mode and precision; the second measurement is left out."""
    rows = table[(table["status"] == "ok") & (table["verdict"] != "noise floor")]
    keys = ["mode", "precision", "base"]
    rows = rows.sort_values("tokens_per_s", ascending=False).drop_duplicates(keys)
    return rows.sort_values([*keys[:2], "tokens_per_s"], ascending=[True, True, False])
