"""The tables of the comparison with the published package, from records to rows."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from psannlm.bench.statistics import (
    Interval,
    median_interval,
    noise_floor,
    ratio_interval,
    verdict,
)
from psannlm.evidence.runs import Evidence
from psannlm.files import MIB
from psannlm.pages.peer.cells import AGAIN, OURS, PUBLISHED, SIDES, PeerCell, ProtocolCell
from psannlm.pages.peer.config import PeerConfig

PEER = (
    "timestamp", "side", "base", "setting", "work", "precision", "batch_tokens", "context_length",
    "value", "value_low", "value_high", "unit", "ratio", "ratio_low", "ratio_high", "verdict",
    "noise_floor", "n_ok", "n_failed", "status", "reason", "choices", "n_parameters", "device",
)  # fmt: skip
"""Of peer.csv: one row a side, base, setting, work and precision. `value` is tokens/s, or MiB of
work `saved`; `ratio` is ours to the published package's, paired by block, on rows of ours; that of
ours measured again is to ours, and makes the noise floor."""

PROTOCOL = (
    "timestamp", "check", "side", "base", "batch_tokens", "context_length", "measure", "value",
    "unit", "status", "reason", "device",
)  # fmt: skip
"""Of protocol.csv: what the original's own protocol gives here, one row a measure."""

SAVED = "saved"
"""The work that is counted, not timed."""

UNITS = {"tokens_per_s": "tokens/s", "elapsed_s": "s", "rel_diff": ""}
"""Of measures of the protocol; those that are not named are memory in MiB."""

NOT_COMPARED = "not compared"
"""The verdict where the other side has nothing to compare with."""


@dataclass(frozen=True)
class Comparison:
    """What a run states."""

    rows: pd.DataFrame
    """With the columns of PEER."""

    protocol: pd.DataFrame
    """With the columns of PROTOCOL."""


def comparison(
    records: Iterable[PeerCell],
    protocol: Iterable[ProtocolCell],
    config: PeerConfig,
    *,
    timestamp: str,
    device: str,
) -> Comparison:
    """Both tables of a run.

    Args:
        records: Of all processes.
        protocol: Of the original's own protocol.
        config: Of the run.
        timestamp: Name of the run folder.
        device: Name of the measured device.
    """
    return Comparison(
        peer_table(records, config, timestamp=timestamp, device=device),
        protocol_table(protocol, timestamp=timestamp, device=device),
    )


def read(run: Evidence) -> Comparison:
    """What a complete run states, from its files."""
    return Comparison(
        pd.read_csv(io.StringIO(run.text("peer.csv"))),
        pd.read_csv(io.StringIO(run.text("protocol.csv"))),
    )


def peer_table(
    records: Iterable[PeerCell], config: PeerConfig, *, timestamp: str, device: str
) -> pd.DataFrame:
    """One row a side, base, setting, work and precision that was measured, failed ones too.

    Args:
        records: Of all processes.
        config: Of the run.
        timestamp: Name of the run folder.
        device: Name of the measured device.
    """
    records = list(records)
    rows = []
    for wanted in product(config.precision, config.work, config.base, config.setting):
        mine = [r for r in records if (r.precision, r.work, r.base, r.setting) == wanted]
        by_side = {side: [r for r in mine if r.side == side] for side in SIDES}
        counted = wanted[1] == SAVED
        rows += (_counted if counted else _timed)({s: r for s, r in by_side.items() if r})
    known = {"timestamp": timestamp, "device": device}
    table = pd.DataFrame([row | known for row in rows], columns=list(PEER))
    return table.astype({"n_parameters": "Int64"})  # whole, though some are unknown


def _timed(by_side: Mapping[str, Sequence[PeerCell]]) -> list[dict[str, Any]]:
    """Rows of one work by speed: all sides of one base, setting and precision."""
    rates = {
        side: {r.repeat: r.tokens_per_s for r in by_side.get(side, ()) if r.status == "ok"}
        for side in SIDES
    }
    same = ratio_interval(rates[AGAIN], rates[OURS])
    ratio = ratio_interval(rates[OURS], rates[PUBLISHED])
    floor = noise_floor(same)
    compared = {
        OURS: _ratio(ratio, verdict(ratio, floor) if ratio else NOT_COMPARED),
        AGAIN: _ratio(same, "noise floor"),
        PUBLISHED: {"verdict": "baseline"},
    }
    rows = []
    for side, records in by_side.items():
        row = _row(records) | {"unit": "tokens/s", "noise_floor": floor}
        if row["status"] == "ok":
            speed = median_interval(list(rates[side].values()))
            row |= {"value": speed.median, "value_low": speed.low, "value_high": speed.high}
            row |= compared[side]
        rows.append(row)
    return rows


def _ratio(ratio: Interval | None, word: str) -> dict[str, Any]:
    if ratio is None:
        return {"verdict": word}
    return {
        "ratio": ratio.median,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "verdict": word,
    }


def _counted(by_side: Mapping[str, Sequence[PeerCell]]) -> list[dict[str, Any]]:
    """Rows of the bytes kept for backward: they repeat, so that none has an interval."""
    most = {
        side: max((r.saved_bytes for r in records if r.saved_bytes is not None), default=None)
        for side, records in by_side.items()
    }
    rows = []
    for side, records in by_side.items():
        row = _row(records) | {"unit": "MiB"}
        saved = most[side]
        if row["status"] == "ok" and saved is not None:
            row |= {"value": saved / MIB, **_counts(side, most)}
        rows.append(row)
    return rows


def _counts(side: str, most: Mapping[str, int | None]) -> dict[str, Any]:
    """How a side's bytes compare: ours with the published package's, ours again with ours."""
    if side == PUBLISHED:
        return {"verdict": "baseline"}
    mine, other = most[side], most.get(PUBLISHED if side == OURS else OURS)
    if mine is None or not other:
        return {"verdict": NOT_COMPARED}
    word = "fewer" if mine < other else "more" if mine > other else "equal"
    return {"ratio": mine / other, "verdict": word if side == OURS else "noise floor"}


def _row(records: Sequence[PeerCell]) -> dict[str, Any]:
    one = records[0]
    good = [r for r in records if r.status == "ok"]
    names = ("side", "base", "setting", "work", "precision", "batch_tokens", "context_length")
    return {name: getattr(one, name) for name in names} | {
        "n_ok": len(good),
        "n_failed": len(records) - len(good),
        "status": "ok" if good else "failed",
        "reason": "; ".join(dict.fromkeys(r.reason for r in records if r.status != "ok")),
        "choices": (good or records)[0].choices,
        "n_parameters": next((r.n_parameters for r in good if r.n_parameters), None),
    }


def protocol_table(cells: Iterable[ProtocolCell], *, timestamp: str, device: str) -> pd.DataFrame:
    """One row a measure of the original's own protocol, on either side."""
    names = set(PROTOCOL) - {"timestamp", "unit", "device"}
    rows = [
        {name: getattr(cell, name) for name in names}
        | {"timestamp": timestamp, "unit": UNITS.get(cell.measure, "MiB"), "device": device}
        for cell in cells
    ]
    return pd.DataFrame(rows, columns=list(PROTOCOL))
