"""The numbers of a validation: of each check its worst measure, what passed, and every status."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from psannlm.checks.findings import Finding
from psannlm.checks.suite import CHECKS
from psannlm.evidence.rows import Number, Row
from psannlm.evidence.runs import Evidence
from psannlm.evidence.table import Column
from psannlm.evidence.text import number_in_words
from psannlm.pages.validation.records import STATUSES

VALUE = Column("value", "What was found.")
CHECK = Column("status", "Whether a check passed.", format=".0f", better="higher", compare="check")
PASSED = Column("passed", "Checks that passed.", format=".0f", better="higher")
Found = tuple[Finding, Row]


def headlines(found: Sequence[Found]) -> Iterator[Number]:
    """Of each check the measure nearest to its bound, or furthest beyond, over all bases."""
    for check in CHECKS:
        if mine := [(finding, row) for finding, row in found if finding.check == check]:
            yield from _of_check(check, mine)


def _of_check(check: str, found: Sequence[Found]) -> Iterator[Number]:
    finding, row = min(found, key=_badness)
    worst, title = finding.worst, CHECKS[check].title
    rule = "at most" if worst is None or worst.upper else "at least"
    number = Number(
        run=row.run,
        name=f"validation.{check}.worst",
        column=replace(VALUE, headline=check),
        quantity=worst.name if worst else "no measure",
        unit="",
        base="",
        setting=f"{title}, worst of {len(found)} bases: {finding.base}",
        value=worst.value if worst else None,
        status="ok" if finding.status == "passed" else finding.status,
        verdict=finding.status,
        row=row,
        target=f"{rule} {number_in_words(worst.bound)}" if worst else "",
        is_main=False,
    )
    yield number
    for status in STATUSES:
        yield replace(
            number,
            name=f"validation.{check}.{status}",
            quantity=f"bases whose check {status if status != 'skipped' else 'was skipped'}",
            setting=f"{title}, bases {', '.join(one.base for one, _ in found)}",
            value=float(sum(one.status == status for one, _ in found)),
            unit=f"of {len(found)}",
            target="",
        )


def _badness(found: Found) -> tuple[int, float]:
    """Sorts failed before passed before skipped, and then the most strained first."""
    finding, worst = found[0], found[0].worst
    order = ("failed", "passed", "skipped").index(finding.status)
    return order, -(worst.bound_ratio if worst else 0.0)


def history(run: Evidence, found: Sequence[Found]) -> Iterator[Number]:
    """The status of every check of every base, and how many passed of each base."""
    of_none = Number(
        run=run, name="", column=CHECK, quantity="check", unit="", base="", setting="", value=None,
        status="ok", verdict="", row=None,
    )  # fmt: skip
    for finding, row in found:
        check, base, status = finding.check, finding.base, finding.status
        name = f"validation.{base}.{check}"
        value = None if status == "skipped" else float(status == "passed")
        named = replace(of_none, name=name, base=base, setting=check)
        yield replace(named, value=value, status=status, row=row, is_main=False)
    for base in dict.fromkeys(finding.base for finding, _ in found):
        passed = [finding.status == "passed" for finding, _ in found if finding.base == base]
        of = f"of {len(passed)} checks"
        named = replace(of_none, name=f"validation.{base}.{of}", base=base, setting=of)
        yield replace(named, column=PASSED, quantity="checks passed", value=float(sum(passed)))
