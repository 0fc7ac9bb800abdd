"""What the landing page shows of the evidence: an answer and cards a page, and data.json."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psannlm.evidence.page import Page
from psannlm.evidence.rows import Number, Row
from psannlm.evidence.runs import Evidence, Refused
from psannlm.evidence.table import Column, Table
from psannlm.evidence.text import badge
from psannlm.pages.registry import pages
from psannlm.publish import claims
from psannlm.publish.claims import CheckedClaim
from psannlm.publish.raw_rows import files_beside, link, rows_page
from psannlm.publish.run_facts import (
    best_runs,
    complete_runs,
    day,
    headlines_of,
    machine,
    unequal_parameters,
)

SCHEMA = 1
DATA = Table(
    "data.json",
    "Every headline number and every claim, with verdict and source.",
    (
        Column("schema", "Version of this format."),
        Column("runs", "One entry a run that these are from, with device, code and sha256."),
        Column(
            "headlines",
            "One entry a number, with interval, unit, target, verdict, file and row.",
        ),
        Column("claims", "One entry a claim, with its verdict and the rows it rests on."),
    ),
)
NO_RUN = "No complete run yet: `make report` makes the first."
MOST_OTHERS = 3
"""Other runs of a page whose results are told, the newest first."""

GRID = "::::{{grid}} 1 1 2 2\n:gutter: 2\n\n{cards}\n::::\n"
CARD = ":::{{grid-item-card}} {title} <small>{item}</small>\n{body}\n:::\n"


@dataclass(frozen=True)
class LandingData:
    """Everything that is stated of the evidence, number by number."""

    runs: Sequence[Evidence | Refused]
    best: dict[str, Evidence]
    found: dict[str, list[Number]]
    """Headline numbers of the best run of each page that has one."""

    claims: list[CheckedClaim]

    @classmethod
    def of(cls, runs: Sequence[Evidence | Refused], path: Path | None) -> "LandingData":
        """What is stated of these runs.

        Args:
            runs: All runs, each checked.
            path: File of the claims about them, if there is one.
        """
        best = best_runs(runs)
        found = {name: headlines_of(run) for name, run in best.items()}
        return cls(runs, best, found, claims.held(path, runs) if path else [])

    @property
    def others(self) -> list[list[Number]]:
        """Of each other whole run with the page, preset and device of a best one, newest first."""
        found = [
            headlines_of(run)
            for name, best in self.best.items()
            for run in reversed(complete_runs(self.runs, name))
            if run is not best and _kind(run) == _kind(best)
        ]
        return [of_run for of_run in found if of_run]

    @property
    def rows(self) -> list[Row]:
        """That it was read from, some of them more than once."""
        headlines = (number.row for numbers in self.found.values() for number in numbers)
        of_claims = (row for held in self.claims for row in held.rows)
        return [*(row for row in headlines if row), *of_claims]

    def pieces(self) -> dict[str, str]:
        """Pages and parts of pages, by the name of their file in book/results/."""
        return {
            "answers.md": refused(self.runs) + answers(self.found, self.others),
            "cards.md": cards(self.found),
            "claims.md": claims.claims_page(self.claims),
            "rows.md": rows_page(self.rows, self.best),
            DATA.file: document(self.found, self.claims),
        }

    def files(self) -> dict[str, bytes]:
        """Files that lie beside the page of raw rows, by their place in book/results/."""
        return files_beside(self.rows, self.best)


def refused(runs: Sequence[Evidence | Refused]) -> str:
    """A warning that names every refused run and the reason; nothing where there is none."""
    reasons = [run.reason for run in runs if isinstance(run, Refused)]
    if not reasons:
        return ""
    said = "\n".join(f"- `{reason}`" for reason in reasons)
    return f"```{{warning}}\nEvidence that is refused, and used nowhere:\n\n{said}\n```\n\n"


def answers(found: Mapping[str, Sequence[Number]], others: Sequence[Sequence[Number]] = ()) -> str:
    """What was found, as Markdown: a line a page, and one on machine and date.

    Args:
        found: The headline numbers of the best runs, by page.
        others: Those of each other run that asks the same questions, the newest first.
    """
    runs = [numbers[0].run for numbers in found.values() if numbers]
    machines = sorted({machine(run) for run in runs})
    lines = []
    for page in _shown(found):
        here = found.get(page.name, [])
        said = page.summary(here) if here else NO_RUN
        where = f" On {machine(here[0].run)}." if here and len(machines) > 1 else ""
        lines.append(f"1. **{page.question}** {said}{where} ({_page_link(page.name)})")
        if here:
            lines += _others(page, [one for one in others if _page(one) == page.name], here)
    if runs:
        lines += ["", measured_on(runs, machines)]
    return "\n".join(lines) + "\n"


def cards(found: Mapping[str, Sequence[Number]]) -> str:
    """A grid of cards a page, as Markdown.

    Args:
        found: The headline numbers of the best runs, by page.
    """
    said = []
    for page in _shown(found):
        here = found.get(page.name, [])
        made = [_card(title, mine) for title, mine in page.cards(here).items()]
        missing = CARD.format(title=page.title, item="", body=NO_RUN)
        said.append(f"### {page.title}\n\n{GRID.format(cards=chr(10).join(made or [missing]))}")
    return "\n".join(said)


def document(found: Mapping[str, Sequence[Number]], held: Sequence[CheckedClaim]) -> str:
    """Text of data.json; the same evidence gives the same text.

    Args:
        found: The headline numbers of the best runs, by page.
        held: Claims held against the evidence.
    """
    headlines = [(n, n.row) for numbers in found.values() for n in numbers if n.row]
    rows = [*(row for _, row in headlines), *(row for one in held for row in one.rows)]
    runs = {row.run.name: _run(row) for row in rows}
    content = {
        "schema": SCHEMA,
        "runs": [runs[name] for name in sorted(runs)],
        "headlines": [_headline(number, row) for number, row in headlines],
        "claims": [_claim(one) for one in held],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _others(
    page: Page[Any, Any], others: Sequence[Sequence[Number]], best: Sequence[Number]
) -> Iterator[str]:
    """What other runs found, so that nobody takes the one above for all that is known."""
    for other in others[:MOST_OTHERS]:
        run = other[0].run
        differs = sorted(unequal_parameters(run, best[0].run))
        asked = f", asked with other {', '.join(differs)}" if differs else ""
        yield f"   - Another complete run, `{run.name}`{asked}: {page.summary(other)}"
    if len(others) > MOST_OTHERS:
        n = len(others) - MOST_OTHERS
        yield f"   - Older complete runs: {n}, in the [history](results/history)."


def _page(numbers: Sequence[Number]) -> str:
    return str(numbers[0].run.manifest["notebook"])


def _kind(run: Evidence) -> tuple[str, str, bool]:
    return machine(run), run.manifest["preset"], bool(run.manifest["parameters"].get("only"))


def _shown(found: Mapping[str, Sequence[Number]]) -> Iterator[Page[Any, Any]]:
    """Pages, but for those without a run that nobody asks for by default."""
    return (page for page in pages().values() if found.get(page.name) or not page.installs)


def _page_link(name: str) -> str:
    return f"[{name.replace('_', ' ')} page](results/{name})"


def measured_on(runs: Sequence[Evidence], machines: Sequence[str]) -> str:
    """On what, when, and what that is worth."""
    days = sorted(set(map(day, runs)))
    presets = sorted({str(run.manifest["preset"]) for run in runs})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    said = f"Measured on **{'**, **'.join(machines)}**, {when}, "
    said += f"preset{'s' if len(presets) > 1 else ''} {', '.join(presets)}."
    if "smoke" in presets:
        said += " Numbers of a smoke run mean nothing: they prove that its page runs."
    return f"{said} Intervals in parentheses."


def _card(title: str, numbers: Sequence[Number]) -> str:
    """A card: target, a line a row, and at its foot where and when."""
    run = numbers[0].run
    targets = dict.fromkeys(number.target for number in numbers if number.target)
    stated = [f"Target: {', '.join(targets)}.", ""] if targets else []
    rows: dict[str, list[Number]] = {}
    for number in numbers:
        rows.setdefault(number.row.label if number.row else "", []).append(number)
    foot = f"{machine(run)} · {day(run)} · {_page_link(str(run.manifest['notebook']))}"
    body = "\n".join([*stated, *map(_line, rows.values()), "", f"<small>{foot}</small>"])
    return CARD.format(title=title, item=numbers[0].column.headline, body=body)


def _line(numbers: Sequence[Number]) -> str:
    """The numbers of a row, each verdict once, and a link to the row."""
    said, verdicts = [], [""]
    for number in numbers:
        # What a ratio is to stands in its quantity.
        value = number.plain if number.unit.startswith("×") else number.shown
        mark = "" if number.verdict in verdicts else f" {badge(number.verdict)}"
        verdicts.append(number.verdict)
        said.append(f"{number.quantity} **{value}**{mark}")
    first = numbers[0]
    opening = f"{first.setting}: " if first.setting else ""
    where = f" ({link(first.row)})" if first.row else ""
    return f"- {opening}{'; '.join(said)}{where}"


def _run(row: Row) -> dict[str, Any]:
    manifest = row.run.manifest
    return {
        "run": row.run.name,
        "page": row.page,
        "preset": manifest["preset"],
        "device": manifest["environment"]["device"],
        "measured_at": manifest["started_at"],
        "commit": manifest["git"]["commit"],
        "sha256": manifest["sha256"],
    }


def _headline(number: Number, row: Row) -> dict[str, Any]:
    known = {
        "name": number.name,
        "claim": number.column.headline,
        "about": number.about,
        "quantity": number.quantity,
        "value": number.value,
        "low": number.low,
        "high": number.high,
        "unit": number.unit,
        "target": number.target,
        "verdict": number.verdict,
    }
    run = _run(row)
    place = {name: run[name] for name in ("page", "run", "preset", "device", "measured_at")}
    return known | place | _place(row) | {"command": row.command}


def _place(row: Row) -> dict[str, Any]:
    return {
        "file": row.file,
        "row": row.number,
        "sha256": row.run.manifest["artifacts"][row.file],
    }


def _claim(held: CheckedClaim) -> dict[str, Any]:
    return {
        "claim": held.claim.claim,
        "plan": list(held.claim.plan),
        "sentence": held.sentence,
        "condition": held.claim.condition,
        "holds": not held.problems,
        "problems": list(held.problems),
        "rows": [{"run": row.run.name} | _place(row) for row in held.rows],
    }
