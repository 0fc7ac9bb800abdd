"""What must hold between memory.json, savings.csv and the records they were computed from."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product
from statistics import median
from typing import Any

import pandas as pd

from psannlm.evidence.runs import Evidence
from psannlm.files import MIB
from psannlm.pages.memory import cells as memory_cells
from psannlm.pages.memory.limits import PARAMETER_BYTES, impossible
from psannlm.pages.memory.peer import goal, goal_verdict, package_name
from psannlm.pages.memory.records import MemoryRecord, PeerRecord, read_peers
from psannlm.pages.memory.savings import pairs_of
from psannlm.pages.memory.tables import (
    KIND,
    PEAK_WITHIN,
    SAVED_WITHIN,
    error_verdict,
    read_rows,
    step_seconds,
)
from psannlm.pages.memory.worker import DEFAULT

TOLERANCE = 1e-9
"""Relative. The same sums in the same order differ by rounding in the last digits at most."""

SETTING = ("base", "context_length", "batch_tokens", "grad_checkpoint", "amp", "variant")
"""Columns of memory.json that name a row, in the order of a record's setting."""

Row = Mapping[str, Any]


def problems(run: Evidence) -> Iterator[str]:
    """What a run states that its records do not bear out, or that no machine could measure."""
    try:
        records = memory_cells.MEMORY.records(*map(run.text, memory_cells.MEMORY.files))
        rows = _plain(read_rows(run.text("memory.json")))
        savings = _plain(pd.read_csv(io.StringIO(run.text("savings.csv"))))
        peers = read_peers(run.text(memory_cells.PEERS))
        stated = _plain(pd.read_csv(io.StringIO(run.text("peer.csv"))))
        for found in (
            _raw_problems(run, records),
            _row_problems(rows, records, run.manifest["parameters"]),
            _asked_problems(rows, run.manifest["parameters"]),
            _saving_problems(savings, rows, records),
            _peer_problems(stated, peers, rows, run.manifest["parameters"]),
        ):
            yield from found
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        yield f"its memory cannot be checked: {type(error).__name__}: {error}"


