"""What became worse or better: the newest run of each page and machine against the one before it.

Only what was measured alike is compared: the same machine model, torch, threads, parameters and
text. What a difference must exceed is known before: the noise floor that the runs state.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from psannlm.bench.statistics import FEWEST_REPEATS, SMALLEST_EFFECT
from psannlm.evidence.rows import Number
from psannlm.evidence.runs import Evidence, Refused
from psannlm.evidence.table import Column, Compare, Table
from psannlm.evidence.text import UNKNOWN, number
from psannlm.publish.run_facts import (
    bases_of,
    complete_runs,
    differences,
    machine,
    numbers_of,
    page,
)
from psannlm.run.noise import machine_floor

REGRESSIONS = Table(
    "regressions.csv",
    "One row a number of the newest run of a page, held against the run before it.",
    (
        Column("page", "Page that the runs are of."),
        Column("preset", "Set of parameter files, smoke, cpu or gpu."),
        Column("machine", "Device and processor that the run was made on."),
        Column("base", "Bases that the row is of."),
        Column("number", "What the number is, in words."),
        Column("setting", "What the number was measured at."),
        Column("unit", "Unit of the number."),
        Column("run", "Run folder, named by its start in UTC."),
        Column("row", "Number of the row in the run's own table, from 1."),
        Column("value", "The number in the newest run.", "as unit"),
        Column("before_run", "Run folder of the run before."),
        Column("before_row", "Row of that number in its own table."),
        Column("before", "The number in the run before.", "as unit"),
        Column("change", "Share by which the number changed."),
        Column("bound", "How much the number had to change to count.", "as unit, or a share"),
        Column("verdict", "regressed, improved, within the noise, unchanged, or not comparable."),
        Column("reason", "Why it failed, was refused or was skipped; empty otherwise."),
    ),
)
"""`change` is the value over the one before, minus one. A whole pair has all bases."""

Verdict = Literal["regressed", "improved", "within the noise", "unchanged", "not comparable"]


@dataclass(frozen=True)
class Judged:
    """What one number is against the same number of an earlier run."""

    verdict: Verdict
    bound: str = ""
    """What a difference had to exceed, in words."""

    change: float | None = None
    """The value over the one before, minus one."""

    reason: str = ""


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
            if now.column.compare is not None:
                then = before.get(now.key)
                rows.append(_row(now, then, judge(now, then, floor)))
    return pd.DataFrame(rows, columns=REGRESSIONS.names).astype(object)


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
        "number": now.quantity,
        "setting": now.setting,
        "unit": now.unit,
        "run": now.run.manifest["run"],
        "row": _place_of(now),
        "value": _stated(now),
        "change": judged.change,
        "bound": judged.bound,
        "verdict": judged.verdict,
        "reason": judged.reason,
    }
    if then is None:
        return row
    before = {"before_run": then.run.manifest["run"], "before_row": _place_of(then)}
    return row | before | {"before": _stated(then)}


def _stated(one: Number) -> float | str:
    return one.status if one.value is None or one.column.compare == "check" else one.value


def _place(run: Evidence) -> dict[str, Any]:
    return {"page": page(run), "preset": run.manifest["preset"], "machine": machine(run)}


def _place_of(one: Number) -> int | None:
    return one.row.number if one.row else None


def judge(now: Number, then: Number | None, machine_floor: float | None) -> Judged:
    """The verdict on a number.

    Args:
        now: Of the newest run.
        then: The same of the run before; None if that has no such row.
        machine_floor: The noise floor of times that state none of their own; None if unknown.
    """
    if then is None:
        return Judged("not comparable", reason="the run before has no such row")
    if now.column.compare == "check" or now.value is None or then.value is None:
        return _by_status(now, then)
    return RULES[now.column.compare](now, then, machine_floor)


def _by_status(now: Number, then: Number) -> Judged:
    """A check, or what could be measured in one of two runs at most."""
    bound = "a check passes or does not"
    if now.column.compare != "check":
        bound = "a number is there or is not"
    if now.status == then.status:
        return Judged("unchanged", bound)
    good = ("ok", "passed")
    if then.status in good:
        return Judged("regressed", bound)
    if now.status in good:
        return Judged("improved", bound)
    return Judged("not comparable", reason="neither run has a result")


def _beyond_noise(now: Number, then: Number, machine_floor: float | None) -> Judged:
    """Disjoint intervals, and a change above both noise floors and the smallest effect."""
    floors = [floor for floor in (now.floor, then.floor) if floor is not None]
    whose = "noise floor"
    if not floors and machine_floor is not None:
        floors, whose = [machine_floor], "noise floor of this machine"
    if not floors:
        return Judged("not comparable", reason="no noise floor is known of this machine")
    if min(now.n, then.n) < FEWEST_REPEATS:
        why = f"a verdict needs {FEWEST_REPEATS} processes, these are {min(now.n, then.n)}"
        return Judged("not comparable", reason=why)
    bound = max(*floors, SMALLEST_EFFECT)
    said = f"{bound:.1%} ({whose}) and disjoint intervals"
    changed = are_disjoint(now, then) and abs(_change(now, then)) > bound
    return _judged(now, then, changed=changed, bound=said, otherwise="within the noise")


def _single(now: Number, then: Number, machine_floor: float | None) -> Judged:
    """Single runs have no interval: the machine's noise floor alone bounds them."""
    if machine_floor is None:
        return Judged("not comparable", reason="no noise floor is known of this machine")
    bound = max(machine_floor, SMALLEST_EFFECT)
    said = f"{bound:.1%} (noise floor of this machine); single runs, no interval"
    changed = abs(_change(now, then)) > bound
    return _judged(now, then, changed=changed, bound=said, otherwise="within the noise")


def _counted(now: Number, then: Number, machine_floor: float | None) -> Judged:
    """What the same code would repeat to the digit, or nearly so: a fixed share bounds it."""
    said = f"{SMALLEST_EFFECT:.0%}; repeated alike, it has no interval"
    changed = abs(_change(now, then)) > SMALLEST_EFFECT
    return _judged(now, then, changed=changed, bound=said, otherwise="unchanged")


def _interval(now: Number, then: Number, machine_floor: float | None) -> Judged:
    """Disjoint intervals over trainings."""
    if now.low is None or then.low is None:
        return Judged("not comparable", reason="there is no interval")
    changed = are_disjoint(now, then)
    said = "disjoint intervals"
    return _judged(now, then, changed=changed, bound=said, otherwise="within the noise")


RULES: Mapping[Compare | None, Callable[[Number, Number, float | None], Judged]] = {
    "noise": _beyond_noise,
    "single": _single,
    "counted": _counted,
    "interval": _interval,
}


def are_disjoint(now: Number, then: Number) -> bool:
    """Whether no value lies in both intervals; one that is missing shares every value."""
    if now.low is None or now.high is None or then.low is None or then.high is None:
        return False
    return now.low > then.high or then.low > now.high


def _change(now: Number, then: Number) -> float:
    """The newer value over the older one, minus one; infinite if that was nothing."""
    ours, theirs = float(now.value or 0), float(then.value or 0)
    if theirs == 0:
        return 0.0 if ours == 0 else float("inf")
    return ours / theirs - 1


def _judged(now: Number, then: Number, *, changed: bool, bound: str, otherwise: Verdict) -> Judged:
    change = _change(now, then)
    if not changed:
        return Judged(otherwise, bound, change)
    grew = change > 0
    return Judged(
        "improved" if grew == (now.column.better == "higher") else "regressed", bound, change
    )
