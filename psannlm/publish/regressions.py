"""What became worse or better: the newest run of each page and machine against the one before it.

Only what was measured alike is compared: the same machine, torch, settings, parameters and
text. What a difference must exceed is known before: the noise floor that the runs state.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import pandas as pd

from psannlm.bench.statistics import FEWEST_REPEATS, SMALLEST_EFFECT
from psannlm.evidence.runs import Evidence, Refused
from psannlm.evidence.table import Column, Number, Table
from psannlm.evidence.text import UNKNOWN, number
from psannlm.publish import run_facts
from psannlm.publish.run_facts import RUNS, machine, page, preset
from psannlm.run.check import machine_floor

REGRESSIONS = Table(
    "regressions.csv",
    "One row a number of the newest run of a page, held against the run before it.",
    (
        Column("page", "Page that the runs are of."),
        RUNS["preset"],
        RUNS["machine"],
        Column("base", "Bases that the row is of."),
        Column("number", "What the number is, in words."),
        Column("setting", "What the number was measured at."),
        Column("unit", "Unit of the number."),
        RUNS["run"],
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
Verdict = Literal["regressed", "improved", "not comparable", "within the noise", "unchanged"]
ORDER = get_args(Verdict)  # what changed comes first


class Judged(NamedTuple):
    """What one number is against the same number of an earlier run."""

    verdict: Verdict
    bound: str = ""  # what a difference had to exceed, in words
    change: float | None = None  # the value over the one before, minus one
    reason: str = ""


def regressions(runs: Sequence[Evidence | Refused]) -> pd.DataFrame:
    """One row a number of the newest runs; one row for a pair of runs that cannot be compared."""
    complete = run_facts.complete_runs(runs)
    rows: list[dict[str, Any]] = []
    for newer, older in pairs(complete):
        place = {"page": page(newer), "preset": preset(newer), "machine": machine(newer)}
        if why := "; ".join(run_facts.differences(newer, older)):
            place |= {"run": newer.manifest["run"], "before_run": older.manifest["run"]}
            rows.append(place | {"base": run_facts.bases_of(newer)} | _incomparable(why)._asdict())
            continue
        floor = machine_floor(complete, newer)
        before = {number.key: number for number in run_facts.numbers_of(older)}
        for now in run_facts.numbers_of(newer):
            if now.column.compare is not None:
                rows.append(place | _row(now, before.get(now.key), floor))
    return pd.DataFrame(rows, columns=REGRESSIONS.names).astype(object)


def _row(now: Number, then: Number | None, machine_floor: float | None) -> dict[str, Any]:
    row = judge(now, then, machine_floor)._asdict()
    row |= {"base": now.base, "number": now.quantity, "setting": now.setting, "unit": now.unit}
    row["run"], row["row"], row["value"] = _stated(now)
    if then is not None:
        row["before_run"], row["before_row"], row["before"] = _stated(then)
    return row


def _stated(one: Number) -> tuple[str, int | None, float | str]:
    """Its run, its row there, and its value or its status."""
    value = one.status if one.value is None or one.column.compare == "check" else one.value
    return one.run.manifest["run"], one.row.number if one.row else None, value


def pairs(complete: Sequence[Evidence]) -> Iterator[tuple[Evidence, Evidence]]:
    """Of each page, preset and machine the newest run with the one it is held against.

    That is the run before it on the same machine; where there is none, the newest of another
    machine, so that the page can say why the two are not compared.
    """
    groups: dict[tuple[str, str], list[Evidence]] = {}
    for run in complete:
        groups.setdefault((page(run), preset(run)), []).append(run)
    for group in groups.values():
        for name in dict.fromkeys(map(machine, group)):
            mine = [run for run in group if machine(run) == name]
            earlier = group[: group.index(mine[-1])]
            before = mine[:-1] or earlier
            yield from ((mine[-1], run) for run in before[-1:])


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table as people read it, what changed first."""
    rows = table.sort_values("verdict", key=lambda said: said.map(ORDER.index), kind="stable")
    return pd.DataFrame(
        {
            "page": row["page"],
            "base": row["base"],
            "number": ", ".join(_known(row["number"], row["setting"])) or "all",
            "verdict": row["verdict"],
            "change": number(row["change"], "+.1%"),
            "newest": _with_unit(row["value"], row["unit"]),
            "before": _with_unit(row["before"], row["unit"]),
            "bound, or why not": [*_known(row["reason"], row["bound"]), UNKNOWN][0],
            "newest run": row["run"],
            "against": row["before_run"],
            "machine": row["machine"],
            "preset": row["preset"],
        }
        for row in rows.to_dict("records")
    )


