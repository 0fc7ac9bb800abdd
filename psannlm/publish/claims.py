"""What the book claims: sentences filled in from evidence, each with the condition it stands on."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import yaml
from pydantic import StringConstraints, ValidationError

from psannlm import ROOT
from psannlm.config.schema import AnyOf, ConfigError, Strict, Text
from psannlm.evidence.rows import Row, selected
from psannlm.evidence.runs import Evidence, Refused
from psannlm.publish.claim_rows import LatestRuns, Source, joined
from psannlm.publish.claim_sentences import filled, loose_digits, unmeasured
from psannlm.publish.headline import PLAN, PlanId

CLAIMS = ROOT / "book" / "claims.yaml"
"""The claims of this book, on the evidence that the project keeps."""

PAGE_OF: Mapping[PlanId, str] = {
    "BMRK-01": "tiny_corpus",
    "BMRK-02": "throughput",
    "BMRK-03": "memory",
    "BMRK-04": "shootout",
}
"""The page that answers an item of the plan; the others are checks of the validation."""

UNPLANNED = {"FAST"}
"""Checks of the validation that the plan does not ask for."""


class Claim(Strict):
    """A sentence of the book, and what it stands on."""

    claim: Annotated[str, StringConstraints(pattern=r"^[a-z]+(-[a-z]+)*$")]
    """Its name, without digits."""

    plan: AnyOf[PlanId] = ()
    """Items of the plan that it answers."""

    sentence: Text
    source: Source
    beside: Source | None = None
    """One row more, whose columns open with `other_`."""

    condition: Text
    """Which every selected row must satisfy, as pandas' `query` takes it."""


@dataclass(frozen=True)
class CheckedClaim:
    """A claim held against the evidence."""

    claim: Claim
    sentence: str
    """Filled in; empty where that is not possible."""

    rows: tuple[Row, ...]
    """That it stands on, the one beside last."""

    problems: tuple[str, ...]
    """Why it does not hold, if it does not."""


class ClaimChecker:
    """Holds claims against runs, each claim once."""

    def __init__(self, runs: Sequence[Evidence | Refused]) -> None:
        """Take the runs that claims are held against."""
        self._newest = LatestRuns(runs)
        self._known: dict[Claim, CheckedClaim] = {}

    def hold(self, claim: Claim) -> CheckedClaim:
        """The claim with its sentence, its rows, and all that is wrong with it."""
        if claim not in self._known:
            self._known[claim] = _hold(claim, self._newest)
        return self._known[claim]

    def problems(self, text: str, name: str) -> list[str]:
        """What is wrong with a file of claims.

        Args:
            text: Of the file.
            name: Of the file, for messages.
        """
        found, wrong = parsed(text)
        wrong += [
            f"claim {claim.claim}: {problem}"
            for claim in found
            for problem in self.hold(claim).problems
        ]
        names = [claim.claim for claim in found]
        wrong += [f"claim {n}: is there twice" for n in sorted(set(names)) if names.count(n) > 1]
        claimed = {item for claim in found for item in claim.plan}
        wrong += [f"no claim answers {item} of the plan" for item in PLAN if item not in claimed]
        return [f"{name}: {problem}" for problem in wrong]


def claims_about(reports: Path) -> Path | None:
    """The claims that are about these run folders: evidence kept elsewhere is of someone else."""
    return CLAIMS if reports.resolve() == ROOT.resolve() / "reports" else None


def problems(path: Path, runs: Sequence[Evidence | Refused]) -> list[str]:
    """Everything for which the claims in a file do not hold.

    Args:
        path: Of the file.
        runs: All runs; refused ones support nothing.

    Returns:
        Sentences that open with the name of the file; none if all claims hold.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return [f"{path.name}: cannot be read: {error}"]
    return ClaimChecker(runs).problems(text, path.name)


def held(path: Path, runs: Sequence[Evidence | Refused]) -> list[CheckedClaim]:
    """The claims in a file, each held against the evidence, as far as the file can be read."""
    checker = ClaimChecker(runs)
    found, _ = parsed(path.read_text(encoding="utf-8"))
    return [checker.hold(claim) for claim in found]


def parsed(text: str) -> tuple[list[Claim], list[str]]:
    """The claims that a text holds, and what is wrong with how it is written."""
    wrong = [
        f"line {n}: a comment has a digit, which nothing would hold"
        for n, line in enumerate(text.splitlines(), 1)
        if re.search(r"(^|\s)#.*\d", line)
    ]
    try:
        entries = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that there is not
        return [], [f"is not valid YAML: {error}"]
    if not isinstance(entries, list):
        return [], ["must be a list of claims"]
    found = []
    for number, entry in enumerate(entries, 1):
        try:
            found.append(Claim.model_validate(entry))
        except (ValidationError, ConfigError) as error:
            wrong.append(f"claim {_name(entry, number)}: {_said(error)}")
    return found, wrong


def _hold(claim: Claim, newest: LatestRuns) -> CheckedClaim:
    places = [claim.source, *([claim.beside] if claim.beside else [])]
    wrong = list(loose_digits(claim.sentence, claim.condition, *(place.where for place in places)))
    wrong += unmeasured(claim.sentence)
    rows: list[Row] = []
    sentence = ""
    try:
        rows = newest.rows(claim.source)
        beside = _one(newest.rows(claim.beside)) if claim.beside else None
        table = joined(rows, beside)
        wrong += _unplanned(claim, table)
        wrong += _unsatisfied(claim, rows, table)
        sentence = filled(claim.sentence, table)
        rows = rows if beside is None else [*rows, beside]
    except ValueError as error:
        wrong.append(str(error))
    return CheckedClaim(claim, sentence, tuple(rows), tuple(wrong))


def _one(rows: Sequence[Row]) -> Row:
    if len(rows) != 1:
        raise ValueError(f"beside must select one row, not {len(rows)}")
    return rows[0]


def _unplanned(claim: Claim, table: pd.DataFrame) -> Iterator[str]:
    """Items of the plan that the selected rows do not answer, or answer unsaid."""
    for item in claim.plan:
        page = PAGE_OF.get(item, "validation")
        if claim.source.page != page:
            yield f"{item} is answered by the page {page}, not {claim.source.page}"
    if claim.source.page == "validation" and "check" in table.columns:
        answered = set(table["check"]) - UNPLANNED
        if answered != set(claim.plan):
            yield (
                f"plan names {', '.join(claim.plan) or 'nothing'}, but its rows are of "
                f"{', '.join(sorted(answered)) or 'no such check'}"
            )


def _unsatisfied(claim: Claim, rows: Sequence[Row], table: pd.DataFrame) -> Iterator[str]:
    """Each row that breaks the condition, with the numbers found in it."""
    good = set(selected(table, claim.condition).index)
    used = [name for name in table.columns if re.search(rf"\b{name}\b", claim.condition)]
    for row in rows:
        if row.number not in good:
            found = table.loc[row.number]
            said = ", ".join(f"{name} {_shown(found[name])}" for name in used)
            yield (
                f"{row.run.name}, {row.file}, row {row.number}: {said} does not satisfy "
                f"{claim.condition!r}"
            )


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def _name(entry: Any, number: int) -> str:
    name = entry.get("claim") if isinstance(entry, dict) else None
    return name if isinstance(name, str) else f"number {number}"


def _said(error: ValidationError | ConfigError) -> str:
    if isinstance(error, ConfigError):
        return str(error)
    return "; ".join(
        f"{'.'.join(map(str, one['loc'])) or 'entry'}: {one['msg']}" for one in error.errors()
    )
