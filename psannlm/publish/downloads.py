"""The page of downloads: every published file, its columns with their units, how to cite it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from psannlm.evidence import text as views
from psannlm.evidence.rows import TABLES
from psannlm.evidence.runs import Evidence, best_run
from psannlm.publish.citation import citation
from psannlm.publish.data_archive import (
    CONVENTIONS,
    ZIP,
    Group,
    data_files,
    groups,
    run_facts,
    table,
    zipped,
)

PAGE = "downloads.md"
PAGES = {name: name.replace("_", " ").capitalize() for name in TABLES}
SECTIONS = {**PAGES, "history": "History", "": "Headline numbers"}
"""Headings of the page, by first folder in the zip."""


def staged(runs: Sequence[Evidence], beside: Mapping[str, bytes]) -> dict[str, bytes]:
    """The page and the zip, by path below results/.

    Args:
        runs: Sound ones; the best of each page gives its data.
        beside: Everything else that is staged, by path below results/.
    """
    best = {name: run for name in TABLES if (run := best_run(name, list(runs))) is not None}
    files = data_files(best, beside)
    archive = zipped(files, best)
    return {ZIP: archive, PAGE: page(best, files, beside, len(archive)).encode()}


def page(
    best: Mapping[str, Evidence],
    files: Mapping[str, bytes],
    beside: Mapping[str, bytes],
    zip_bytes: int,
) -> str:
    """The page as Markdown.

    Args:
        best: Of each page, the run whose data it offers.
        files: Everything in the zip, by path in it.
        beside: What is staged, by path below results/; only that can be linked.
        zip_bytes: Size of the zip.
    """
    found = groups(files)
    lines = [
        "# Downloads",
        "",
        f"**All data in one file:** {{download}}`{ZIP}` ({size(zip_bytes)}, {len(files)} files of "
        "data). With it come a README of all columns and units, the license, and checksums.",
        "",
        CONVENTIONS,
    ]
    if not best:
        lines += ["No complete run yet: `make report` makes the first.", ""]
    for folder, title in SECTIONS.items():
        if mine := [group for group in found if _folder(group.first) == folder]:
            lines += [f"## {title}", "", *_about(best.get(folder)), *_files(mine, beside)]
            lines += _dictionary(mine, title)
    lines += ["## How to cite", "", "```bibtex", citation().bibtex.rstrip(), "```", ""]
    return "\n".join(lines)


def size(n_bytes: int) -> str:
    """A number of bytes as people say it, in KiB or MiB, on one line."""
    kib = n_bytes / 2**10
    said = f"{kib:.1f} KiB" if kib < 1000 else f"{kib / 2**10:.1f} MiB"
    return said.replace(" ", "\N{NO-BREAK SPACE}")


def _folder(path: str) -> str:
    return path.partition("/")[0] if "/" in path else ""


def _about(run: Evidence | None) -> list[str]:
    if run is None:
        return []
    facts = ", ".join(f"{name} {value}" for name, value in run_facts(run).items())
    return [f"{facts[0].upper()}{facts[1:]}.", ""]


def _files(mine: Sequence[Group], beside: Mapping[str, bytes]) -> list[str]:
    """A row a file, or a row for all of one pattern."""
    rows = [
        (_link(group, beside), size(group.n_bytes), _count(group.n_rows), group.holds)
        for group in mine
    ]
    return list(table(("file", "size", "rows", "holds"), rows))


def _link(group: Group, beside: Mapping[str, bytes]) -> str:
    """The file to download, or its name where only the zip has it to the byte."""
    path = group.first
    name = path.rpartition("/")[2]
    content = group.files[path]
    staged_as = next((p for p in (f"data/{path}", name) if beside.get(p) == content), None)
    if len(group.files) > 1 or staged_as is None:
        return f"`{group.name.removeprefix(_folder(path)).lstrip('/')}`, in the zip"
    return f"{{download}}`{name} <{staged_as}>`"


def _count(rows: int | None) -> str:
    return "" if rows is None else f"{rows:,}"


def _dictionary(mine: Sequence[Group], title: str) -> list[str]:
    """Columns of all files, folded: a sortable table each."""
    tables: list[Any] = []
    for group in mine:
        if group.columns:
            frame = pd.DataFrame([(c.name, c.unit, c.what) for c in group.columns])
            frame.columns = pd.Index(["name", "unit", "is"])
            tables += [views.sortable(frame, f"Columns of {group.name}"), ""]
    return [f"```{{dropdown}} Columns and fields: {title}", *tables, "```", ""]
