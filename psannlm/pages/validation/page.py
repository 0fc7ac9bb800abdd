"""The validation page: whether the networks do what they say, check by check and base by base."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from psannlm import ROOT
from psannlm.checks import suite
from psannlm.checks.config import ValidationConfig
from psannlm.checks.findings import Finding, Measure
from psannlm.checks.suite import CHECKS
from psannlm.corpora.corpus import load
from psannlm.evidence.figures import Figure
from psannlm.evidence.page import Page, Quantity, Repeat, RerunRequest, RunInfo, Tables
from psannlm.evidence.rows import Number, Row
from psannlm.evidence.runs import Evidence
from psannlm.evidence.session import Session
from psannlm.pages.validation import figures, numbers, prose
from psannlm.pages.validation.records import (
    FINDINGS,
    LOG,
    MEASURES,
    STORE,
    SUMMARY,
    problems,
    tabulate,
    to_texts,
)

UNPLANNED = {"FAST"}
"""Checks that the benchmark plan does not ask for."""

RULES = (
    "status: the same",
    "a measure: within the bound that the check sets before it measures, as far as it was when "
    "published; how many come out the same to the last digit is shown and not judged",
)
"""What a repeated finding is judged by."""


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
    raw = (SUMMARY, LOG)
    store = STORE
    readme_columns = ("check", "base", "status", "measure", "value", "bound", "device")
    repeats_once = True
    smoke_note = "A smoke run: every check is made, on small networks; larger ones round more."

    def total(self, config: ValidationConfig) -> int:
        return len(suite.plan(config))

    def measure(self, session: Session[ValidationConfig, Finding]) -> Iterator[list[Finding]]:
        """Make the checks that are asked for; raises ConfigError if the text is missing."""
        config = session.config
        corpus = load(ROOT / config.corpus)
        session.run.state(corpus={"path": config.corpus, "sha256": corpus.sha256})
        for finding in suite.validate(config, session.device, session.done):
            yield [finding]

    def texts(
        self, records: Sequence[Finding], run: RunInfo[ValidationConfig]
    ) -> Mapping[str, str]:
        return to_texts(records, run)

    def tabulate(self, records: Sequence[Finding], run: RunInfo[ValidationConfig]) -> Tables:
        return tabulate(records)

    def files(self, tables: Tables, run: RunInfo[ValidationConfig]) -> Mapping[str, str]:
        written = {MEASURES.file: MEASURES.write(tables[MEASURES.file])}
        return written | {"README.md": self.readme(tables, run)}

    def bounds(self, records: Sequence[Finding], config: ValidationConfig) -> Iterator[str]:
        return problems(records, config)

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
        return prose.readme_note(run.records)

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
        findings = STORE.read(run.manifest["artifacts"], run.text)
        found = list(zip(findings, self.rows(run), strict=True))
        yield from numbers.headlines(found)
        yield from numbers.history(run, found)

    def summary(self, numbers: Sequence[Number]) -> str:
        return prose.summary(numbers)

    def found(self, run: Evidence) -> str:
        return prose.found([str(row.values["status"]) for row in self.rows(run)])

    def judge(self, records: Sequence[Finding]) -> None:
        """End in an error if a check failed, once the run is sealed.

        Raises:
            CheckFailedError: Names each failed check, its base, and what is out of bounds.
        """
        failed = [finding for finding in records if finding.status == "failed"]
        if failed:
            lines = [f"{f.check} failed on {f.base}: {f.reason}" for f in failed]
            raise CheckFailedError("\n".join(lines))

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


def _again(old: Measure, new: Measure | None) -> Quantity:
    """A measure of a published finding beside the same of the repeated one."""
    if new is None:
        return Quantity(old.name, f"{old.value:.6g}", "the same", "not measured", False)
    expected = f"{'at most' if new.upper else 'at least'} {new.bound:.4g}"
    if not old.passed:
        expected = f"not {expected}, as published"
    inside = new.passed == old.passed
    return Quantity(old.name, f"{old.value:.6g}", expected, f"{new.value:.6g}", inside)


PAGE = ValidationPage()
