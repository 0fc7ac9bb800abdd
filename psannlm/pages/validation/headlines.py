"""Headline numbers of a validation: of each check its worst measure, and how many passed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from psannlm.checks.findings import Measure
from psannlm.checks.suite import CHECKS
from psannlm.evidence.rows import Row, rows_of
from psannlm.evidence.runs import Evidence
from psannlm.pages.validation.prose import number
from psannlm.publish.headline import Headline, read

WORST_FIRST = ("failed", "passed", "skipped")


def headlines(run: Evidence) -> Iterator[Headline]:
    """Of each check the measure nearest to its bound, or furthest beyond, over all bases."""
    by_check: dict[str, list[Row]] = {}
    for row in rows_of(run):
        by_check.setdefault(row.values["check"], []).append(row)
    for check in [name for name in CHECKS if name in by_check]:
        yield from _of_check(check, by_check[check])


def _of_check(check: str, rows: Sequence[Row]) -> Iterator[Headline]:
    worst = min(rows, key=_badness)
    title = CHECKS[check].title
    stated = _stated(worst.values)
    bound = worst.values["bound"]
    rule = "at most" if stated is None or stated.upper else "at least"
    found = read(
        worst,
        "value",
        name=f"validation.{check}.worst",
        claim=check,
        about=f"{title}, worst of {len(rows)} bases: {worst.values['base']}",
        quantity=worst.values["measure"] or "no measure",
        unit="",
        target="" if bound is None else f"{rule} {number(bound)}",
        verdict=worst.values["status"],
    )
    yield found
    for status in ("passed", "failed", "skipped"):
        yield replace(
            found,
            name=f"validation.{check}.{status}",
            about=f"{title}, bases {', '.join(r.values['base'] for r in rows)}",
            quantity=f"bases whose check {status if status != 'skipped' else 'was skipped'}",
            value=float(sum(row.values["status"] == status for row in rows)),
            unit=f"of {len(rows)}",
            target="",
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
