"""The numbers of a validation: of each check its worst measure, what passed, and every status."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from psannlm.checks.findings import Measure
from psannlm.checks.suite import CHECKS
from psannlm.evidence.rows import Number, Row
from psannlm.evidence.runs import Evidence
from psannlm.evidence.table import Column
from psannlm.evidence.text import number_in_words

WORST_FIRST = ("failed", "passed", "skipped")
VALUE = Column("value", "What was found.")
CHECK = Column("status", "Whether a check passed.", format=".0f", better="higher", compare="check")
PASSED = Column("passed", "Checks that passed.", format=".0f", better="higher")


def headlines(rows: Sequence[Row]) -> Iterator[Number]:
    """Of each check the measure nearest to its bound, or furthest beyond, over all bases."""
    for check in CHECKS:
        if mine := [row for row in rows if row.values["check"] == check]:
            yield from _of_check(check, mine)


def _of_check(check: str, rows: Sequence[Row]) -> Iterator[Number]:
    worst = min(rows, key=_badness)
    values, title, stated = worst.values, CHECKS[check].title, _stated(worst.values)
    rule = "at most" if stated is None or stated.upper else "at least"
    passed = values["status"] == "passed"
    found = Number(
        run=worst.run,
        name=f"validation.{check}.worst",
        column=replace(VALUE, headline=check),
        quantity=values["measure"] or "no measure",
        unit="",
        base="",
        setting=f"{title}, worst of {len(rows)} bases: {values['base']}",
        value=None if values["value"] is None else float(values["value"]),
        status="ok" if passed else values["status"],
        verdict=values["status"],
        row=worst,
        target="" if stated is None else f"{rule} {number_in_words(stated.bound)}",
        is_main=False,
    )
    yield found
    for status in ("passed", "failed", "skipped"):
        yield replace(
            found,
            name=f"validation.{check}.{status}",
            quantity=f"bases whose check {status if status != 'skipped' else 'was skipped'}",
            setting=f"{title}, bases {', '.join(r.values['base'] for r in rows)}",
            value=float(sum(row.values["status"] == status for row in rows)),
            unit=f"of {len(rows)}",
            target="",
        )


def history(run: Evidence, rows: Sequence[Row]) -> Iterator[Number]:
    """The status of every check of every base, and how many passed of each base."""
    by_base: dict[str, list[Row]] = {}
    for row in rows:
        by_base.setdefault(str(row.values["base"]), []).append(row)
        status, check = str(row.values["status"]), str(row.values["check"])
        value = None if status == "skipped" else float(status == "passed")
        yield _count(run, CHECK, "check", row.values["base"], check, value, status, row)
    for base, mine in by_base.items():
        n = sum(row.values["status"] == "passed" for row in mine)
        of = f"of {len(mine)} checks"
        yield _count(run, PASSED, "checks passed", base, of, float(n), "ok", None)


def _count(
    run: Evidence,
    column: Column,
    quantity: str,
    base: str,
    setting: str,
    value: float | None,
    status: str,
    row: Row | None,
) -> Number:
    return Number(
        run=run,
        name=f"validation.{base}.{setting}",
        column=column,
        quantity=quantity,
        unit="",
        base=base,
        setting=setting,
        value=value,
        status=status,
        verdict="",
        row=row,
        is_main=row is None,
    )


def _badness(row: Row) -> tuple[int, float]:
    """Sorts failed before passed before skipped, and then the most strained first."""
    stated = _stated(row.values)
    return WORST_FIRST.index(row.values["status"]), -(stated.bound_ratio if stated else 0.0)


def _stated(values: Mapping[str, Any]) -> Measure | None:
    """The measure that stands for a finding, with the side that its bound is on."""
    for known in values["measures"] or []:
        if known["name"] == values["measure"]:
            return Measure(
                name=known["name"],
                value=_float(known["value"]),
                bound=_float(known["bound"]),
                upper=known["upper"],
                why=known["why"],
            )
    return None


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)
