"""The throughput table: from records to one row a base, batch, mode and precision.

Everything that shows a number of throughput takes it from here: the CSV file, the page, its
sentences, the figures, the check of the evidence.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import Any

import pandas as pd

from psannlm.bench.ceiling import stated_peak
from psannlm.bench.statistics import Interval, median_interval, noise_floor, ratio_interval, verdict
from psannlm.evidence.page import RunInfo
from psannlm.evidence.table import (
    BASE,
    BATCH_TOKENS,
    CONTEXT_LENGTH,
    DEVICE,
    N_FAILED,
    N_OK,
    PRECISION,
    REASON,
    STATUS,
    TIMESTAMP,
    VERDICT,
    Column,
    Table,
    interval_columns,
)
from psannlm.evidence.table import NOISE_FLOOR as FLOOR
from psannlm.files import MIB
from psannlm.pages.throughput.config import ThroughputConfig
from psannlm.pages.throughput.plan import again, labels
from psannlm.pages.throughput.records import CEILING, LABEL, MODE, CellRecord

SECOND = "noise floor"
"""The verdict of the baseline's second measurement."""


@dataclass(frozen=True)
class Group:
    """The records behind one row, and what they are compared with."""

    records: Sequence[CellRecord]
    run: RunInfo[ThroughputConfig]
    ceiling: float | None
    """Measured matmul rate of the same precision, FLOP/s."""

    ratio: Interval | None
    """To the baseline, paired by block."""

    floor: float | None

    @property
    def good(self) -> list[CellRecord]:
        """Those of processes that succeeded."""
        return [record for record in self.records if record.status == "ok"]

    @property
    def speed(self) -> Interval:
        """Tokens per second over the processes."""
        return median_interval([record.tokens_per_s for record in self.good])

    @property
    def flop_per_s(self) -> float | None:
        """Matrix products per second, median over the processes."""
        return median([r.flop_per_s for r in self.good]) if self.good else None

    @property
    def mfu(self) -> float | None:
        """Share of the measured ceiling."""
        return self.flop_per_s / self.ceiling if self.flop_per_s and self.ceiling else None

    @property
    def mfu_stated(self) -> float | None:
        """Share of the peak that the maker states."""
        stated = stated_peak(self.run.device, self.records[0].precision)
        return self.flop_per_s / stated if self.flop_per_s and stated else None

    @property
    def status(self) -> str:
        """`refused` where no machine could be so fast."""
        if not self.good:
            return "failed"
        return "refused" if (self.mfu or 0) > 1 else "ok"

    @property
    def reason(self) -> str:
        """Why it failed or is refused."""
        if self.status == "refused":
            return "faster than the measured matmul ceiling"
        return "; ".join(dict.fromkeys(r.reason for r in self.records if r.status != "ok"))

    @property
    def verdict(self) -> str | None:
        """Faster, slower or not separated from the baseline."""
        label, baseline = self.records[0].label, self.run.config.baseline
        if not self.good:
            return None
        if label == baseline:
            return "baseline"
        return SECOND if label == again(baseline) else verdict(self.ratio, self.floor)

    def most(self, name: str) -> float | None:
        """The largest of a number of bytes over the processes, in MiB."""
        known = [value / MIB for r in self.good if (value := getattr(r, name)) is not None]
        return max(known, default=None)

    def compile_seconds(self, choose: Callable[..., float | None]) -> float | None:
        """The longest or the shortest compilation of the processes."""
        known = [r.compile_seconds for r in self.good if r.compile_seconds is not None]
        return choose(known, default=None)


def _same(name: str) -> Callable[[Group], Any]:
    """The field that all records of a row share."""
    return lambda group: getattr((group.good or group.records)[0], name)


def _speed(end: str) -> Callable[[Group], float | None]:
    return lambda group: getattr(group.speed, end) if group.good else None


def _step_seconds(group: Group) -> float | None:
    return group.records[0].batch_tokens / group.speed.median if group.good else None


def _ratio(end: str) -> Callable[[Group], float | None]:
    return lambda group: getattr(group.ratio, end) if group.good and group.ratio else None


SPEED, RATIO = "tokens_per_s", "ratio"
SHOWN = (
    "label", "mode", "precision", "batch_tokens", SPEED, RATIO, "verdict", "mfu", "mfu_stated",
    "first_compile_seconds", "later_compile_seconds", "peak_allocated_mib", "peak_rss_mib", "n_ok",
)  # fmt: skip
"""Columns of the table on the page."""

