"""Tables and files of the comparison with the published package, from what its run states."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from psannlm.bench.statistics import CONFIDENCE
from psannlm.evidence.text import UNKNOWN, interval, number, sortable
from psannlm.pages.peer.cells import OURS, PUBLISHED
from psannlm.pages.peer.tables import SAVED, Comparison

WORKS = {
    "forward": "forward",
    "train_step": "training step",
    "generate": "generation",
    "saved": "kept for backward",
}
"""What people call a kind of work."""

PAIR = ["work", "precision", "base", "setting"]
"""Columns that both sides of a pair share."""

MEASURES = {
    "rel_diff": "relative difference of losses",
    "tokens_per_s": "speed, tokens/s",
    "max_allocated_mib": "peak allocated, MiB",
    "max_reserved_mib": "peak reserved, MiB",
    "saved_mib": "kept for backward, MiB",
    "elapsed_s": "time of a step, s",
}
"""What people call a measure of the protocol."""


def package(parameters: Mapping[str, Any]) -> str:
    """The published package as prose names it: `psannlm 2.0.1`."""
    return str(parameters["peer"]).replace("==", " ")


def pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of ours with those of the published package beside, its columns ending in `_published`.

    A row whose other side is not there stays, its other half unknown.
    """
    ours, published = (rows[rows["side"] == side] for side in (OURS, PUBLISHED))
    return ours.merge(published, on=PAIR, how="left", suffixes=("", "_published"))


def beside(rows: pd.DataFrame, work: str) -> pd.DataFrame:
    """One row a base, setting and precision of one work: ours beside the published package."""
    found = pairs(rows[rows["work"] == work])
    counted = work == SAVED
    unit, pattern = ("MiB", ",.1f") if counted else ("tokens/s", ",.0f")
    around = "" if counted else f" ({CONFIDENCE:.0%} interval)"
    records = found.to_dict("records")
    columns: dict[str, list[Any]] = {
        "base": list(found["base"]),
        "setting": list(found["setting"]),
        "precision": list(found["precision"]),
        f"ours / published{around}": [
            interval(row["ratio"], row["ratio_low"], row["ratio_high"], ".3f") for row in records
        ],
        "verdict": [_verdict(row) for row in records],
        f"ours, {unit}{around}": [_value(row, "", pattern) for row in records],
        f"published, {unit}{around}": [_value(row, "_published", pattern) for row in records],
    }
    if not counted:
        columns["noise floor"] = [number(row["noise_floor"], ".1%") for row in records]
    columns |= {
        "choices of ours": [_text(row["choices"]) for row in records],
        "of the published": [_text(row["choices_published"]) for row in records],
    }
    return pd.DataFrame(columns)


def _value(row: Mapping[Any, Any], side: str, pattern: str) -> str:
    middle, low, high = (row[f"value{end}{side}"] for end in ("", "_low", "_high"))
    return interval(middle, low, high, pattern)


def _verdict(row: Mapping[Any, Any]) -> str:
    """The verdict, or whose failure stands in its place, and why."""
    failed = [
        f"{name} failed: {_text(row[f'reason{side}'])}"
        for name, side in (("ours", ""), ("published", "_published"))
        if row[f"status{side}"] == "failed"
    ]
    return "; ".join(failed) or _text(row["verdict"])


def _text(value: Any) -> str:
    return UNKNOWN if value is None or pd.isna(value) or value == "" else str(value)


def by_work(found: Comparison) -> str:
    """HTML of a table a kind of work, in the order in which they were asked for."""
    works = dict.fromkeys(found.rows["work"])
    return "\n".join(
        sortable(beside(found.rows, work), f"Ours beside the published package: {WORKS[work]}")
        for work in works
    )


def every_row(found: Comparison) -> pd.DataFrame:
    """Each row that was measured, ours a second time too."""
    rows = found.rows.to_dict("records")
    return pd.DataFrame(
        {
            "side": [row["side"] for row in rows],
            "base": [row["base"] for row in rows],
            "setting": [row["setting"] for row in rows],
            "work": [WORKS[row["work"]] for row in rows],
            "precision": [row["precision"] for row in rows],
            f"value ({CONFIDENCE:.0%} interval)": [
                _value(row, "", ",.1f" if row["work"] == SAVED else ",.0f") for row in rows
            ],
            "unit": [row["unit"] for row in rows],
            "ratio": [
                interval(row["ratio"], row["ratio_low"], row["ratio_high"], ".3f") for row in rows
            ],
            "result": [
                f"failed: {row['reason']}" if row["status"] == "failed" else row["verdict"]
                for row in rows
            ],
            "processes": [
                f"{row['n_ok']}" + (f" ({row['n_failed']} failed)" if row["n_failed"] else "")
                for row in rows
            ],
            "parameters": [number(row["n_parameters"], ",.0f") for row in rows],
        }
    )


def protocol(found: Comparison) -> pd.DataFrame:
    """One row a measure of the original's own protocol: ours beside the published package."""
    shared = ["check", "base", "batch_tokens", "context_length", "measure"]
    cells = {
        (side, *(row[name] for name in shared)): row
        for side, rows in found.protocol.groupby("side", sort=False)
        for row in rows.to_dict("records")
    }
    keys = list(dict.fromkeys(key[1:] for key in cells))
    return pd.DataFrame(
        {
            "check": [check for check, *_ in keys],
            "base": [base for _, base, *_ in keys],
            "batch tokens": [f"{tokens:,}" for _, _, tokens, *_ in keys],
            "context": [f"{context:,}" for *_, context, _ in keys],
            "measure": [MEASURES.get(key[-1], key[-1]) for key in keys],
            **{side: [_measure(cells.get((side, *key))) for key in keys] for side in SHOWN},
        }
    )


SHOWN = (OURS, PUBLISHED)
"""Sides of the protocol, in the order of their columns."""


def _measure(row: Mapping[Any, Any] | None) -> str:
    if row is None:
        return UNKNOWN
    if row["status"] == "failed":
        return f"failed: {row['reason']}"
    if row["value"] is None or pd.isna(row["value"]):
        return _text(row["reason"])
    return number(row["value"], ",.0f" if row["measure"] == "tokens_per_s" else ",.4g")


def files(found: Comparison, manifest: Mapping[str, Any]) -> dict[str, str]:
    """The files of a run that state its result, by name."""
    return {
        "peer.csv": found.rows.to_csv(index=False, lineterminator="\n"),
        "protocol.csv": found.protocol.to_csv(index=False, lineterminator="\n"),
        "README.md": readme(found, manifest),
    }


def readme(found: Comparison, manifest: Mapping[str, Any]) -> str:
    """README.md of a run folder: each ratio with its verdict."""
    lines = [
        f"# Against the published package, {manifest['run']}",
        "",
        f"Preset {manifest['preset']}, on {manifest['environment']['device']}, beside "
        f"{package(manifest['parameters'])}. A ratio is ours to the published package's, paired by "
        f"block, with its {CONFIDENCE:.0%} interval; of work kept for backward it is one of bytes.",
        "",
        "| work | precision | base | setting | ours / published | verdict |",
        "|---|---|---|---|---:|---|",
    ]
    for row in pairs(found.rows).to_dict("records"):
        ratio = interval(row["ratio"], row["ratio_low"], row["ratio_high"], ".3f")
        lines.append(
            f"| {WORKS[row['work']]} | {row['precision']} | {row['base']} | {row['setting']} "
            f"| {ratio} | {_verdict(row).replace('|', '/')} |"
        )
    return "\n".join([*lines, "", f"Made by `{manifest['command']}`.", ""])