def _plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table, None where a value is unknown."""
    plain = table.astype(object).where(table.notna(), None)
    return [{str(k): v for k, v in row.items()} for row in plain.to_dict("records")]


def _differs(where: str, stated: Any, expected: Any) -> Iterator[str]:
    """The message that the records give something else, unless they give what is stated."""
    if isinstance(expected, float) and isinstance(stated, int | float):
        same = math.isclose(stated, expected, rel_tol=TOLERANCE, abs_tol=1e-12)
    else:
        same = stated == expected
    if not same:
        yield f"{where} is {stated!r}, the records give {expected!r}"


def _raw_problems(run: Evidence, records: Sequence[MemoryRecord]) -> Iterator[str]:
    keys = [record.key for record in records]
    if len(set(keys)) < len(keys):
        yield "memory_records.json: a process of one block and setting stands there twice"
    for name, text in zip(
        memory_cells.MEMORY.files, memory_cells.MEMORY.texts(records), strict=True
    ):
        if run.text(name) != text:
            yield f"{name}: is not what the records of memory_records.json give"
    for record in records:
        where = f"memory_records.json: block {record.repeat}, {_name(record.setting)}"
        foreseen, weights = record.predicted["parameters"], PARAMETER_BYTES * record.n_parameters
        yield from _differs(f"{where}: predicted bytes of parameters", foreseen, weights)
        if record.status == "ok":
            for problem in impossible(record):
                yield f"{where}: {problem}"


def _row_problems(
    rows: Sequence[Row], records: Sequence[MemoryRecord], parameters: Mapping[str, Any]
) -> Iterator[str]:
    stated = [_setting(row) for row in rows]
    for row, setting in zip(rows, stated, strict=True):
        where = f"memory.json: {_name(setting)}"
        mine = [r for r in records if r.setting == setting]
        if not mine:
            yield f"{where}: no process of that setting"
            continue
        for name, expected in _expected_row(mine, parameters).items():
            yield from _differs(f"{where}: {name}", row[name], expected)
        for problem in _row_bounds(row, [r for r in mine if r.status == "ok"]):
            yield f"{where}: {problem}"
    for setting in stated:
        if stated.count(setting) > 1:
            yield f"memory.json: two rows for {_name(setting)}"
    for missing in {r.setting for r in records} - set(stated):
        yield f"memory.json: no row for {_name(missing)}"


def _expected_row(mine: Sequence[MemoryRecord], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What a row must state, from its records."""
    good = [r for r in mine if r.status == "ok"]
    predicted = {k: v / MIB for k, v in mine[0].predicted.items()}
    kinds = {k.removeprefix(KIND): v for k, v in predicted.items() if k.startswith(KIND)}
    allocated = _most(good, "peak_allocated_bytes")
    reserved = _most(good, "peak_reserved_bytes")
    saved, seconds = _most(good, "saved_bytes"), list(step_seconds(good).values())
    expected = {
        **{name: parameters[name] for name in ("d_model", "n_layers", "vocab_size")},
        **{f"predicted_{k}_mib": v for k, v in predicted.items() if not k.startswith(KIND)},
        "status": "ok" if good else "failed",
        "n_ok": len(good),
        "n_failed": len(mine) - len(good),
        "n_parameters": mine[0].n_parameters,
        "elapsed_s": median(seconds) if seconds else None,
        "saved_mib": saved,
        "peak_allocated_mib": allocated,
        "max_memory_mb": None if reserved is None else allocated,
        "max_reserved_mb": reserved,
        "rss_before_mib": _most(good, "rss_before_bytes"),
        "peak_rss_mib": _most(good, "peak_rss_bytes"),
        "predicted_kinds_mib": kinds,
        "predicted_saved_mib": sum(kinds.values()) if kinds else None,
    }
    for what, found, within in (
        ("saved", saved, SAVED_WITHIN),
        ("peak", allocated, PEAK_WITHIN),
    ):
        foreseen = expected.get(f"predicted_{what}_mib")
        error = foreseen / found - 1 if foreseen is not None and found else None
        expected[f"{what}_error"] = error
        expected[f"{what}_verdict"] = None if error is None else error_verdict(error, within)
    return expected


def _row_bounds(row: Row, good: Sequence[MemoryRecord]) -> Iterator[str]:
    if not good and not row["reason"]:
        yield "no process succeeded, and no reason is given"
    means = list(step_seconds(good).values())
    if means and row["elapsed_s"] is not None:
        low, high = row["elapsed_s_low"], row["elapsed_s_high"]
        if not _rising(min(means), low, row["elapsed_s"], high, max(means)):
            yield "elapsed_s lies outside its interval, or that outside the samples"


def _rising(*values: float) -> bool:
    """Whether no value is less than the one before, but for rounding."""
    return all(a <= b * (1 + TOLERANCE) for a, b in pairwise(values))


def _asked_problems(rows: Sequence[Row], parameters: Mapping[str, Any]) -> Iterator[str]:
    """Each base must be there with and without checkpointing, measured or failed."""
    stated = {_setting(row) for row in rows}
    shape = (parameters["context_length"], parameters["batch_tokens"][0])
    for base, precision, on in product(parameters["base"], parameters["precision"], (False, True)):
        setting = (base, *shape, on, precision, DEFAULT)
        if setting not in stated:
            yield f"memory.json: no row for {_name(setting)}, which was asked for"


def _saving_problems(
    savings: Sequence[Row], rows: Sequence[Row], records: Sequence[MemoryRecord]
) -> Iterator[str]:
    by_setting = {_setting(row): row for row in rows}
    wanted = {
        (saver, with_): (without, with_) for saver, without, with_ in pairs_of(list(by_setting))
    }
    stated = [(row["saver"], _with(row)) for row in savings]
    for (saver, setting), row in zip(stated, savings, strict=True):
        where = f"savings.csv: {saver}, {_name(setting)}"
        if (saver, setting) not in wanted:
            yield f"{where}: memory.json has no such pair of rows"
            continue
        without, with_ = wanted[saver, setting]
        for problem in _one_saving(row, by_setting[without], by_setting[with_], records):
            yield f"{where}: {problem}"
    for saver, setting in wanted.keys() - set(stated):
        yield f"savings.csv: no row for {saver}, {_name(setting)}"


