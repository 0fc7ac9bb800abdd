"""The throughput table: from records to one row a base, batch, mode and precision."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from statistics import median
from typing import Any

import pandas as pd

from psannlm.bench.statistics import Interval, median_interval, noise_floor, ratio_interval, verdict
from psannlm.bench.steps import stated_peak
from psannlm.evidence import table as shared
from psannlm.evidence.page import RunInfo, Tables
from psannlm.evidence.store import in_mib, outcome_cells
from psannlm.evidence.table import Column, Table, interval_cells, interval_columns
from psannlm.pages.throughput.plan import again, labels
from psannlm.pages.throughput.records import CEILING, LABEL, MODE, CellRecord, ThroughputConfig

SECOND = "noise floor"  # the verdict of the baseline's second measurement
EMULATED = "emulated"  # that of all rows in a precision that the device emulates
SPEED, RATIO = "tokens_per_s", "ratio"
_number = partial(Column.but, better="higher", compare="noise", headline="BMRK-02")
_share = partial(Column, format=".1%")
_seconds = partial(Column, unit="s", format=".1f")

THROUGHPUT = Table(
    "throughput.csv",
    "One row a base, batch, mode and precision.",
    (
        shared.TIMESTAMP, shared.BASE.but(heading=""), shared.BATCH_TOKENS,
        _number(
            Column(SPEED, "Speed, median of the processes.", "tokens/s", "tokens/s", ",.0f"),
            quantity="speed",
        ),
        LABEL, MODE, shared.PRECISION, shared.EMULATED, shared.CONTEXT_LENGTH,
        *interval_columns(SPEED, "the speed", "tokens/s"),
        _number(
            Column(RATIO, "Speed over that of the baseline, paired by block.", "× {baseline}"),
            heading="ratio to baseline", format=".3f", quantity="speed as a ratio to {baseline}",
        ),
        *interval_columns(RATIO, "the ratio"), shared.VERDICT, shared.NOISE_FLOOR,
        shared.N_OK.but(heading="processes"), shared.N_FAILED, shared.STATUS, shared.REASON,
        Column("step_seconds", "Time of a step at the median speed.", "s"),
        Column("flop_per_s", "Matrix products a second, median of the processes.", "FLOP/s"),
        Column("ceiling_flop_per_s", "Fastest matrix product measured in the same run.", "FLOP/s"),
        _share(
            "mfu", "Matrix products a second over the ceiling measured in the same run.",
            heading="of measured ceiling",
        ),
        _share(
            "mfu_stated", "Matrix products a second over the peak that the maker states.",
            heading="of stated peak",
        ),
        shared.COMPILED, shared.FRAMES, shared.GRAPH_BREAKS, shared.EAGER,
        _seconds(
            "first_compile_seconds", "Longest compilation among the processes, the cold one.",
            heading="compilation, cold",
        ),
        _seconds(
            "later_compile_seconds", "Shortest compilation among the processes, from the cache.",
            heading="compilation, cached",
        ),
        in_mib(shared.PEAK_ALLOCATED_BYTES, "peak allocated"),
        in_mib(shared.PEAK_RESERVED_BYTES),
        in_mib(shared.PEAK_RSS_BYTES, "peak RSS"),
        shared.DEVICE,
    ),
    caption="Throughput of every base, batch and mode",
    shown=(
        "label", "mode", "precision", "batch_tokens", SPEED, RATIO, "verdict", "mfu", "mfu_stated",
        "first_compile_seconds", "later_compile_seconds", "peak_allocated_mib", "peak_rss_mib",
        "n_ok", "*",
    ),
    fixed=("timestamp", "base", "batch_tokens", SPEED),
)  # fmt: skip


def tabulate(records: Iterable[CellRecord], run: RunInfo[ThroughputConfig]) -> Tables:
    """One row for each label, batch, mode and precision of the run, failed ones too."""
    config = run.config
    by_row: dict[tuple[Any, ...], list[CellRecord]] = {}
    for record in records:
        by_row.setdefault(record.row, []).append(record)
    rows: list[dict[str, Any]] = []
    for precision, mode, tokens in product(config.precision, config.mode, config.batch_tokens):
        place = tokens, mode, precision
        compared = {label: by_row.get((label, *place), []) for label in labels(config)}
        if run.emulated(precision):
            rows += _emulated(compared, run)
            continue
        products = by_row.get((CEILING, 0, CEILING, precision), [])
        ceilings = [record.flop_per_s for record in products if record.status == "ok"]
        rows += _rows(compared, run, median(ceilings) if ceilings else None)
    return {THROUGHPUT.file: THROUGHPUT.frame(rows)}


def _emulated(
    measured: Mapping[str, list[CellRecord]], run: RunInfo[ThroughputConfig]
) -> Iterator[dict[str, Any]]:
    """Rows of a precision that the device emulates: each by itself, compared with nothing."""
    known = {"timestamp": run.name, "device": run.device, "emulated": True}
    for records in filter(None, measured.values()):
        good = any(record.status == "ok" for record in records)
        yield _row(records, None, None) | known | ({"verdict": EMULATED} if good else {})


def _rows(
    compared: Mapping[str, list[CellRecord]], run: RunInfo[ThroughputConfig], ceiling: float | None
) -> Iterator[dict[str, Any]]:
    """Rows that are compared with one another: all labels of one batch, mode and precision."""
    baseline = run.config.baseline
    rates = {label: rates_of(records) for label, records in compared.items()}
    ratios = {label: ratio_interval(rates[label], rates[baseline]) for label in rates}
    floor = noise_floor(ratios[again(baseline)])
    ratios[baseline] = Interval(1.0, math.nan, math.nan, 0)
    named = {baseline: "baseline", again(baseline): SECOND}
    for label, records in compared.items():
        if records:
            row = _row(records, ceiling, stated_peak(run.device, records[0].precision))
            row |= {"timestamp": run.name, "device": run.device, "noise_floor": floor}
            row["emulated"] = False
            if rates[label]:
                row["verdict"] = named.get(label) or verdict(ratios[label], floor)
                row |= interval_cells(RATIO, ratios[label])
            yield row


def _row(
    records: Sequence[CellRecord], ceiling: float | None, stated: float | None
) -> dict[str, Any]:
    """What the processes of a row measured; `refused` where no machine could be so fast.

    The matmul rates of the same precision, measured and stated by the maker, are in FLOP/s.
    """
    good = [record for record in records if record.status == "ok"]
    same = (good or records)[0]
    row = asdict(same) | outcome_cells(records) | THROUGHPUT.row(records)
    if not good:
        return row
    row["compiled"] = all(record.compiled for record in good)
    row["eager"] = "; ".join(dict.fromkeys(record.eager for record in good if record.eager))
    speed = median_interval([record.tokens_per_s for record in good])
    flop_per_s = median(record.flop_per_s for record in good)
    mfu = flop_per_s / ceiling if ceiling else None
    compilations = [r.compile_seconds for r in good if r.compile_seconds is not None]
    row |= interval_cells(SPEED, speed) | {
        "step_seconds": same.batch_tokens / speed.median,
        "flop_per_s": flop_per_s,
        "ceiling_flop_per_s": ceiling,
        "mfu": mfu,
        "mfu_stated": flop_per_s / stated if stated else None,
        "first_compile_seconds": max(compilations, default=None),
        "later_compile_seconds": min(compilations, default=None),
    }
    if (mfu or 0) > 1:
        row |= {"status": "refused", "reason": "faster than the measured matmul ceiling"}
    return row


def rates_of(records: Iterable[CellRecord]) -> dict[int, float]:
    """Tokens per second of each process that succeeded, by block."""
    return {r.repeat: r.tokens_per_s for r in records if r.status == "ok"}


def compared_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that succeeded and are compared, without the baseline's second measurement."""
    return table[(table["status"] == "ok") & ~table["verdict"].isin([SECOND, EMULATED])]


def best_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The fastest batch of each base, mode and precision."""
    keys = ["mode", "precision", "base"]
    rows = compared_rows(table).sort_values(SPEED, ascending=False).drop_duplicates(keys)
    return rows.sort_values([*keys[:2], SPEED], ascending=[True, True, False])
