"""What the book claims: sentences filled in from evidence, each with the condition it stands on."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import pandas as pd
import yaml
from pydantic import StringConstraints, ValidationError

from psannlm import ROOT
from psannlm.config.schema import AnyOf, ConfigError, Strict, Text
from psannlm.config.training import Preset
from psannlm.corpora import corpus
from psannlm.evidence.runs import Evidence, Refused
from psannlm.evidence.table import Row, selected
from psannlm.evidence.text import badge
from psannlm.pages.registry import pages
from psannlm.publish import published
from psannlm.publish.run_facts import complete_runs, machine, preset, started

CLAIMS = ROOT / "book" / "claims.yaml"
PlanId = Literal[
    "BMRK-01", "BMRK-02", "BMRK-03", "BMRK-04",
    "GPU-01", "GPU-02", "GPU-03", "GPU-04", "GPU-05", "GPU-06", "GPU-07", "GPU-08",
]  # fmt: skip
PLAN: tuple[PlanId, ...] = get_args(PlanId)  # what the benchmark plan asks for
# How a number is written, by name: a digit in a format would be one that no evidence holds.
FORMATS = {
    "whole": ",.0f", "short": "g", "tenths": ".1f", "hundredths": ".2f", "thousandths": ".3f",
    "signed": "+.3f", "percent": ".0%",
}  # fmt: skip
PLACE = re.compile(r"\{(?:(\w+)=)?(\w+)(?::(\w+))?\}")
ENDS = ("least", "most")
EQUALITY = re.compile(r"[a-z_]\w* == ('[^']*'|\d+(\.\d+)?)")
QUOTED_OR_NAME = re.compile(r"('[^']*'|\"[^\"]*\")|\b[A-Za-z_]\w*\b")
MOST_LINKS = 4  # rows that are linked one by one; of more, the first and the last

HEAD = """# Claims