def _known(*words: Any) -> list[str]:
    return [str(word) for word in words if word and not pd.isna(word)]


def _with_unit(value: Any, unit: Any) -> str:
    if isinstance(value, str):
        return value
    return number(value, ",.6g") + (f" {unit}" if unit and not pd.isna(value) else "")


def summary(table: pd.DataFrame) -> str:
    """How many rows changed and how many did not, in one sentence."""
    if table.empty:
        return "No page has two complete runs of one preset yet, so there is nothing to compare."
    counts = table["verdict"].value_counts()
    compared = len(table) - int(counts.get("not comparable", 0))
    if not compared:
        why = "every pair of runs differs in what was asked or in what it ran on"
        return f"**No row could be compared**: {why}. What differs is named below."
    return (
        f"Of {compared:,} compared numbers **{counts.get('regressed', 0)} regressed** and "
        f"{counts.get('improved', 0)} improved; the others stayed within their bounds. "
        f"{len(table) - compared:,} more could not be compared; the table says why."
    )


def judge(now: Number, then: Number | None, machine_floor: float | None) -> Judged:
    """The verdict on a number of the newest run, held against the same of the run before.

    The machine's noise floor, None if unknown, is for times that state none of their own.
    """
    if then is None:
        return _incomparable("the run before has no such row")
    rule = now.column.compare
    if rule == "check" or now.value is None or then.value is None:
        return _by_status(now, then)
    if rule == "counted":  # the same code repeats it to the digit, or nearly so
        said = f"{SMALLEST_EFFECT:.0%}; repeated alike, it has no interval"
        changed = abs(_change(now, then)) > SMALLEST_EFFECT
        return _judged(now, then, changed, said, "unchanged")
    if rule == "interval":
        if now.low is None or then.low is None:
            return _incomparable("there is no interval")
        return _judged(now, then, are_disjoint(now, then), "disjoint intervals")
    return _beyond_noise(now, then, machine_floor)


def _incomparable(reason: str) -> Judged:
    return Judged("not comparable", reason=reason)


def _by_status(now: Number, then: Number) -> Judged:
    """A check, or what could be measured in one of two runs at most."""
    is_check = now.column.compare == "check"
    bound = "a check passes or does not" if is_check else "a number is there or is not"
    if now.status == then.status:
        return Judged("unchanged", bound)
    good = ("ok", "passed")
    if then.status in good:
        return Judged("regressed", bound)
    if now.status in good:
        return Judged("improved", bound)
    return _incomparable("neither run has a result")


def _beyond_noise(now: Number, then: Number, machine_floor: float | None) -> Judged:
    """A change above the noise floors and the smallest effect, and of repeats disjoint intervals.

    Single runs have no interval: the machine's noise floor alone bounds them.
    """
    is_single = now.column.compare == "single"
    floors = [one.floor for one in (now, then) if one.floor is not None and not is_single]
    whose = "noise floor"
    if not floors and machine_floor is not None:
        floors, whose = [machine_floor], "noise floor of this machine"
    if not floors:
        return _incomparable("no noise floor is known of this machine")
    bound = max(*floors, SMALLEST_EFFECT)
    said = f"{bound:.1%} ({whose})"
    if is_single:
        changed = abs(_change(now, then)) > bound
        return _judged(now, then, changed, f"{said}; single runs, no interval")
    n = min(now.n, then.n)
    if n < FEWEST_REPEATS:
        return _incomparable(f"a verdict needs {FEWEST_REPEATS} processes, these are {n}")
    changed = are_disjoint(now, then) and abs(_change(now, then)) > bound
    return _judged(now, then, changed, f"{said} and disjoint intervals")


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


def _judged(
    now: Number, then: Number, changed: bool, bound: str, otherwise: Verdict = "within the noise"
) -> Judged:
    change = _change(now, then)
    grew = change > 0
    better: Verdict = "improved" if grew == (now.column.better == "higher") else "regressed"
    return Judged(better if changed else otherwise, bound, change)
