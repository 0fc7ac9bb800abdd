"""The tables of the comparison with the published package, and how people see them side by side."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from typing import Any

import pandas as pd

from psannlm.bench.statistics import Interval, median_interval, noise_floor, ratio_interval, verdict
from psannlm.evidence import table as shared
from psannlm.evidence.page import RunInfo, Tables
from psannlm.evidence.store import of_type, outcome_cells
from psannlm.evidence.table import Column, Table, interval_cells, interval_columns, plain_rows
from psannlm.evidence.text import UNKNOWN
from psannlm.pages.peer import records as raw
from psannlm.pages.peer.records import AGAIN, OURS, PUBLISHED, SAVED, AnyCell, PeerCell, PeerConfig
from psannlm.pages.peer.works import CHECKS

OTHER = {OURS: PUBLISHED, AGAIN: OURS}  # which side the ratio of a side is taken to
NOT_COMPARED = "not compared"  # the verdict where the other side has nothing to compare with
# Of measures of the protocol; those that are not named are memory in MiB.
UNITS = {"tokens_per_s": "tokens/s", "elapsed_s": "s", "rel_diff": ""}
VALUE, RATIO = "value", "ratio"
EMULATED: Mapping[str, Any] = {  # of what took time in a precision that the device emulates
    **dict.fromkeys((RATIO, f"{RATIO}_low", f"{RATIO}_high", "noise_floor")),
    "verdict": "emulated",
}
_speed = partial(Column, better="higher", compare="noise")
RATIO_COLUMN = _speed(
    RATIO,
    "Ours over the published package, paired by block; on rows of ours.",
    "× {peer}",
    "ours / published",
    ".3f",
    quantity="speed, ours to the published package's",
)
VALUE_COLUMN = _speed(
    VALUE,
    "Speed, or what work `saved` saves for backward; the column unit names its unit.",
    heading="value",
    format=",.1f",
)
UNIT = Column("unit", "Unit of the value.", heading="unit")
PEER = Table(
    "peer.csv",
    "One row a side, base, setting, work and precision.",
    (
        shared.TIMESTAMP, raw.SIDE, shared.BASE, raw.SETTING, raw.WORK, shared.PRECISION,
        shared.EMULATED, shared.BATCH_TOKENS, shared.CONTEXT_LENGTH, VALUE_COLUMN,
        *interval_columns(VALUE, "the value"), UNIT, RATIO_COLUMN,
        *interval_columns(RATIO, "the ratio"), shared.VERDICT, shared.NOISE_FLOOR,
        shared.N_OK.but(heading="processes"), shared.N_FAILED.but(heading="failed"), shared.STATUS,
        shared.REASON, raw.CHOICES, raw.N_PARAMETERS, shared.DEVICE,
    ),
    caption="Every side, base, setting and mode",
    shown=(
        "side", "base", "setting", "work", "precision", VALUE, "unit", RATIO, "verdict", "n_ok",
        "n_failed", "n_parameters",
    ),
    fixed=("timestamp", "base", VALUE),
)  # fmt: skip
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
        shared.EMULATED,
        raw.PROTOCOL_VALUE,
        UNIT,
        shared.STATUS,
        shared.REASON.but(heading="why not"),
        shared.DEVICE,
    ),
    caption="The original's own protocol on both packages",
)
BESIDE = Table(  # on the page and in README.md; rows of `pairs`
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
        UNIT,
        shared.NOISE_FLOOR.but(heading="noise floor", format=".1%"),
        raw.CHOICES.but(heading="choices of ours"),
        raw.CHOICES.but(name="published_choices", heading="of the published"),
        shared.N_OK.but(heading="processes"),
        *interval_columns(RATIO, "the ratio"),
    ),
    caption="Ours beside the published package",
    filters=("mode", "base", "setting"),
)


def amounts(records: Iterable[PeerCell]) -> dict[int, float]:
    """Tokens/s, or MiB saved for backward, of each process that succeeded, by block."""
    return {r.repeat: r.amount for r in records if r.status == "ok"}


def tabulate(records: Sequence[AnyCell], run: RunInfo[PeerConfig]) -> Tables:
    """Both tables of a run; failed rows are there too."""
    known = {"timestamp": run.name, "device": run.device}
    rows = [row | known for row in _rows(of_type(PeerCell, records), run)]
    protocol = of_type(raw.ProtocolCell, records)
    measures = [
        asdict(m)
        | known
        | {"unit": UNITS.get(m.measure, "MiB")}
        | {"emulated": m.measure == "elapsed_s" and run.emulated(CHECKS[m.check].precision)}
        for m in protocol
    ]
    return {PEER.file: PEER.frame(rows), PROTOCOL.file: PROTOCOL.frame(measures)}


def _rows(records: Sequence[PeerCell], run: RunInfo[PeerConfig]) -> Iterator[dict[str, Any]]:
    """All rows, in their order; of each work the sides follow one another."""
    config = run.config
    by_row: dict[tuple[Any, ...], list[PeerCell]] = {}
    for record in records:
        by_row.setdefault((record.side, *record.row), []).append(record)
    wanted = product(config.precision, config.work, config.base, config.setting)
    for precision, work, base, setting in wanted:
        sides = {side: by_row.get((side, base, setting, work, precision), []) for side in raw.SIDES}
        same = ratio_interval(amounts(sides[AGAIN]), amounts(sides[OURS]))
        floor = None if work == SAVED else noise_floor(same)
        for side, mine in sides.items():
            if mine:
                row = _row(mine, sides.get(OTHER.get(side, ""), []), floor)
                emulated = run.emulated(precision)
                if emulated and work != SAVED and row["n_ok"]:
                    row |= EMULATED
                yield row | {"emulated": emulated}


def _row(
    records: Sequence[PeerCell], others: Sequence[PeerCell], floor: float | None
) -> dict[str, Any]:
    """Of the records behind a row and of the side that its ratio is taken to.

    Bytes repeat, so that none has an interval: the most of any process counts.
    """
    good = [record for record in records if record.status == "ok"]
    exact = partial(Interval, low=math.nan, high=math.nan, n=0)
    mine, theirs = amounts(good), amounts(others)
    counted = records[0].work == SAVED
    value = ratio = None
    if counted:
        value = exact(max(mine.values())) if mine else None
        ratio = exact(max(mine.values()) / max(theirs.values())) if mine and theirs else None
    elif mine:
        value, ratio = median_interval(list(mine.values())), ratio_interval(mine, theirs)
    return asdict((good or records)[0]) | {
        **outcome_cells(records),
        **interval_cells(VALUE, value),
        **interval_cells(RATIO, ratio),
        "unit": "MiB" if counted else "tokens/s",
        "verdict": _verdict(records[0], ratio, floor) if good else None,
        "noise_floor": floor,
    }


def _verdict(record: PeerCell, ratio: Interval | None, floor: float | None) -> str:
    """Faster or slower than the published package, fewer or more bytes, or neither."""
    if record.side != OURS:
        return "noise floor" if record.side == AGAIN else "baseline"
    if ratio is None:
        return NOT_COMPARED
    if record.work == SAVED:
        return "fewer" if ratio.median < 1 else "more" if ratio.median > 1 else "equal"
    return verdict(ratio, floor)


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
    ours, published = (rows[rows["side"] == side] for side in (OURS, PUBLISHED))
    others, keys = published.add_prefix("published_"), [f"published_{name}" for name in raw.ROW]
    both = ours.merge(others, "left", left_on=[*raw.ROW], right_on=keys)
    return both.assign(result=[_result(row) for row in plain_rows(both)])


def _result(row: Mapping[str, Any]) -> str:
    failed = [
        f"{side} failed: {row[f'{prefix}reason']}"
        for side, prefix in ((OURS, ""), (PUBLISHED, "published_"))
        if row[f"{prefix}status"] == "failed"
    ]
    return "; ".join(failed) or row["verdict"] or UNKNOWN
