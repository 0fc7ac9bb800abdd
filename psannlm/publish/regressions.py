"""What became worse or better: the newest run of each page and machine against the one before it.

Only what was measured alike is compared: the same machine model, torch, threads, parameters and
text. What a difference must exceed is known before: the noise floor that the runs state.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from psannlm.evidence.runs import Evidence, Refused
from psannlm.evidence.text import UNKNOWN, number
from psannlm.publish.judging import Judged, judge
from psannlm.publish.numbers import Number, numbers_of
from psannlm.publish.run_facts import complete_runs, differences, machine, page
from psannlm.publish.run_table import bases_of
from psannlm.run.noise import machine_floor

COLUMNS = (
    "page", "preset", "machine", "base", "number", "setting", "unit", "run", "row", "value",
    "before_run", "before_row", "before", "change", "bound", "verdict", "reason",
)  # fmt: skip
"""`change` is the value over the one before, minus one. A whole pair has all bases."""


def regressions(runs: Sequence[Evidence | Refused]) -> pd.DataFrame:
    """One row a number of the newest runs; one row for a pair of runs that cannot be compared."""
    complete = complete_runs(runs)
    rows: list[dict[str, Any]] = []
    for newer, older in pairs(complete):
        if why := "; ".join(differences(newer, older)):
            pair = {
                "base": bases_of(newer),
                "run": newer.manifest["run"],
                "before_run": older.manifest["run"],
            }
            rows.append(_place(newer) | pair | {"verdict": "not comparable", "reason": why})
            continue
        floor = machine_floor(complete, newer)
        before = {number.key: number for number in numbers_of(older)}
        for now in numbers_of(newer):
            if now.quantity.rule != "sum":
                then = before.get(now.key)
                rows.append(_row(now, then, judge(now, then, floor)))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(object)


def pairs(complete: Sequence[Evidence]) -> Iterator[tuple[Evidence, Evidence]]:
    """Of each page, preset and machine the newest run with the one it is held against.

    That is the run before it on the same machine; where there is none, the newest of another
    machine, so that the page can say why the two are not compared.
    """
    groups: dict[tuple[str, str], list[Evidence]] = {}
    for run in complete:
        groups.setdefault((page(run), str(run.manifest["preset"])), []).append(run)
    for group in groups.values():
        for name in dict.fromkeys(map(machine, group)):
            mine = [run for run in group if machine(run) == name]
            earlier = group[: group.index(mine[-1])]
            before = mine[:-1] or earlier
            if before:
                yield mine[-1], before[-1]


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table as people read it, what changed first."""
    order = ("regressed", "improved", "not comparable", "within the noise", "unchanged")
    place: Mapping[str, int] = {verdict: at for at, verdict in enumerate(order)}
    rows = table.sort_values("verdict", key=lambda words: words.map(place), kind="stable")
    return pd.DataFrame(
        {
            "page": rows["page"],
            "base": rows["base"],
            "number": [
                ", ".join(str(part) for part in parts if part and not pd.isna(part)) or "all"
                for parts in zip(rows["number"], rows["setting"], strict=True)
            ],
            "verdict": rows["verdict"],
            "change": [number(change, "+.1%") for change in rows["change"]],
            "newest": _values(rows, "value"),
            "before": _values(rows, "before"),
            "bound, or why not": [
                next((str(word) for word in words if word and not pd.isna(word)), UNKNOWN)
                for words in zip(rows["reason"], rows["bound"], strict=True)
            ],
            "newest run": rows["run"],
            "against": rows["before_run"],
            "machine": rows["machine"],
            "preset": rows["preset"],
        }
    )


def summary(table: pd.DataFrame) -> str:
    """How many rows changed and how many did not, in one sentence."""
    if table.empty:
        return "No page has two complete runs of one preset yet, so there is nothing to compare."
    counts = table["verdict"].value_counts()
    compared = len(table) - int(counts.get("not comparable", 0))
    if not compared:
        return (
            "**No row could be compared**: every pair of runs differs in what was asked or in "
            "what it ran on. What differs is named below."
        )
    return (
        f"Of {compared:,} compared numbers **{counts.get('regressed', 0)} regressed** and "
        f"{counts.get('improved', 0)} improved; the others stayed within their bounds. "
        f"{len(table) - compared:,} more could not be compared; the table says why."
    )


def _values(rows: pd.DataFrame, column: str) -> list[str]:
    said = []
    for value, unit in zip(rows[column], rows["unit"], strict=True):
        if isinstance(value, str):
            said.append(value)
        else:
            said.append(number(value, ",.6g") + (f" {unit}" if unit and not pd.isna(value) else ""))
    return said


def _row(now: Number, then: Number | None, judged: Judged) -> dict[str, Any]:
    row = _place(now.run) | {
        "base": now.base,
        "number": now.quantity.name,
        "setting": now.setting,
        "unit": now.quantity.unit,
        "run": now.run.manifest["run"],
        "row": now.row,
        "value": _stated(now),
        "change": judged.change,
        "bound": judged.bound,
        "verdict": judged.verdict,
        "reason": judged.reason,
    }
    if then is None:
        return row
    before = {"before_run": then.run.manifest["run"], "before_row": then.row}
    return row | before | {"before": _stated(then)}


def _stated(one: Number) -> float | str:
    return one.status if one.value is None or one.quantity.rule == "check" else one.value


def _place(run: Evidence) -> dict[str, Any]:
    return {"page": page(run), "preset": run.manifest["preset"], "machine": machine(run)}