def _one_saving(
    row: Row, without: Row, with_: Row, records: Sequence[MemoryRecord]
) -> Iterator[str]:
    expected: dict[str, Any] = {
        "status": "ok" if without["status"] == with_["status"] == "ok" else "failed",
        "elapsed_without_s": without["elapsed_s"],
        "elapsed_with_s": with_["elapsed_s"],
    }
    for what, column in (("saved", "saved_mib"), ("peak", "peak_allocated_mib")):
        before, after = without[column], with_[column]
        less = before - after if before and after is not None else None
        expected |= {f"{what}_without_mib": before, f"{what}_with_mib": after}
        expected[f"{what}_less_mib"] = less
        expected[f"{what}_less_share"] = None if less is None else less / before
    seconds = [
        step_seconds(r for r in records if r.setting == _setting(side)) for side in (without, with_)
    ]
    ratios = [seconds[1][block] / seconds[0][block] for block in seconds[0].keys() & seconds[1]]
    expected |= {"n_blocks": len(ratios), "time_ratio": median(ratios) if ratios else None}
    for name, value in expected.items():
        yield from _differs(name, row[name], value)
    low, high = row["time_ratio_low"], row["time_ratio_high"]
    if ratios and not _rising(min(ratios), low, row["time_ratio"], high, max(ratios)):
        yield "time_ratio lies outside its interval, or that outside the samples"


def _peer_problems(
    stated: Sequence[Row],
    peers: Sequence[PeerRecord],
    rows: Sequence[Row],
    parameters: Mapping[str, Any],
) -> Iterator[str]:
    """Rows of peer.csv that do not follow from what was counted of the package, and of ours."""
    by_setting = {_setting(row): row for row in rows}
    if len(stated) != len(peers):
        yield f"peer.csv: {len(stated)} rows for {len(peers)} records of {memory_cells.PEERS}"
        return
    for row, peer in zip(stated, peers, strict=True):
        where = f"peer.csv: {package_name(peer)}, {peer.precision}"
        shape = (peer.context_length, peer.batch_tokens)
        ours = by_setting.get((peer.base, *shape, False, peer.precision, DEFAULT), {})
        saved, theirs = ours.get("saved_mib"), peer.saved_bytes
        ratio = saved / (theirs / MIB) if saved is not None and theirs else None
        wanted = goal(peer.precision, parameters)
        expected = {
            "package": package_name(peer),
            "base": peer.base,
            "precision": peer.precision,
            "status": peer.status,
            "peer_saved_mib": None if theirs is None else theirs / MIB,
            "saved_mib": saved,
            "ratio": ratio,
            "goal": wanted,
            "verdict": goal_verdict(ratio, wanted),
        }
        for name, value in expected.items():
            yield from _differs(f"{where}: {name}", row[name], value)


def _setting(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in SETTING)


def _with(row: Row) -> tuple[Any, ...]:
    """The setting that has the saver, of a row of savings.csv."""
    names = ("base", "context_length", "batch_tokens", "grad_checkpoint", "precision")
    return (*(row[name] for name in names), DEFAULT)


def _most(records: Sequence[MemoryRecord], name: str) -> float | None:
    known = [value / MIB for r in records if (value := getattr(r, name)) is not None]
    return max(known, default=None)


def _name(setting: Sequence[Any]) -> str:
    """A setting as a message names it."""
    base, context, tokens, on, precision, variant = setting
    plain = "" if variant == DEFAULT else f", {variant}"
    return (
        f"{base}, {precision}, {tokens} tokens at {context}, "
        f"checkpointing {'on' if on else 'off'}{plain}"
    )
