"""The tables of the comparison with the published package, and how people see them side by side."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from typing import Any

import pandas as pd

from psannlm.bench.statistics import Interval, median_interval, noise_floor, ratio_interval, verdict
from psannlm.evidence import table as shared
from psannlm.evidence.page import RunInfo, Tables
from psannlm.evidence.table import Column, Table, interval_columns, plain_rows
from psannlm.evidence.text import UNKNOWN
from psannlm.pages.peer import records as raw
from psannlm.pages.peer.config import PeerConfig
from psannlm.pages.peer.records import AGAIN, OURS, PUBLISHED, SAVED, SIDES, AnyCell, PeerCell

OTHER = {OURS: PUBLISHED, AGAIN: OURS}
"""Which side the ratio of a side is taken to."""

NOT_COMPARED = "not compared"
"""The verdict where the other side has nothing to compare with."""

UNITS = {"tokens_per_s": "tokens/s", "elapsed_s": "s", "rel_diff": ""}
"""Of measures of the protocol; those that are not named are memory in MiB."""


@dataclass(frozen=True)
class Group:
    """The records behind one row, and those that it is compared with."""

    records: Sequence[PeerCell]
    other: Sequence[PeerCell]
    """Of the side that the ratio is taken to."""

    floor: float | None
    run: RunInfo[PeerConfig]

    @property
    def good(self) -> list[PeerCell]:
        """Those of processes that succeeded."""
        return [record for record in self.records if record.status == "ok"]

    @property
    def is_counted(self) -> bool:
        """Whether it is of bytes: they repeat, so that none has an interval."""
        return self.records[0].work == SAVED

    @cached_property
    def value(self) -> Interval | None:
        """Tokens/s over the processes, or the most MiB of any."""
        found = list(amounts(self.records).values())
        if not found:
            return None
        return _exact(max(found)) if self.is_counted else median_interval(found)

    @cached_property
    def ratio(self) -> Interval | None:
        """To the other side: of speeds paired by block, of bytes exact."""
        mine, other = amounts(self.records), amounts(self.other)
        if not self.is_counted:
            return ratio_interval(mine, other)
        return _exact(max(mine.values()) / max(other.values())) if mine and other else None

    @property
    def verdict(self) -> str | None:
        """Faster or slower than the published package, fewer or more bytes, or neither."""
        side, ratio = self.records[0].side, self.ratio
        if not self.good:
            return None
        if side != OURS:
            return "noise floor" if side == AGAIN else "baseline"
        if ratio is None:
            return NOT_COMPARED
        if self.is_counted:
            return "fewer" if ratio.median < 1 else "more" if ratio.median > 1 else "equal"
        return verdict(ratio, self.floor)


def amounts(records: Iterable[PeerCell]) -> dict[int, float]:
    """Tokens/s, or MiB saved for backward, of each process that succeeded, by block."""
    return {r.repeat: r.amount for r in records if r.status == "ok"}


def _exact(value: float) -> Interval:
    return Interval(value, math.nan, math.nan, 0)


def _same(name: str) -> Callable[[Group], Any]:
    """The field that all records of a row share."""
    return lambda group: getattr((group.good or group.records)[0], name)


def _ends(name: str) -> Callable[[str], Callable[[Group], float | None]]:
    return lambda end: lambda group: getattr(getattr(group, name), end, None)


VALUE, RATIO = "value", "ratio"
SHOWN = (
    "side", "base", "setting", "work", "precision", VALUE, "unit", RATIO, "verdict", "n_ok",
    "n_failed", "n_parameters",
)  # fmt: skip
"""Columns of PEER on the page."""

RATIO_COLUMN = Column(
    RATIO,
    "Ours over the published package, paired by block; on rows of ours.",
    "× {peer}",
    heading="ours / published",
    format=".3f",
    value=_ends(RATIO)("median"),
    quantity="speed, ours to the published package's",
    better="higher",
    compare="noise",
)
VALUE_COLUMN = Column(
    VALUE,
    "Speed, or what work `saved` saves for backward; the column unit names its unit.",
    heading="value",
    format=",.1f",
    value=_ends(VALUE)("median"),
    better="higher",
    compare="noise",
)
PEER = Table(
    "peer.csv",
    "One row a side, base, setting, work and precision.",
    (
        shared.TIMESTAMP.but(value=lambda group: group.run.name),
        raw.SIDE.but(value=_same("side")),
        shared.BASE.but(value=_same("base")),
        raw.SETTING.but(value=_same("setting")),
        raw.WORK.but(value=_same("work")),
        shared.PRECISION.but(value=_same("precision")),
        shared.BATCH_TOKENS.but(value=_same("batch_tokens")),
        shared.CONTEXT_LENGTH.but(value=_same("context_length")),
        VALUE_COLUMN,
        *interval_columns(VALUE, "the value", "", _ends(VALUE)),
        Column(
            "unit",
            "Unit of the value.",
            heading="unit",
            value=lambda group: "MiB" if group.is_counted else "tokens/s",
        ),
        RATIO_COLUMN,
        *interval_columns(RATIO, "the ratio", "", _ends(RATIO)),
        shared.VERDICT.but(value=lambda group: group.verdict),
        shared.NOISE_FLOOR.but(value=lambda group: group.floor),
        shared.N_OK.but(heading="processes", value=lambda group: len(group.good)),
        shared.N_FAILED.but(heading="failed", value=lambda g: len(g.records) - len(g.good)),
        shared.STATUS.but(value=lambda group: "ok" if group.good else "failed"),
        shared.REASON.but(
            value=lambda group: "; ".join(
                dict.fromkeys(r.reason for r in group.records if r.status != "ok")
            )
        ),
        raw.CHOICES.but(value=_same("choices")),
        raw.N_PARAMETERS.but(value=_same("n_parameters")),
        shared.DEVICE.but(value=lambda group: group.run.device),
    ),
    caption="Every side, base, setting and mode",
    shown=SHOWN,
    fixed=("timestamp", "base", VALUE),
)
PROTOCOL = Table(
    "protocol.csv",
    "One row a measure, what the original's own protocol gives here.",
    (
        shared.TIMESTAMP,
        raw.CHECK,
        raw.PROTOCOL_SIDE,
        shared.BASE,
        shared.BATCH_TOKENS,
        shared.CONTEXT_LENGTH.but(heading="context", format="{:,}"),
        raw.MEASURE,
        raw.PROTOCOL_VALUE,
        Column("unit", "Unit of the value.", heading="unit"),
        shared.STATUS,
        shared.REASON.but(heading="why not"),
        shared.DEVICE,
    ),
    caption="The original's own protocol on both packages",
)
BESIDE = Table(
    "",
    "Ours beside the published package.",
    (
        raw.WORK,
        shared.PRECISION,
        shared.BASE,
        raw.SETTING,
        RATIO_COLUMN,
        Column("result", "The verdict, or which side failed and why.", heading="verdict"),
        VALUE_COLUMN.but(heading=OURS),
        VALUE_COLUMN.but(name=f"published_{VALUE}", heading=PUBLISHED),
        PEER["unit"],
        shared.NOISE_FLOOR.but(heading="noise floor", format=".1%"),
        raw.CHOICES.but(heading="choices of ours"),
        raw.CHOICES.but(name="published_choices", heading="of the published"),
        shared.N_OK.but(heading="processes"),
        *interval_columns(RATIO, "the ratio"),
    ),
    caption="Ours beside the published package",
    filters=("mode", "base", "setting"),
)
"""On the page and in README.md; rows of `pairs`."""


def tabulate(records: Iterable[AnyCell], run: RunInfo[PeerConfig]) -> Tables:
    """Both tables of a run; failed rows are there too.

    Args:
        records: Of all processes.
        run: That they are of.
    """
    records = list(records)
    known = {"timestamp": run.name, "device": run.device}
    protocol = (
        asdict(cell) | known | {"unit": UNITS.get(cell.measure, "MiB")}
        for cell in raw.repeated(records)
    )
    rows = [PEER.row(group) for group in _groups(raw.compared(records), run)]
    return {PEER.file: PEER.frame(rows), PROTOCOL.file: PROTOCOL.frame(protocol)}


def _groups(records: Sequence[PeerCell], run: RunInfo[PeerConfig]) -> Iterator[Group]:
    """Groups of all rows, in their order; of each work the sides follow one another."""
    by_row: dict[tuple[Any, ...], list[PeerCell]] = {}
    for record in records:
        by_row.setdefault((record.side, *record.row), []).append(record)
    config = run.config
    wanted = product(config.precision, config.work, config.base, config.setting)
    for precision, work, base, setting in wanted:
        sides = {side: by_row.get((side, base, setting, work, precision), []) for side in SIDES}
        same = ratio_interval(amounts(sides[AGAIN]), amounts(sides[OURS]))
        floor = None if work == SAVED else noise_floor(same)
        for side, mine in sides.items():
            if mine:
                yield Group(mine, sides.get(OTHER.get(side, ""), []), floor, run)


def column_of(column: Column, row: Mapping[str, Any]) -> Column:
    """What a column of PEER means on a row: bytes are counted, and fewer are better."""
    changes = {VALUE: {"text": "Speed.", "unit": "tokens/s"}}
    if row["work"] == SAVED:
        counted = {"better": "lower", "compare": "counted"}
        changes = {
            VALUE: {"text": "Saved for backward.", "unit": "MiB"} | counted,
            RATIO: {"quantity": "saved for backward, ours to theirs"} | counted,
        }
    elif row["side"] == AGAIN:
        changes[RATIO] = {"quantity": "speed, ours measured again to ours", "unit": "×"}
    return column.but(**changes.get(column.name, {}))


def pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of ours with those of the published package beside, as `published_` columns.

    A row whose other side is not there stays, its other half unknown. `result` is the verdict, or
    whose failure stands in its place, and why.
    """
    keys = ["work", "precision", "base", "setting"]
    ours, published = (rows[rows["side"] == side] for side in (OURS, PUBLISHED))
    others = published.add_prefix("published_")
    both = ours.merge(others, "left", left_on=keys, right_on=[f"published_{key}" for key in keys])
    return both.assign(result=[_result(row) for row in plain_rows(both)])


def _result(row: Mapping[str, Any]) -> str:
    failed = [
        f"{side} failed: {row[f'{prefix}reason']}"
        for side, prefix in ((OURS, ""), (PUBLISHED, "published_"))
        if row[f"{prefix}status"] == "failed"
    ]
    return "; ".join(failed) or row["verdict"] or UNKNOWN
