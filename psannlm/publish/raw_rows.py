"""The page of raw rows: whence each published number is, and what measures it again."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from psannlm.evidence.rows import Row
from psannlm.evidence.runs import Evidence
from psannlm.evidence.text import facts_table, literal, printable
from psannlm.pages.registry import pages
from psannlm.publish.run_facts import machine

LONGEST = 60  # characters of a value on the page; the file has all of it
HEAD = """# Raw rows

Every row that a headline number or a claim was read from: the file it stands in, the sha256 of
that file as its run stated it, and the command that measures it again. The numbers are written
with every digit of the file; what is unknown is left out."""


def rows_page(rows: Sequence[Row], best: Mapping[str, Evidence]) -> str:
    """The page, as Markdown: a part a file, an entry a row; `best` are the runs that are shown."""
    parts: dict[tuple[str, str, str], dict[int, Row]] = {}
    for row in rows:
        parts.setdefault((row.page, row.run.name, row.file), {})[row.number] = row
    lines = [HEAD]
    for (page, run, file), by_number in parts.items():
        first = next(iter(by_number.values()))
        manifest = first.run.manifest
        lines += [
            f"## {page.replace('_', ' ').capitalize()}: {file}",
            f"{{download}}`{file} <{location(first, best)}>` of run {run}, preset "
            f"{manifest['preset']}; its sha256 is `{manifest['artifacts'][file]}`.",
            *(_entry(by_number[number]) for number in sorted(by_number)),
        ]
    if not parts:
        lines.append("No complete run yet: `make report` makes the first.")
    return "\n\n".join(lines) + "\n"


def location(row: Row, best: Mapping[str, Evidence]) -> str:
    """Where the file of a row lies in the book, below results/."""
    folder = "" if _is_shown(row, best) else f"{row.run.folder.name}/"
    return f"data/{row.page}/{folder}{row.file}"


def files_beside(rows: Iterable[Row], best: Mapping[str, Evidence]) -> dict[str, bytes]:
    """Files of runs that are not shown, but that a claim stands on, by their place in the book."""
    places = {location(row, best): row for row in rows if not _is_shown(row, best)}
    return {place: (row.run.folder / row.file).read_bytes() for place, row in places.items()}


def _is_shown(row: Row, best: Mapping[str, Evidence]) -> bool:
    return row.page in best and best[row.page].folder == row.run.folder


def _entry(row: Row) -> str:
    """A row: a target for links, its name, and a table that opens."""
    facts = {
        "run": row.run.name,
        "machine": machine(row.run),
        "measured": f"{row.run.manifest['started_at'][:19].replace('T', ' ')} UTC",
        "file, row": f"{row.file}, row {row.number}",
        "again": row.command,
    }
    known = {name: shown(value) for name, value in row.values.items() if value not in (None, "")}
    return (
        f"({row.label})=\n**Row {row.number}**: {literal(about(row))}\n\n"
        "<details><summary>All of it, and the command that measures it again</summary>"
        f"{facts_table(facts | known)}</details>"
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
