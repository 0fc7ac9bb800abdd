"""What the landing page and README.md show of the evidence, its raw rows, and data.json."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from psannlm import REPORTS, ROOT
from psannlm.config.schema import ConfigError
from psannlm.evidence import page as page_module
from psannlm.evidence.runs import Evidence, Refused
from psannlm.evidence.table import Column, Number, Row, Table
from psannlm.evidence.text import badge, facts_table, literal, printable
from psannlm.files import write_atomically
from psannlm.pages.registry import pages
from psannlm.publish import run_facts
from psannlm.publish.claims import CheckedClaim, claims_page
from psannlm.publish.run_facts import machine, started
from psannlm.run.check import checked_runs

DATA = Table(
    "data.json",
    "Every headline number and every claim, with verdict and source.",
    (
        Column("schema", "Version of this format."),
        Column("runs", "One entry a run that these are from, with device, code and sha256."),
        Column(
            "headlines", "One entry a number, with interval, unit, target, verdict, file and row."
        ),
        Column("claims", "One entry a claim, with its verdict and the rows it rests on."),
    ),
)
NO_RUN = "No complete run yet: `make report` makes the first."
EMULATED = "Measured only in a precision that its device emulates, and so compared with nothing."
MOST_OTHERS = 3  # other runs of a page whose results are told, the newest first
GRID = "::::{{grid}} 1 1 2 2\n:gutter: 2\n\n{cards}\n::::\n"
CARD = ":::{{grid-item-card}} {title} <small>{item}</small>\n{body}\n:::\n"

LONGEST = 60  # characters of a value on the page; the file has all of it
ROWS_HEAD = """# Raw rows

