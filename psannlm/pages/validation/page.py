"""The validation page: whether the networks do what they say, check by check and base by base."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import pandas as pd

from psannlm.checks import suite
from psannlm.checks.findings import Finding, Measure, ValidationConfig
from psannlm.checks.suite import CHECKS
from psannlm.corpora.corpus import load
from psannlm.evidence.figures import Figure
from psannlm.evidence.page import Page, Quantity, Repeat, RerunRequest, RunInfo, Tables
from psannlm.evidence.runs import Evidence
from psannlm.evidence.session import Session
from psannlm.evidence.table import Column, Number, Row
from psannlm.evidence.text import number_in_words
from psannlm.pages.validation import figures, prose
from psannlm.pages.validation import records as stored
from psannlm.pages.validation.records import FINDINGS, MEASURES, STATUSES
from psannlm.places import located

UNPLANNED = {"FAST"}  # checks that the benchmark plan does not ask for
VALUE = Column("value", "What was found.")
CHECK = Column("status", "Whether a check passed.", format=".0f", better="higher", compare="check")
PASSED = Column("passed", "Checks that passed.", format=".0f", better="higher")

RULES = (  # what a repeated finding is judged by
    "status: the same",
    "a measure: within the bound that the check sets before it measures, as far as it was when "
    "published; how many come out the same to the last digit is shown and not judged",
)


class CheckFailedError(Exception):
    """A check that failed, in a run that came to its end; its text is all that a reader needs."""

    def _render_traceback_(self) -> list[str]:
        """Lets a notebook show the message alone: what failed is a network, not this code."""
        return [f"{type(self).__name__}: {self}"]


class ValidationPage(Page[ValidationConfig, Finding]):
    """Findings of every check and base, each measure beside its bound."""

    name = "validation"
    title = "Validation"
    question = "Does it do what it says?"
    folder = "gpu"
    config = ValidationConfig
    tables = (FINDINGS, MEASURES)
    raw = (stored.SUMMARY, stored.LOG)
    store = stored.STORE
    readme_columns = ("check", "base", "status", "measure", "value", "bound", "device")
    repeats_once = True
    reducible: ClassVar[Mapping[str, float]] = {"n_seeds": 2}
    expected_seconds = staticmethod(suite.expected_seconds)
    texts = staticmethod(stored.to_texts)
    bounds = staticmethod(stored.problems)
    smoke_note = "A smoke run: every check is made, on small networks; larger ones round more."

    def total(self, config: ValidationConfig) -> int:
        return len(suite.plan(config))

    def measure(self, session: Session[ValidationConfig, Finding]) -> Iterator[list[Finding]]:
        """Make the checks that are asked for; raises ConfigError if the text is missing."""
        config = session.config
        corpus = load(located(config.corpus))
        session.run.state(corpus={"path": config.corpus, "sha256": corpus.sha256})
        for finding in suite.validate(config, session.device, session.done):
            yield [finding]

    def tabulate(self, records: Sequence[Finding], run: RunInfo[ValidationConfig]) -> Tables:
        return stored.tabulate(records)

    def files(self, tables: Tables, run: RunInfo[ValidationConfig]) -> Mapping[str, str]:
        written = {MEASURES.file: MEASURES.write(tables[MEASURES.file])}
        return written | {"README.md": self.readme(tables, run)}

    def figures(self, tables: Tables, run: RunInfo[ValidationConfig]) -> Mapping[str, Figure]:
        return {"strain": figures.bound_ratios(run.records)}

    def answer(self, tables: Tables, run: RunInfo[ValidationConfig]) -> str:
        return prose.answer(run.records)

    def reading(self, tables: Tables, run: RunInfo[ValidationConfig]) -> str:
        return prose.limits(run.records, run.device)

    def section(self, name: str, tables: Tables, run: RunInfo[ValidationConfig]) -> str:
        return prose.SECTIONS[name](run.records)

    def best(self, tables: Tables, run: RunInfo[ValidationConfig]) -> pd.DataFrame:
        return prose.readme_rows(run.records)

    def readme_note(self, run: RunInfo[ValidationConfig]) -> str:
        """The counts, and what each check found in short."""
        said = ", ".join(f"{n} {status}" for status, n in stored.counts(run.records).items())
        last = "Of each check the measure that comes nearest to its bound; `measures.csv` has all."
        return f"{said.capitalize()}.\n\n{prose.highlights(run.records)}\n\n{last}"

    @property
    def items(self) -> set[str]:
        return set(CHECKS) - UNPLANNED

    def item_of(self, row: Row) -> str:
        check = str(row.values.get("check") or "")
        return "" if check in UNPLANNED else check

    def cards(self, numbers: Sequence[Number]) -> Mapping[str, Sequence[Number]]:
        """A card a check."""
        found: dict[str, list[Number]] = {}
        for number in numbers:
            title = CHECKS[number.column.headline].title
            found.setdefault(title[0].upper() + title[1:], []).append(number)
        return found

    def numbers(self, run: Evidence) -> Iterator[Number]:
        found = list(zip(_findings(run), self.rows(run), strict=True))
        for check in CHECKS:
            if mine := [(finding, row) for finding, row in found if finding.check == check]:
                yield from _of_check(check, mine)
        yield from _history(run, found)

    def summary(self, numbers: Sequence[Number]) -> str:
        """How many checks passed, which failed, which could not be made, over all bases."""
        findings = _findings(numbers[0].run)
        by_status = {s: [f.check for f in findings if f.status == s] for s in STATUSES}
        failed = (f"{check} on {n}" for check, n in Counter(by_status["failed"]).items())
        said = prose.outcome(
            stored.counts(findings),
            passed=", a check counted once a base",
            failed=f" ({', '.join(failed)} of its bases)",
            skipped=f" ({', '.join(dict.fromkeys(by_status['skipped']))})",
        )
        return f"{said}."

    def found(self, run: Evidence) -> str:
        n = stored.counts(_findings(run))
        rest = (f"{n[status]} {status}" for status in ("failed", "skipped") if n[status])
        return ", ".join([f"{n['passed']} of {sum(n.values())} passed", *rest])

    def judge(self, records: Sequence[Finding]) -> None:
        """Raise CheckFailedError, which names each failed check, its base and its reason."""
        failed = [f for f in records if f.status == "failed"]
        if failed:
            raise CheckFailedError(
                "\n".join(f"{f.check} failed on {f.base}: {f.reason}" for f in failed)
            )

    def measure_again(
        self, row: Row, request: RerunRequest[ValidationConfig], records: Sequence[Finding]
    ) -> list[Finding]:
        check, base = row.values["check"], row.values["base"]
        one = request.config.model_copy(update={"only": (check,), "base": (base,)})
        seconds = row.values["seconds"]
        request.say(f"making {check} of {base}, which took {seconds:.0f} s when published")
        return list(suite.validate(one, request.device))

    def compare_again(
        self,
        row: Row,
        request: RerunRequest[ValidationConfig],
        old: Sequence[Finding],
        new: Sequence[Finding],
    ) -> Repeat:
        """The same status, and each measure within its bound."""
        before, now = old[row.number - 1], new[0]
        said, here = (f"{f.status}: {f.reason}" if f.reason else f.status for f in (before, now))
        status = Quantity("status", said, before.status, here, before.status == now.status)
        known = {measure.name: measure for measure in now.measures}
        quantities = [status, *(_again(m, known.get(m.name)) for m in before.measures)]
        equal = sum(m.name in known and known[m.name].value == m.value for m in before.measures)
        if n := len(before.measures):
            shown = (f"{n} of {n}", "shown only", f"{equal} of {n}")
            quantities.append(Quantity("the same to the digit", *shown, None))
        return Repeat(tuple(quantities), RULES)


def _findings(run: Evidence) -> list[Finding]:
    return stored.STORE.read(run.manifest["artifacts"], run.text)


def _again(old: Measure, new: Measure | None) -> Quantity:
    """A measure of a published finding beside the same of the repeated one."""
    if new is None:
        return Quantity(old.name, f"{old.value:.6g}", "the same", "not measured", False)
    expected = f"{'at most' if new.upper else 'at least'} {new.bound:.4g}"
    if not old.passed:
        expected = f"not {expected}, as published"
    inside = new.passed == old.passed
    return Quantity(old.name, f"{old.value:.6g}", expected, f"{new.value:.6g}", inside)


def _of_check(check: str, found: Sequence[tuple[Finding, Row]]) -> Iterator[Number]:
    """The measure nearest to its bound, or furthest beyond, over all bases; each status counted."""
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


def _badness(found: tuple[Finding, Row]) -> tuple[int, float]:
    """Sorts failed before passed before skipped, and then the most strained first."""
    finding, worst = found[0], found[0].worst
    order = ("failed", "passed", "skipped").index(finding.status)
    return order, -(worst.bound_ratio if worst else 0.0)


def _history(run: Evidence, found: Sequence[tuple[Finding, Row]]) -> Iterator[Number]:
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


PAGE = ValidationPage()