What this book claims, and on which rows each claim stands. A claim is about the newest complete run
of its page, preset and device; every row that it selects must satisfy its condition, or the build
of this book fails and names the row. Its numbers are filled in from these rows.
"""


class Source(Strict):
    """Rows of one table of one run."""

    page: Text
    preset: Preset
    device: Text  # as the manifest names it: a claim holds on the machine that it was made on
    file: str = ""  # another file of the run than the page's published table
    where: str = ""  # which rows, as pandas' `query` takes it; all of them if empty


class Claim(Strict):
    """A sentence of the book, and what it stands on."""

    claim: Annotated[str, StringConstraints(pattern=r"^[a-z]+(-[a-z]+)*$")]  # without digits
    plan: AnyOf[PlanId] = ()  # items of the plan that it answers
    sentence: Text
    source: Source
    beside: Source | None = None  # one row more, whose columns open with `other_`
    condition: Text  # which every selected row must satisfy, as pandas' `query` takes it


class CheckedClaim(NamedTuple):
    """A claim held against the evidence."""

    claim: Claim
    sentence: str  # filled in; empty where that is not possible
    rows: tuple[Row, ...]  # that it stands on, the one beside last
    problems: tuple[str, ...]  # why it does not hold, if it does not


def claims_about(reports: Path) -> Path | None:
    """The claims that are about these run folders: evidence kept elsewhere is of someone else."""
    return CLAIMS if reports.resolve() == ROOT.resolve() / "reports" else None


def checked(
    runs: Sequence[Evidence | Refused], path: Path | None
) -> tuple[list[CheckedClaim], list[str]]:
    """The claims about these runs, and all that a build refuses, by name.

    Refused runs support nothing. Without a file of claims, `path`, the runs are not the project's,
    and nothing but they is looked at.
    """
    refused = [f"left out of the book: {run.reason}" for run in runs if isinstance(run, Refused)]
    if path is None:
        return [], refused
    try:
        held, wrong = ClaimChecker(runs).read(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        held, wrong = [], [f"cannot be read: {error}"]
    wrong = [f"{path.name}: {problem}" for problem in wrong]
    try:
        published.load()
    except ConfigError as error:
        wrong += str(error).splitlines()
    return held, [*refused, *wrong, *corpus.altered_files()]


class ClaimChecker:
    """Holds claims against runs that are sound, complete and whole."""

    def __init__(self, runs: Sequence[Evidence | Refused]) -> None:
        """Choose among all runs; one restricted by `only` answers for nothing that it left out."""
        complete = complete_runs(runs)
        self._runs = [run for run in complete if not run.manifest["parameters"].get("only")]

    def read(self, text: str) -> tuple[list[CheckedClaim], list[str]]:
        """The claims of a file, each checked, and everything that is wrong with the file."""
        found, wrong = parsed(text)
        held = [self.check(claim) for claim in found]
        wrong += [f"claim {one.claim.claim}: {said}" for one in held for said in one.problems]
        names = [claim.claim for claim in found]
        wrong += [f"claim {n}: is there twice" for n in sorted(set(names)) if names.count(n) > 1]
        claimed = {item for claim in found for item in claim.plan}
        wrong += [f"no claim answers {item} of the plan" for item in PLAN if item not in claimed]
        return held, wrong

    def check(self, claim: Claim) -> CheckedClaim:
        """The claim with its sentence, its rows, and all that is wrong with it."""
        conditions = [claim.condition, claim.source.where]
        conditions += [claim.beside.where] if claim.beside else []
        wrong = [*loose_digits(claim.sentence, *conditions), *unmeasured(claim.sentence)]
        rows: list[Row] = []
        sentence = ""
        try:
            rows = self.rows(claim.source)
            beside = self.rows(claim.beside) if claim.beside else []
            if len(beside) > 1:
                raise ValueError(f"beside must select one row, not {len(beside)}")
            table = joined(rows, *beside)
            wrong += _unplanned(claim, rows)
            wrong += _unsatisfied(claim, rows, table)
            sentence = filled(claim.sentence, table)
            rows = [*rows, *beside]
        except ValueError as error:
            wrong.append(str(error))
        return CheckedClaim(claim, sentence, tuple(rows), tuple(wrong))

    def rows(self, source: Source) -> list[Row]:
        """Rows that a source selects in the newest run of its kind; ValueError says why none."""
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

    def run(self, source: Source) -> Evidence:
        """The newest run of that page, preset and device; raises ValueError if there is none."""
        wanted = source.page, source.preset, source.device
        found = [r for r in self._runs if (r.manifest["notebook"], preset(r), machine(r)) == wanted]
        if not found:
            raise ValueError("no complete run of {}, preset {}, on {}".format(*wanted))
        return max(found, key=lambda run: str(run.manifest["started_at"]))


def joined(rows: Sequence[Row], beside: Row | None = None) -> pd.DataFrame:
    """The rows as a table whose index is their number, each with the row beside it."""
    other = {f"other_{name}": value for name, value in beside.values.items()} if beside else {}
    values = [dict(row.values) | other for row in rows]
    return pd.DataFrame(values, index=[row.number for row in rows])


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
        except ValidationError as error:
            name = entry.get("claim") if isinstance(entry, dict) else None
            found_at = ((".".join(map(str, one["loc"])), one["msg"]) for one in error.errors())
            said = "; ".join(f"{place or 'entry'}: {message}" for place, message in found_at)
            wrong.append(f"claim {name if isinstance(name, str) else f'number {number}'}: {said}")
    return found, wrong


def _unplanned(claim: Claim, rows: Sequence[Row]) -> Iterator[str]:
    """Items of the plan that the selected rows do not answer, or answer unsaid."""
    page = pages()[claim.source.page]
    for item in claim.plan:
        if item not in page.items:
            by = ", ".join(other.name for other in pages().values() if item in other.items)
            yield f"{item} is answered by the page {by}, not {page.name}"
    answered = {found for row in rows if (found := page.item_of(row)) is not None}
    if answered and answered - {""} != set(claim.plan):
        named, there = ", ".join(claim.plan), ", ".join(sorted(answered - {""}))
        yield f"plan names {named or 'nothing'}, but its rows are of {there or 'no such check'}"


def _unsatisfied(claim: Claim, rows: Sequence[Row], table: pd.DataFrame) -> Iterator[str]:
    """Each row that breaks the condition, with the numbers found in it."""
    good = set(selected(table, claim.condition).index)
    for row in rows:
        if row.values.get("emulated"):
            where = f"{row.run.name}, {row.file}, row {row.number}"
            yield f"{where} is in a precision that its device emulates; claim what is not"
    used = [name for name in table.columns if re.search(rf"\b{name}\b", claim.condition)]
    for row in rows:
        if row.number not in good:
            found = [table.loc[row.number][name] for name in used]
            values = (f"{v:.6g}" if isinstance(v, float) else repr(v) for v in found)
            said = ", ".join(map(" ".join, zip(used, values, strict=True)))
            where = f"{row.run.name}, {row.file}, row {row.number}"
            yield f"{where}: {said} does not satisfy {claim.condition!r}"


def filled(sentence: str, table: pd.DataFrame) -> str:
    """The sentence with its places filled in from the rows of a table.

    A place is `{column}` or `{column:format}`, the format one of FORMATS. A column must have one
    value in all rows; `{column_least:format}` and `{column_most:format}` are the ends of its range,
    `{rows}` is the number of rows, and `{name=column:format}` lists every row, in order: the value
    of the column `name` and that of the other.

    Raises:
        ValueError: A place names no column, no format, or a column of several values; or names of
            rows stand beside the ends of a range, which are in another order than they.
    """
    _refuse_names_beside_ends(sentence, table)
    text = PLACE.sub(lambda place: _place(place[1], place[2], place[3], table), sentence)
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


def _place(name: str | None, column: str, form: str | None, table: pd.DataFrame) -> str:
    """The value of a column; if others name the rows, every row's: `one 1.53, two 1.26`."""
    if name is None:
        return _written(column, form, table)
    if unknown := [wanted for wanted in (name, column) if wanted not in table.columns]:
        raise ValueError(f"{{{unknown[0]}}} names no column")
    if table[name].duplicated().any():
        raise ValueError(f"{{{name}={column}}} names several rows alike; select fewer rows")
    rows = (table.iloc[[at]] for at in range(len(table)))
    return ", ".join(f"{_written(name, None, r)} {_written(column, form, r)}" for r in rows)


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

    In a sentence that is not yet filled in there are none but in names of places; in conditions
    none but in names of columns and in terms `column == value`, all of which must hold.
    """
    if re.search(r"\d", PLACE.sub("", sentence)):
        yield "its sentence has a typed number; name a column instead"
    for condition in conditions:
        for term in condition.split(" and "):
            has_digit = re.search(r"\d", QUOTED_OR_NAME.sub(r"\1", term))
            if has_digit and not EQUALITY.fullmatch(term):
                yield f"{term!r} has a typed number; only `column == value` may have one"


def unmeasured(sentence: str) -> Iterator[str]:
    """Parts of a sentence that no row holds, such as a reason that nobody measured."""
    for part in re.split(r"(?<=[.!?])\s+", sentence.strip()):
        if not PLACE.search(part):
            yield f"{part!r} is filled in from no row; a claim says what its rows say"


def claims_page(claims: Sequence[CheckedClaim]) -> str:
    """The page, as Markdown."""
    nothing = "Nothing is claimed of the runs that are shown here.\n"
    return "\n".join([HEAD, *(map(_entry, claims) if claims else [nothing])])


def _entry(held: CheckedClaim) -> str:
    claim, rows = held.claim, held.rows
    verdict = badge("does not hold" if held.problems else "holds")
    plan = f" <small>{', '.join(claim.plan)}</small>" if claim.plan else ""
    sentence = held.sentence or f"({claim.claim})"
    lines = [f"(claim-{claim.claim})=", f"- {sentence} {verdict}{plan}", ""]
    lines += [f"  `{problem}`\n" for problem in held.problems]
    if rows:
        links = [f"[{row.file}, row {row.number}](#{row.label})" for row in rows]
        ends = f"{len(rows)} rows, {links[0]} to {links[-1]}"
        facts = [f"`{claim.condition}`", ends if len(rows) > MOST_LINKS else ", ".join(links)]
        facts.append(f"{machine(rows[0].run)}, {started(rows[0].run)[:10]}.")
        lines.append(f"  <small>{'; '.join(facts)}</small>")
    return "\n".join([*lines, ""])