Every row that a headline number or a claim was read from: the file it stands in, the sha256 of
that file as its run stated it, and the command that measures it again. The numbers are written
with every digit of the file; what is unknown is left out."""

README, FIGURE = ROOT / "README.md", ROOT / "book" / "findings.png"
BEGIN, END = "<!-- findings: `python -m psannlm readme` -->\n", "<!-- end of findings -->"
BLOCK = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)

Headlines = Mapping[str, Sequence[Number]]  # of the best run of each page that has one


def headlines(runs: Sequence[Evidence | Refused]) -> Headlines:
    """What stands on the landing page, in README.md and in data.json."""
    return {name: headlines_of(run) for name, run in run_facts.best_runs(runs).items()}


def headlines_of(run: Evidence) -> list[Number]:
    """The headline numbers of a run."""
    page = pages()[run_facts.page(run)]
    return [n for n in page.numbers(run) if n.row and page.is_headline(n.row, n.column)]


def files(
    runs: Sequence[Evidence | Refused], claims: Sequence[CheckedClaim]
) -> dict[str, str | bytes]:
    """Pages, parts of pages and the files of their rows, by their place in book/results/."""
    best, found = run_facts.best_runs(runs), headlines(runs)
    rows = [number.row for numbers in found.values() for number in numbers if number.row]
    rows += [row for claim in claims for row in claim.rows]
    return {
        "answers.md": refused(runs) + answers(found, runs),
        "cards.md": cards(found),
        "claims.md": claims_page(claims),
        "rows.md": rows_page(rows, best),
        DATA.file: document(found, claims),
        **files_beside(rows, best),
    }


def refused(runs: Sequence[Evidence | Refused]) -> str:
    """A warning that names every refused run and the reason; nothing where there is none."""
    said = "\n".join(f"- `{run.reason}`" for run in runs if isinstance(run, Refused))
    warning = f"```{{warning}}\nEvidence that is refused, and used nowhere:\n\n{said}\n```\n\n"
    return warning if said else ""


def answers(found: Headlines, runs: Sequence[Evidence | Refused] = ()) -> str:
    """What was found, as Markdown: a line a page, what its other runs found, machine and date."""
    best = [numbers[0].run for numbers in found.values() if numbers]
    lines = []
    for page in pages().values():
        where = f"({_page_link(page.name)})"
        if here := found.get(page.name):
            said = page.summary(here)
            if len(set(map(machine, best))) > 1:
                said += f" On {machine(here[0].run)}."
            lines.append(f"1. **{page.question}** {said} {where}")
            lines += _others(here, runs)
        elif page.name in found:
            lines.append(f"1. **{page.question}** {EMULATED} {where}")
        elif not page.installs:
            lines.append(f"1. **{page.question}** {NO_RUN} {where}")
    if best:
        lines += ["", measured_on(best)]
    return "\n".join(lines) + "\n"


def _others(here: Sequence[Number], runs: Sequence[Evidence | Refused]) -> Iterator[str]:
    """What other runs of that page, preset and device found: the best is not all that is known."""

    def kind(run: Evidence) -> tuple[str, str, bool]:
        return machine(run), run.manifest["preset"], bool(run.manifest["parameters"].get("only"))

    best = here[0].run
    name = run_facts.page(best)
    others = [
        (run, numbers)
        for run in reversed(run_facts.complete_runs(runs, name))
        if run != best and kind(run) == kind(best) and (numbers := headlines_of(run))
    ]
    for run, numbers in others[:MOST_OTHERS]:
        differs = sorted(run_facts.unequal_parameters(run, best))
        asked = f", asked with other {', '.join(differs)}" if differs else ""
        yield f"   - Another complete run, `{run.name}`{asked}: {pages()[name].summary(numbers)}"
    if (older := len(others) - MOST_OTHERS) > 0:
        yield f"   - Older complete runs: {older}, in the [history](results/history)."


def _page_link(name: str) -> str:
    return f"[{name.replace('_', ' ')} page](results/{name})"


def measured_on(runs: Sequence[Evidence]) -> str:
    """On what, when, and what that is worth."""
    machines, days = sorted(set(map(machine, runs))), sorted({started(run)[:10] for run in runs})
    presets = sorted({str(run.manifest["preset"]) for run in runs})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    said = f"Measured on **{'**, **'.join(machines)}**, {when}, "
    said += f"preset{'s' if len(presets) > 1 else ''} {', '.join(presets)}."
    if "smoke" in presets:
        said += " Numbers of a smoke run mean nothing: they prove that its page runs."
    return f"{said} Intervals in parentheses."


def cards(found: Headlines) -> str:
    """A grid of cards a page, as Markdown."""
    said = []
    for page in pages().values():
        here = found.get(page.name, [])
        if here or not page.installs:
            made = [_card(title, mine) for title, mine in page.cards(here).items()]
            missing = CARD.format(title=page.title, item="", body=NO_RUN)
            grid = GRID.format(cards="\n".join(made or [missing]))
            said.append(f"### {page.title}\n\n{grid}")
    return "\n".join(said)


def _card(title: str, numbers: Sequence[Number]) -> str:
    """A card: target, a line a row, and at its foot where and when."""
    run = numbers[0].run
    targets = dict.fromkeys(number.target for number in numbers if number.target)
    stated = [f"Target: {', '.join(targets)}.", ""] if targets else []
    rows: dict[str, list[Number]] = {}
    for number in numbers:
        rows.setdefault(number.row.label if number.row else "", []).append(number)
    mixed = " · a mixed run" if "parts" in run.manifest else ""
    foot = f"{machine(run)} · {started(run)[:10]} · {_page_link(run_facts.page(run))}{mixed}"
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
    where = f" ([raw row](#{first.row.label}))" if first.row else ""
    return f"- {opening}{'; '.join(said)}{where}"


def rows_page(rows: Sequence[Row], best: Mapping[str, Evidence]) -> str:
    """The page, as Markdown: a part a file, an entry a row; `best` are the runs that are shown."""
    parts: dict[tuple[str, str, str], dict[int, Row]] = {}
    for row in rows:
        parts.setdefault((row.page, row.run.name, row.file), {})[row.number] = row
    lines = [ROWS_HEAD] if parts else [ROWS_HEAD, NO_RUN]
    for (page, run, file), by_number in parts.items():
        first = next(iter(by_number.values()))
        manifest = first.run.manifest
        lines += [
            f"## {page.replace('_', ' ').capitalize()}: {file}",
            f"{{download}}`{file} <{location(first, best)}>` of run {run}, preset "
            f"{manifest['preset']}; its sha256 is `{manifest['artifacts'][file]}`.",
            *(_entry(by_number[number]) for number in sorted(by_number)),
        ]
    return "\n\n".join(lines) + "\n"


def location(row: Row, best: Mapping[str, Evidence]) -> str:
    """Where the file of a row lies in the book, below results/."""
    folder = "" if row.run == best.get(row.page) else f"{row.run.folder.name}/"
    return f"data/{row.page}/{folder}{row.file}"


def files_beside(rows: Iterable[Row], best: Mapping[str, Evidence]) -> dict[str, bytes]:
    """Files of runs that are not shown, but that a claim stands on, by their place in the book."""
    places = {location(row, best): row for row in rows if row.run != best.get(row.page)}
    return {place: (row.run.folder / row.file).read_bytes() for place, row in places.items()}


def _entry(row: Row) -> str:
    """A row: a target for links, its name, and a table that opens."""
    measured = f"{row.run.manifest['started_at'][:19].replace('T', ' ')} UTC"
    facts = {"run": row.run.name, "machine": machine(row.run), "measured": measured}
    facts |= {"file, row": f"{row.file}, row {row.number}", "again": row.command}
    facts |= {name: shown(value) for name, value in row.values.items() if value not in (None, "")}
    return (
        f"({row.label})=\n**Row {row.number}**: {literal(about(row))}\n\n"
        "<details><summary>All of it, and the command that measures it again</summary>"
        f"{facts_table(facts)}</details>"
    )


def about(row: Row) -> str:
    """What a row is of, in words, from the columns that tell rows apart."""
    page = pages()[row.page]
    known = {table.file: table for table in (*page.raw, *page.tables)}.get(row.file)
    said = [
        f"{column.name} {value}" if isinstance(value, int | float) else str(value)
        for column in (known.of_role("key") if known else [])
        if (value := row.values.get(column.name)) not in (None, "")
    ]
    return ", ".join(dict.fromkeys(said))


def shown(value: Any) -> str:
    """A value as a page shows it: every digit of a number, the beginning of what is long."""
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    text = printable(text).replace("\n", " ")
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text):,} characters)"


def document(found: Headlines, claims: Sequence[CheckedClaim]) -> str:
    """Text of data.json; the same evidence gives the same text."""
    shown = [(n, n.row) for numbers in found.values() for n in numbers if n.row]
    rows = [*(row for _, row in shown), *(row for claim in claims for row in claim.rows)]
    runs = {row.run.name: _run(row) for row in rows}
    content = {
        "schema": 1,
        "runs": [runs[name] for name in sorted(runs)],
        "headlines": [_headline(number, row) for number, row in shown],
        "claims": [
            {
                "claim": held.claim.claim,
                "plan": list(held.claim.plan),
                "sentence": held.sentence,
                "condition": held.claim.condition,
                "holds": not held.problems,
                "problems": list(held.problems),
                "rows": [{"run": row.run.name} | _place(row) for row in held.rows],
            }
            for held in claims
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _run(row: Row) -> dict[str, Any]:
    manifest = row.run.manifest
    known = {"run": row.run.name, "page": row.page, "preset": manifest["preset"]}
    known |= {"device": machine(row.run), "measured_at": manifest["started_at"]}
    return known | {"commit": manifest["git"]["commit"], "sha256": manifest["sha256"]}


def _headline(number: Number, row: Row) -> dict[str, Any]:
    known = {"name": number.name, "claim": number.column.headline}
    stated = ("about", "quantity", "value", "low", "high", "unit", "target", "verdict")
    known |= {name: getattr(number, name) for name in stated}
    run = _run(row)
    known |= {name: run[name] for name in ("page", "run", "preset", "device", "measured_at")}
    return known | _place(row) | {"command": row.command}


def _place(row: Row) -> dict[str, Any]:
    sha256 = row.run.manifest["artifacts"][row.file]
    return {"file": row.file, "row": row.number, "sha256": sha256}


def refresh_readme() -> None:
    """Write table and figure of README.md anew; ConfigError if it has no place for them."""
    runs = checked_runs(REPORTS)
    text = README.read_text(encoding="utf-8")
    if not BLOCK.search(text):
        raise ConfigError(f"README.md must have the lines {BEGIN.strip()!r} and {END!r}")
    write_atomically(FIGURE, readme_figure(runs))
    write_atomically(README, BLOCK.sub(lambda _: f"{BEGIN}{findings(runs)}{END}", text))


def findings(runs: Sequence[Evidence | Refused]) -> str:
    """A row a page: its question, and the answer of its best run; then machine and dates."""
    found = {name: numbers for name, numbers in headlines(runs).items() if numbers}
    asked = [pages()[name] for name in pages() if name in found]
    lines = ["| question | found |", "|---|---|"]
    lines += [f"| {page.question} | {page.summary(found[page.name])} |" for page in asked]
    where = measured_on([numbers[0].run for numbers in found.values()])
    caption = "Speed of every base, from the committed run"
    return "\n".join([*lines, "", where, "", f"![{caption}](book/{FIGURE.name})", ""])


def readme_figure(runs: Sequence[Evidence | Refused]) -> bytes:
    """Pixels of the figure that stands for the report, drawn from its run's records."""
    best = run_facts.best_runs(runs)
    page = next(page for page in pages().values() if page.readme_figure and page.name in best)
    info = page_module.run_info(page, best[page.name])
    drawn = page.figures(page.tabulate(info.records, info), info)
    return drawn[page.readme_figure].png
