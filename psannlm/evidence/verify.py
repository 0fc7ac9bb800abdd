"""Where a file differs from what it should be: rows of tables, fields of JSON, numbers of text."""

import csv
import io
import json
import math
from collections.abc import Collection, Iterator
from typing import Any

from psannlm.evidence import wording

TOLERANCE, SMALLEST = 1e-9, 1e-15
"""Relative, and absolute for differences of losses that are nearly equal: the same sums differ by
rounding in the last digits at most."""

SUBJECT = ("side", "base", "setting", "work", "precision", "arm", "seed")
"""Columns that tell what a row is about, as far as a table has them."""


def differences(
    name: str, stated: str, expected: str, *, fixed: Collection[str] = ()
) -> Iterator[str]:
    """What a file says otherwise than it should: file, place, the stated value and the right one.

    Numbers with a point agree but for rounding, all else to the last sign. Columns and fields that
    only one of the two has are passed over: later code may make more of them, or fewer.

    Args:
        name: Of the file; its ending says what it is: CSV, JSON, or Markdown.
        stated: Its content.
        expected: What it should be.
        fixed: Columns and fields that must be there if they should be.

    Raises:
        ValueError: A JSON file is none.
    """
    if stated == expected:
        return
    if name.endswith(".csv"):
        found = _in_tables(stated, expected, fixed)
    elif name.endswith(".json"):
        found = _in_json("", json.loads(stated), json.loads(expected), fixed)
    else:
        found = wording.differences(stated, expected)
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
        for column, one in zip(head, row, strict=True):
            if column in known and not _same_text(one, known[column]):
                where = f"row {number}, {_subject(right_head, right)}"
                yield f"{where}: {column} is {one!r}, the records give {known[column]!r}"


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
    if isinstance(stated, float) and isinstance(expected, float):
        return _close(stated, expected)
    return type(stated) is type(expected) and bool(stated == expected)


def _close(one: float, other: float) -> bool:
    return math.isfinite(one) and math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=SMALLEST)
