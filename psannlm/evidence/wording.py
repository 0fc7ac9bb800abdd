"""Where a Markdown text differs from what it should be in numbers and names, whatever its words."""

import re
from collections.abc import Iterator, Sequence

NUMBER = re.compile(r"(?:(?<!\w)[-+−])?\d+(?:[.,]\d+)*")
CELL = re.compile(r"(?<!\\)\|")
RULE = re.compile(r":?-+:?")

Table = list[list[str]]
"""Cells of each line, the headings first."""


def differences(stated: str, expected: str) -> Iterator[str]:
    """Numbers and names that a text states otherwise than it should.

    A sentence may say the same in other words, and a later one may be missing. Tables have the
    same rows; a column that only one text has is passed over, so that a table may grow.

    Args:
        stated: The text.
        expected: What it should be.
    """
    prose, tables = _split(stated)
    right_prose, right_tables = _split(expected)
    yield from _in_prose(prose, right_prose)
    if len(tables) != len(right_tables):
        yield f"{len(tables)} tables, the records give {len(right_tables)}"
    for table, right in zip(tables, right_tables, strict=False):
        yield from _in_table(table, right)


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
        if not is_within:
            tables.append([])
        is_within = True
        if not all(map(RULE.fullmatch, cells)):
            tables[-1].append(cells)
    return numbers, tables


def _in_prose(numbers: Sequence[str], right: Sequence[str]) -> Iterator[str]:
    """The first number that is not the expected one; later sentences may be missing between."""
    following = iter(right)
    for place, number in enumerate(numbers, start=1):
        if number not in following:
            meant = right[place - 1] if place <= len(right) else "none there"
            yield f"number {place} of its sentences is {number!r}, the records give {meant!r}"
            return


def _in_table(table: Table, right: Table) -> Iterator[str]:
    pairs = _columns(table[0], right[0])
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
            if not _says_the_same(row[i], other[j]):
                where = f"row {number}, {' '.join(other[:2])}: {right[0][j]}"
                yield f"{where} is {row[i]!r}, the records give {other[j]!r}"


def _columns(heads: Sequence[str], right: Sequence[str]) -> list[tuple[int, int]]:
    """Places of the columns that both tables have: by order if as many, else by heading."""
    if len(heads) == len(right):
        return list(enumerate(range(len(right))))
    return [(i, right.index(head)) for i, head in enumerate(heads) if head in right]


def _says_the_same(cell: str, right: str) -> bool:
    """Whether a cell has the numbers of the other, or its words where there are none."""
    numbers = NUMBER.findall(right)
    return cell == right or (bool(numbers) and NUMBER.findall(cell) == numbers)
