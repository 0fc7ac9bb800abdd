"""Where a file differs from what it should be: rows of tables, fields of JSON, lines of text."""

import csv
import io
import itertools
import json
import math
from collections.abc import Iterator
from typing import Any

TOLERANCE, SMALLEST = 1e-9, 1e-15
"""Relative, and absolute for differences of losses that are nearly equal: the same sums differ by
rounding in the last digits at most."""

SUBJECT = ("side", "base", "setting", "work", "precision", "arm", "seed")
"""Columns that tell what a row is about, as far as a table has them."""


def differences(name: str, stated: str, expected: str) -> Iterator[str]:
    """What a file says otherwise than it should: file, place, the stated value and the right one.

    Numbers with a point agree but for rounding, all else to the last sign.

    Args:
        name: Of the file; its ending says what it is: CSV, JSON, or lines of text.
        stated: Its content.
        expected: What it should be.

    Raises:
        ValueError: A JSON file is none.
    """
    if stated == expected:
        return
    if name.endswith(".csv"):
        found = _in_tables(stated, expected)
    elif name.endswith(".json"):
        found = _in_json("", json.loads(stated), json.loads(expected))
    else:
        found = _in_lines(stated, expected)
    for problem in found:
        yield f"{name}: {problem}"


def _in_tables(stated: str, expected: str) -> Iterator[str]:
    head, *rows = csv.reader(io.StringIO(stated))
    right_head, *right_rows = csv.reader(io.StringIO(expected))
    if head != right_head:
        yield f"its columns are {head}, they should be {right_head}"
        return
    if len(rows) != len(right_rows):
        yield f"{len(rows)} rows, the records give {len(right_rows)}"
    for number, (row, right) in enumerate(zip(rows, right_rows, strict=False), start=1):
        if len(row) != len(head):
            yield f"row {number} has {len(row)} fields for {len(head)} columns"
            continue
        for column, one, other in zip(head, row, right, strict=True):
            if not _same_text(one, other):
                where = f"row {number}, {_subject(head, right)}"
                yield f"{where}: {column} is {one!r}, the records give {other!r}"


def _subject(head: list[str], row: list[str]) -> str:
    """What a row is about, as far as its columns say it in names that all tables share."""
    known = dict(zip(head, row, strict=True))
    names = [known[name] for name in SUBJECT if known.get(name)]
    return " ".join(names) or row[0]


def _same_text(one: str, other: str) -> bool:
    if one == other:
        return True
    if not any(sign in one + other for sign in ".e"):
        return False
    try:
        return _close(float(one), float(other))
    except ValueError:
        return False


def _in_json(path: str, stated: Any, expected: Any) -> Iterator[str]:
    if isinstance(stated, dict) and isinstance(expected, dict):
        for name in dict.fromkeys([*expected, *stated]):
            where = f"{path}.{name}" if path else str(name)
            if name not in stated or name not in expected:
                yield f"{where} is {'unknown' if name in stated else 'missing'}"
            else:
                yield from _in_json(where, stated[name], expected[name])
    elif isinstance(stated, list) and isinstance(expected, list):
        if len(stated) != len(expected):
            yield f"{path} has {len(stated)} entries, the records give {len(expected)}"
        for i, (one, other) in enumerate(zip(stated, expected, strict=False)):
            yield from _in_json(f"{path}[{i}]", one, other)
    elif not _same_value(stated, expected):
        yield f"{path} is {stated!r}, the records give {expected!r}"


def _same_value(stated: Any, expected: Any) -> bool:
    if isinstance(stated, float) and isinstance(expected, float):
        return _close(stated, expected)
    return type(stated) is type(expected) and bool(stated == expected)


def _in_lines(stated: str, expected: str) -> Iterator[str]:
    pairs = itertools.zip_longest(stated.splitlines(), expected.splitlines())
    for number, (line, right) in enumerate(pairs, start=1):
        if line != right:
            yield f"line {number} is {line!r}, the records give {right!r}"
            return
    yield "its ends of lines are not those of the project"


def _close(one: float, other: float) -> bool:
    return math.isfinite(one) and math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=SMALLEST)
