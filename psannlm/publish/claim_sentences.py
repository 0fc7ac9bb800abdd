"""Sentences of claims: places filled in from rows by name, and no digit that nothing would hold."""

import re
from collections.abc import Iterator
from typing import Any

import pandas as pd

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