THROUGHPUT = Table(
    "throughput.csv",
    "One row a base, batch, mode and precision.",
    (
        TIMESTAMP.but(value=lambda group: group.run.name),
        BASE.but(value=_same("base"), heading=""),
        BATCH_TOKENS.but(value=_same("batch_tokens")),
        Column(
            SPEED,
            "Speed, median of the processes.",
            "tokens/s",
            heading="tokens/s",
            format=",.0f",
            value=_speed("median"),
            quantity="speed",
            better="higher",
            compare="noise",
            headline="BMRK-02",
        ),
        LABEL.but(value=_same("label")),
        MODE.but(value=_same("mode")),
        PRECISION.but(value=_same("precision")),
        CONTEXT_LENGTH.but(value=_same("context_length")),
        *interval_columns(SPEED, "the speed", "tokens/s", _speed),
        Column(
            RATIO,
            "Speed over that of the baseline, paired by block.",
            "× {baseline}",
            heading="ratio to baseline",
            format=".3f",
            value=_ratio("median"),
            quantity="speed as a ratio to {baseline}",
            better="higher",
            compare="noise",
            headline="BMRK-02",
        ),
        *interval_columns(RATIO, "the ratio", "", _ratio),
        VERDICT.but(value=lambda group: group.verdict),
        FLOOR.but(value=lambda group: group.floor),
        N_OK.but(heading="processes", value=lambda group: len(group.good)),
        N_FAILED.but(value=lambda group: len(group.records) - len(group.good)),
        STATUS.but(value=lambda group: group.status),
        REASON.but(value=lambda group: group.reason),
        Column("step_seconds", "Time of a step at the median speed.", "s", value=_step_seconds),
        Column(
            "flop_per_s",
            "Matrix products a second, median of the processes.",
            "FLOP/s",
            value=lambda group: group.flop_per_s,
        ),
        Column(
            "ceiling_flop_per_s",
            "Fastest matrix product measured in the same run.",
            "FLOP/s",
            value=lambda group: group.ceiling if group.good else None,
        ),
        Column(
            "mfu",
            "Matrix products a second over the ceiling measured in the same run.",
            heading="of measured ceiling",
            format=".1%",
            value=lambda group: group.mfu,
        ),
        Column(
            "mfu_stated",
            "Matrix products a second over the peak that the maker states.",
            heading="of stated peak",
            format=".1%",
            value=lambda group: group.mfu_stated,
        ),
        Column("compiled", "Whether the step was compiled.", value=_same("compiled")),
        Column(
            "first_compile_seconds",
            "Longest compilation among the processes, the cold one.",
            "s",
            heading="compilation, cold",
            format=".1f",
            value=lambda group: group.compile_seconds(max),
        ),
        Column(
            "later_compile_seconds",
            "Shortest compilation among the processes, from the cache.",
            "s",
            heading="compilation, cached",
            format=".1f",
            value=lambda group: group.compile_seconds(min),
        ),
        Column(
            "peak_allocated_mib",
            "Most memory that the allocator had handed out at one time.",
            "MiB",
            heading="peak allocated",
            format=",.0f",
            value=lambda group: group.most("peak_allocated_bytes"),
        ),
        Column(
            "peak_reserved_mib",
            "Most memory taken from the driver of a GPU; empty on a CPU.",
            "MiB",
            value=lambda group: group.most("peak_reserved_bytes"),
        ),
        Column(
            "peak_rss_mib",
            "Largest resident set of the process since it started.",
            "MiB",
            heading="peak RSS",
            format=",.0f",
            value=lambda group: group.most("peak_rss_bytes"),
        ),
        DEVICE.but(value=lambda group: group.run.device),
    ),
    caption="Throughput of every base, batch and mode",
    shown=SHOWN,
    fixed=("timestamp", "base", "batch_tokens", SPEED),
)


def throughput_table(records: Iterable[CellRecord], run: RunInfo[ThroughputConfig]) -> pd.DataFrame:
    """One row for each label, batch, mode and precision of the run, failed ones too.

    Args:
        records: Of all cells.
        run: That they are of.
    """
    config = run.config
    by_row: dict[tuple[Any, ...], list[CellRecord]] = {}
    for record in records:
        by_row.setdefault(record.row, []).append(record)
    rows: list[dict[str, Any]] = []
    for precision, mode, tokens in product(config.precision, config.mode, config.batch_tokens):
        compared = {
            label: by_row.get((label, tokens, mode, precision), []) for label in labels(config)
        }
        ceiling = _ceiling(by_row.get((CEILING, 0, CEILING, precision), []))
        rows += (THROUGHPUT.row(group) for group in _groups(compared, run, ceiling))
    return THROUGHPUT.frame(rows)


def _groups(
    compared: Mapping[str, list[CellRecord]], run: RunInfo[ThroughputConfig], ceiling: float | None
) -> Iterator[Group]:
    """Rows that are compared with one another: all labels of one batch, mode and precision."""
    baseline = run.config.baseline
    rates = {label: rates_of(records) for label, records in compared.items()}
    ratios = {label: ratio_interval(rates[label], rates[baseline]) for label in rates}
    floor = noise_floor(ratios[again(baseline)])
    for label, records in compared.items():
        if records:
            ratio = Interval(1.0, math.nan, math.nan, 0) if label == baseline else ratios[label]
            yield Group(records, run, ceiling, ratio, floor)


def rates_of(records: Iterable[CellRecord]) -> dict[int, float]:
    """Tokens per second of each process that succeeded, by block."""
    return {r.repeat: r.tokens_per_s for r in records if r.status == "ok"}


def _ceiling(records: Iterable[CellRecord]) -> float | None:
    """Median over the processes that measured it, FLOP/s."""
    rates = [record.flop_per_s for record in records if record.status == "ok"]
    return median(rates) if rates else None


def compared_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that succeeded, without the baseline's second measurement."""
    return table[(table["status"] == "ok") & (table["verdict"] != SECOND)]


def best_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The fastest batch of each base, mode and precision."""
    keys = ["mode", "precision", "base"]
    rows = compared_rows(table).sort_values(SPEED, ascending=False).drop_duplicates(keys)
    return rows.sort_values([*keys[:2], SPEED], ascending=[True, True, False])
