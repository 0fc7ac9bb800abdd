"""A run's files held against its records: every table and text is computed again and compared.

Hashes tell that files are as they were written; this tells that they were written right.
"""

import csv
import io
import json
import math
import re
from collections.abc import Collection, Iterator
from typing import Any

from psannlm.evidence import parts
from psannlm.evidence.page import Page, run_info
from psannlm.evidence.runs import Evidence

NUMBER = re.compile(r"(?:(?<!\w)[-+−])?\d+(?:[.,]\d+)*")
CELL = re.compile(r"(?<!\\)\|")
RULE = re.compile(r":?-+:?")

Table = list[list[str]]  # cells of each line, the headings first

TOLERANCE, SMALLEST = 1e-9, 1e-15
"""Relative, and absolute for nearly equal losses: the same sums differ by rounding at most."""

SUBJECT = ("side", "base", "setting", "work", "precision", "arm", "seed")
"""Columns that tell what a row is about, as far as a table has them."""


def problems(page: Page[Any, Any], run: Evidence) -> Iterator[str]:
    """What the files of a complete run state otherwise than its records, or than is possible."""
    first = page.tables[0].file
    try:
        info = run_info(page, run)
        records = info.records
        keys = [record.key for record in records]
        if len(set(keys)) < len(keys):
            yield f"{first}: two of its records have one key"
        yield from parts.problems(run.manifest, keys)
        texts = page.texts(records, info)
        for name, content in texts.items():
            yield from differences(name, run.text(name), content)
        fixed = {name for table in page.tables for name in table.fixed}
        files = page.files(page.tabulate(records, info), info)
        for name, content in files.items():
            yield from differences(name, run.text(name), content, fixed=fixed)
        made = {*texts, *files}
        folders = {name.partition("/")[0] for name in made if "/" in name}
        for name in run.manifest["artifacts"]:
            if name.partition("/")[0] in folders and name not in made:
                yield f"{name}: follows from no record"
        yield from page.bounds(records, info.config)
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError) as error:
        yield f"{first}: cannot be computed from the records: {type(error).__name__}: {error}"


def differences(
    name: str, stated: str, expected: str, *, fixed: Collection[str] = ()
) -> Iterator[str]:
    """What a file says otherwise than it should: file, place, the stated value and the right one.

    Numbers with a point agree but for rounding, all else to the last sign. Columns and fields that
    only one of the two has are passed over unless they are `fixed`: later code may make more of
    them, or fewer. The ending of the name says what a file is: CSV, JSON, or Markdown.
    """
    if stated == expected:
        return
    if name.endswith(".csv"):
        found = _in_tables(stated, expected, fixed)
    elif name.endswith(".json"):
        found = _in_json("", json.loads(stated), json.loads(expected), fixed)
    elif name.endswith(".log"):
        there = set(stated.splitlines())
        found = (f"no line {line!r}" for line in expected.splitlines() if line not in there)
    else:
        found = text_differences(stated, expected)
    for problem in found:
        yield f"{name}: {problem}"


def _in_tables(stated: str, expected: str, fixed: Collection[str]) -> Iterator[str]:
    head, *rows = csv.reader(io.StringIO(stated))
    right_head, *right_rows = csv.reader(io.StringIO(expected))
    for column in dict.fromkeys(c for c in head if head.count(c) > 1):
        yield f"two columns are called {column!r}"
    for column in right_head:
        if column in fixed and column not in head:
            yield f"column {column!r} is missing"
    if not set(head) & set(right_head):
        yield f"its columns are {head}, they should be {right_head}"
        return
    if len(rows) != len(right_rows):
        yield f"{len(rows)} rows, the records give {len(right_rows)}"
    for number, (row, right) in enumerate(zip(rows, right_rows, strict=False), start=1):
        if len(row) != len(head):
            yield f"row {number} has {len(row)} fields for {len(head)} columns"
            continue
        known = dict(zip(right_head, right, strict=True))
        subject = " ".join(known[name] for name in SUBJECT if known.get(name)) or right[0]
        for column, one in zip(head, row, strict=True):
            if column in known and not _same_text(one, known[column]):
                where = f"row {number}, {subject}: {column}"
                yield f"{where} is {one!r}, the records give {known[column]!r}"


