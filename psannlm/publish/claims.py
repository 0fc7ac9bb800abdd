"""What the book claims: sentences filled in from evidence, each with the condition it stands on."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pandas as pd
import yaml
from pydantic import AfterValidator, StringConstraints, ValidationError

from psannlm import ROOT
from psannlm.config.schema import AnyOf, ConfigError, Strict, Text
from psannlm.config.training import Preset
from psannlm.evidence.rows import Row, selected
from psannlm.evidence.runs import Evidence, Refused
from psannlm.evidence.text import badge
from psannlm.pages.registry import pages
from psannlm.publish.raw_rows import link
from psannlm.publish.run_facts import complete_runs, day, machine

CLAIMS = ROOT / "book" / "claims.yaml"
"""The claims of this book, on the evidence that the project keeps."""

PlanId = Literal[
    "BMRK-01", "BMRK-02", "BMRK-03", "BMRK-04",
    "GPU-01", "GPU-02", "GPU-03", "GPU-04", "GPU-05", "GPU-06", "GPU-07", "GPU-08",
]  # fmt: skip
PLAN: tuple[PlanId, ...] = get_args(PlanId)
"""What the benchmark plan asks for, by its ids."""

OTHER = "other_"
"""Opens the names of columns of the row that stands beside."""

FORMATS = {
    "whole": ",.0f",
    "short": "g",
    "tenths": ".1f",
    "hundredths": ".2f",
    "thousandths": ".3f",
    "signed": "+.3f",
    "percent": ".0%",
}
"""How a number is written, by name: a digit in a format would be one that no evidence holds."""

PLACE = re.compile(r"\{(?:(\w+)=)?(\w+)(?::(\w+))?\}")
ENDS = ("least", "most")
EQUALITY = re.compile(r"[a-z_]\w* == ('[^']*'|\d+(\.\d+)?)")
IDENTIFIER = re.compile(r"\b[A-Za-z_]\w*\b")
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


MOST_LINKS = 4
"""Rows that are linked one by one; of more, the first and the last."""

HEAD = """# Claims

What this book claims, and on which rows each claim stands. A claim is about the newest complete run
of its page, preset and device; every row that it selects must satisfy its condition, or the build
of this book fails and names the row. Its numbers are filled in from these rows.
"""


def _known_page(name: str) -> str:
    if name not in pages():
        raise ValueError(f"no page is called {name!r}; there are {', '.join(pages())}")
    return name


class Source(Strict):
    """Rows of one table of one run."""

    page: Annotated[str, AfterValidator(_known_page)]
    preset: Preset
    device: Text
    """As the manifest names it: a claim holds on the machine that it was made on."""

    file: str = ""
    """Another file of the run than the page's published table."""

    where: str = ""
    """Which rows, as pandas' `query` takes it; all of them if empty."""


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


class LatestRuns:
    """The runs that claims are held against."""

    def __init__(self, runs: Sequence[Evidence | Refused]) -> None:
        """Keep the runs that are sound, complete and whole.

        Args:
            runs: All runs; one restricted by `only` answers for nothing that it left out.
        """
        self._runs = [
            run for run in complete_runs(runs) if not run.manifest["parameters"].get("only")
        ]

    def run(self, source: Source) -> Evidence:
        """The newest run of that page, preset and device.

        Raises:
            ValueError: There is none.
        """
        wanted = source.page, source.preset, source.device
        found = [run for run in self._runs if _kind(run) == wanted]
        if not found:
            raise ValueError(
                f"no complete run of {source.page}, preset {source.preset}, on {source.device}"
            )
        return max(found, key=lambda run: str(run.manifest["started_at"]))

    def rows(self, source: Source) -> list[Row]:
        """The rows that a source selects.

        Raises:
            ValueError: No run, no such file, no row, or a condition that cannot be read.
        """
        run = self.run(source)
        page = pages()[source.page]
        file = source.file or page.tables[0].file
        if file not in run.manifest["artifacts"]:
            raise ValueError(f"{run.name} has no file {file}")
        try:
            rows = page.rows(run, source.where, file)
        except ValueError as error:
            raise ValueError(f"{run.name}, {file}: {error}") from None
        if not rows:
            raise ValueError(f"{run.name}, {file}: no row is selected by {source.where!r}")
        return rows


