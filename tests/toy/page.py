"""The toy page: how many letters the name of each base has."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from psannlm.config.schema import OneOrMore, Strict, Text
from psannlm.config.training import Device, Preset
from psannlm.evidence.figures import Axes, Figure, compose
from psannlm.evidence.page import Page, RerunRequest, RunInfo, Tables
from psannlm.evidence.session import Session
from psannlm.evidence.store import RecordStore, about, columns_of, to_csv
from psannlm.evidence.table import BASE, Column, Row, Table


class ToyConfig(Strict):
    """What the notebook may vary."""

    preset: Preset
    base: OneOrMore[Text]
    device: Device
    seed: int


@dataclass(frozen=True)
class Letters:
    """What was counted of a name."""

    base: Annotated[str, BASE]
    letters: Annotated[int, about("Letters of the name.", "letters")]

    @property
    def key(self) -> tuple[Any, ...]:
        """The name."""
        return (self.base,)


RECORDS = Table("letters.csv", "One row a base, its letters.", columns_of(Letters))
TOY = Table(
    "toy.csv",
    "One row a base.",
    (
        BASE.but(value=lambda record: record.base),
        Column(
            "letters",
            "Letters of the name of the base.",
            "letters",
            heading="length",
            format=",.0f",
            value=lambda record: record.letters,
            quantity="length of the name",
            better="lower",
            compare="counted",
            headline="TOY-01",
        ),
        Column(
            "root",
            "Square root of the letters.",
            heading="root",
            format=".3f",
            value=lambda record: record.letters**0.5,
        ),
    ),
    caption="Length of every name",
)


def _texts(records: Sequence[Letters]) -> dict[str, str]:
    return {RECORDS.file: to_csv(RECORDS.names, ((r.base, r.letters) for r in records))}


def _records(texts: Mapping[str, str]) -> list[Letters]:
    rows = csv.DictReader(io.StringIO(texts[RECORDS.file]))
    return [Letters(row["base"], int(row["letters"])) for row in rows]


def _bars(names: Sequence[str], values: Sequence[float], axes: Axes) -> None:
    axes.bar(names, values)
    axes.set_ylabel("letters")


class ToyPage(Page[ToyConfig, Letters]):
    """Letters of every name."""

    name = "toy"
    title = "Toy"
    question = "How long are the names?"
    config = ToyConfig
    tables = (TOY,)
    store = RecordStore((RECORDS,), _texts, _records, lambda record: record.base)

    def measure(self, session: Session[ToyConfig, Letters]) -> Iterator[list[Letters]]:
        for base in session.config.base:
            if (base,) not in session.done:
                yield [Letters(base, len(base))]

    def tabulate(self, records: Sequence[Letters], run: RunInfo[ToyConfig]) -> Tables:
        return {TOY.file: TOY.frame(TOY.row(record) for record in records)}

    def figures(self, tables: Tables, run: RunInfo[ToyConfig]) -> Mapping[str, Figure]:
        table = tables[TOY.file]
        draw = partial(_bars, list(table["base"]), list(table["letters"]))
        return {"lengths": compose("letters of every name", {"letters": draw}, "Letters.")}

    def measure_again(
        self, row: Row, request: RerunRequest[ToyConfig], records: Sequence[Letters]
    ) -> list[Letters]:
        base = row.values["base"]
        return [Letters(base, len(base))]

    def replicates(
        self, records: Sequence[Letters], row: Row, config: ToyConfig
    ) -> Mapping[str, Mapping[Any, float]]:
        mine = [r for r in records if r.base == row.values["base"]]
        return {"letters": {r.key: float(r.letters) for r in mine}}


PAGE = ToyPage()