def _same_text(one: str, other: str) -> bool:
    try:
        has_point = any(sign in one + other for sign in ".e")
        return one == other or (has_point and _close(float(one), float(other)))
    except ValueError:
        return False


def _in_json(path: str, stated: Any, expected: Any, fixed: Collection[str]) -> Iterator[str]:
    if isinstance(stated, dict) and isinstance(expected, dict):
        for name, right in expected.items():
            where = f"{path}.{name}" if path else str(name)
            if name in stated:
                yield from _in_json(where, stated[name], right, fixed)
            elif name in fixed:
                yield f"{where} is missing"
    elif isinstance(stated, list) and isinstance(expected, list):
        if len(stated) != len(expected):
            yield f"{path} has {len(stated)} entries, the records give {len(expected)}"
        for i, (one, other) in enumerate(zip(stated, expected, strict=False)):
            yield from _in_json(f"{path}[{i}]", one, other, fixed)
    elif not _same_value(stated, expected):
        yield f"{path} is {stated!r}, the records give {expected!r}"


def _same_value(stated: Any, expected: Any) -> bool:
    if {type(stated), type(expected)} in ({float}, {float, int}):
        return _close(float(stated), float(expected))
    return type(stated) is type(expected) and bool(stated == expected)


def _close(one: float, other: float) -> bool:
    return math.isfinite(one) and math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=SMALLEST)


def text_differences(stated: str, expected: str) -> Iterator[str]:
    """Numbers and names that a text states otherwise than it should.

    A sentence may say the same in other words, and a later one may be missing. Tables have the
    same rows; a column that only one text has is passed over, so that a table may grow.
    """
    numbers, tables = _split(stated)
    right_numbers, right_tables = _split(expected)
    following = iter(right_numbers)  # of which later sentences may be missing between
    for place, number in enumerate(numbers, start=1):
        if number not in following:
            meant = right_numbers[place - 1] if place <= len(right_numbers) else "none there"
            yield f"number {place} of its sentences is {number!r}, the records give {meant!r}"
            break
    if len(tables) != len(right_tables):
        yield f"{len(tables)} tables, the records give {len(right_tables)}"
    for table, right in zip(tables, right_tables, strict=False):
        yield from _in_markdown_table(table, right)


def _split(text: str) -> tuple[list[str], list[Table]]:
    """Numbers of the sentences in order, and the tables."""
    numbers: list[str] = []
    tables: list[Table] = []
    is_within = False
    for line in text.splitlines():
        if not line.startswith("|"):
            numbers += NUMBER.findall(line)
            is_within = False
            continue
        cells = [cell.strip() for cell in CELL.split(line)[1:-1]]
        tables += [] if is_within else [[]]
        is_within = True
        if not all(map(RULE.fullmatch, cells)):
            tables[-1].append(cells)
    return numbers, tables


def _in_markdown_table(table: Table, right: Table) -> Iterator[str]:
    pairs = [(i, right[0].index(head)) for i, head in enumerate(table[0]) if head in right[0]]
    if len(table[0]) == len(right[0]):  # by order, as a heading may have other words
        pairs = [(i, i) for i in range(len(right[0]))]
    if not pairs:
        yield f"none of its columns {table[0]} is one of {right[0]}"
    if len(table) != len(right):
        yield f"{len(table) - 1} rows of a table, the records give {len(right) - 1}"
    for i, j in pairs:
        if NUMBER.findall(table[0][i]) != NUMBER.findall(right[0][j]):
            yield f"a heading is {table[0][i]!r}, the records give {right[0][j]!r}"
    for number, (row, other) in enumerate(zip(table[1:], right[1:], strict=False), start=1):
        if len(row) != len(table[0]):
            yield f"row {number} of a table has {len(row)} cells for {len(table[0])} headings"
            continue
        for i, j in pairs:
            numbers = NUMBER.findall(other[j])  # where there are none, words count
            if row[i] != other[j] and not (numbers and NUMBER.findall(row[i]) == numbers):
                where = f"row {number}, {' '.join(other[:2])}: {right[0][j]}"
                yield f"{where} is {row[i]!r}, the records give {other[j]!r}"