def joined(rows: Sequence[Row], beside: Row | None) -> pd.DataFrame:
    """The rows as a table whose index is their number, each with the row beside it."""
    other: dict[str, Any] = {}
    if beside is not None:
        other = {f"{OTHER}{name}": value for name, value in beside.values.items()}
    return pd.DataFrame(
        [dict(row.values) | other for row in rows], index=[row.number for row in rows]
    )


def _kind(run: Evidence) -> tuple[str, str, str]:
    manifest = run.manifest
    return manifest["notebook"], manifest["preset"], manifest["environment"]["device"]


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
        wrong += _unplanned(claim, rows)
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


def _unplanned(claim: Claim, rows: Sequence[Row]) -> Iterator[str]:
    """Items of the plan that the selected rows do not answer, or answer unsaid."""
    page = pages()[claim.source.page]
    for item in claim.plan:
        if item not in page.items:
            by = ", ".join(other.name for other in pages().values() if item in other.items)
            yield f"{item} is answered by the page {by}, not {page.name}"
    answered = {found for row in rows if (found := page.item_of(row)) is not None}
    if answered and answered - {""} != set(claim.plan):
        yield (
            f"plan names {', '.join(claim.plan) or 'nothing'}, but its rows are of "
            f"{', '.join(sorted(answered - {''})) or 'no such check'}"
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


def filled(sentence: str, table: pd.DataFrame) -> str:
    """The sentence with its places filled in.

    Args:
        sentence: With places `{column}` or `{column:format}`, the format one of FORMATS. A column
            must have one value in all rows; `{column_least:format}` and `{column_most:format}`
            are the ends of its range, `{rows}` is the number of rows, and `{name=column:format}`
            lists every row, in order: the value of the column `name` and that of the other.
        table: The rows.

    Raises:
        ValueError: A place names no column, no format, or a column of several values; or names of
            rows stand beside the ends of a range, which are in another order than they.
    """
    _refuse_names_beside_ends(sentence, table)
    text = PLACE.sub(
        lambda place: (
            _listed(place[1], place[2], place[3], table)
            if place[1]
            else _written(place[2], place[3], table)
        ),
        sentence,
    )
    if "{" in text or "}" in text:
        raise ValueError("a brace of the sentence opens or closes no place")
    return text


def _refuse_names_beside_ends(sentence: str, table: pd.DataFrame) -> None:
    """Names typed in the order of rows would be read with values that are sorted."""
    places = [place[2].rpartition("_") for place in PLACE.finditer(sentence) if not place[1]]
    if not any(column in table.columns and end in ENDS for column, _, end in places):
        return
    words = set(re.findall(r"\w+", PLACE.sub("", sentence)))
    for column in table.columns:
        typed = {value for value in table[column] if isinstance(value, str)} & words
        if len(typed) > 1:
            raise ValueError(
                f"{', '.join(sorted(typed))} of the column {column} stand beside the ends of a "
                f"range, which are sorted; list rows as {{{column}=other_column:format}}"
            )


def _listed(name: str, column: str, form: str | None, table: pd.DataFrame) -> str:
    """Every row by its name, with its value: `one 1.53, two 1.26`."""
    for wanted in (name, column):
        if wanted not in table.columns:
            raise ValueError(f"{{{wanted}}} names no column")
    if table[name].duplicated().any():
        raise ValueError(f"{{{name}={column}}} names several rows alike; select fewer rows")
    return ", ".join(
        f"{_written(name, None, row)} {_written(column, form, row)}"
        for row in (table.iloc[[at]] for at in range(len(table)))
    )


def _written(name: str, form: str | None, table: pd.DataFrame) -> str:
    value = _value(name, table)
    if form is None:
        if isinstance(value, float):
            raise ValueError(f"{{{name}}} is a number and needs a format: {', '.join(FORMATS)}")
        return str(value)
    if form not in FORMATS:
        raise ValueError(f"{{{name}:{form}}} names no format; there are {', '.join(FORMATS)}")
    if isinstance(value, str) or value is None or pd.isna(value):
        raise ValueError(f"{{{name}:{form}}} is no number here, but {value!r}")
    return format(value, FORMATS[form])


def _value(name: str, table: pd.DataFrame) -> Any:
    if name in table.columns:
        values = table[name].tolist()
        if any(value != values[0] for value in values):
            raise ValueError(f"{{{name}}} differs between rows; say {name}_least or {name}_most")
        return values[0]
    if name == "rows":
        return len(table)
    column, _, end = name.rpartition("_")
    if column in table.columns and end in ENDS:
        return table[column].min() if end == "least" else table[column].max()
    raise ValueError(f"{{{name}}} names no column")


def loose_digits(sentence: str, *conditions: str) -> Iterator[str]:
    """What is wrong with digits that could be changed without anything noticing.

    In a sentence there are none but in names of places; in conditions none but in names of columns
    and in terms `column == value`, all of which must hold.

    Args:
        sentence: Not yet filled in.
        conditions: As pandas' `query` takes them.
    """
    if re.search(r"\d", PLACE.sub("", sentence)):
        yield "its sentence has a typed number; name a column instead"
    for condition in conditions:
        for term in condition.split(" and "):
            if not EQUALITY.fullmatch(term) and _has_digit(term):
                yield f"{term!r} has a typed number; only `column == value` may have one"


def unmeasured(sentence: str) -> Iterator[str]:
    """Parts of a claim that no row holds, such as a reason that nobody measured.

    Args:
        sentence: Not yet filled in.
    """
    for part in re.split(r"(?<=[.!?])\s+", sentence.strip()):
        if not PLACE.search(part):
            yield f"{part!r} is filled in from no row; a claim says what its rows say"


def _has_digit(term: str) -> bool:
    """Whether there is a digit in what it quotes, or elsewhere but in names."""
    quoted = "".join(QUOTED.findall(term))
    return bool(re.search(r"\d", quoted + IDENTIFIER.sub("", QUOTED.sub("", term))))


def claims_page(claims: Sequence[CheckedClaim]) -> str:
    """The page, as Markdown.

    Args:
        claims: Held against the evidence.
    """
    if not claims:
        return f"{HEAD}\nNothing is claimed of the runs that are shown here.\n"
    return "\n".join([HEAD, *(_entry(held) for held in claims)])


def _entry(held: CheckedClaim) -> str:
    claim = held.claim
    verdict = badge("does not hold" if held.problems else "holds")
    plan = f" <small>{', '.join(claim.plan)}</small>" if claim.plan else ""
    sentence = held.sentence or f"({claim.claim})"
    lines = [f"(claim-{claim.claim})=", f"- {sentence} {verdict}{plan}", ""]
    lines += [f"  `{problem}`\n" for problem in held.problems]
    if held.rows:
        run = held.rows[0].run
        lines.append(
            f"  <small>`{claim.condition}`; {_rows(held)}; {machine(run)}, {day(run)}.</small>"
        )
    return "\n".join([*lines, ""])


def _rows(held: CheckedClaim) -> str:
    """Links to the rows."""
    rows = held.rows
    if len(rows) <= MOST_LINKS:
        return ", ".join(link(row, f"{row.file}, row {row.number}") for row in rows)
    ends = " to ".join(link(row, f"{row.file}, row {row.number}") for row in (rows[0], rows[-1]))
    return f"{len(rows)} rows, {ends}"
