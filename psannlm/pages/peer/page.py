"""The page of the published package beside ours: speeds and bytes, by defaults and at best."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from psannlm.bench.statistics import CONFIDENCE
from psannlm.evidence.figures import Figure
from psannlm.evidence.page import Page, RerunRequest, RunInfo, Tables
from psannlm.evidence.rows import Number, Row
from psannlm.evidence.runs import Evidence
from psannlm.evidence.session import Session
from psannlm.evidence.table import Column
from psannlm.pages.peer import figures, prose
from psannlm.pages.peer import tables as peer_tables
from psannlm.pages.peer.config import PeerConfig
from psannlm.pages.peer.plan import compare, plan, protocol_plan
from psannlm.pages.peer.records import (
    OURS,
    ROW,
    SAVED,
    STORE,
    AnyCell,
    PeerCell,
    compared,
    problems,
)
from psannlm.pages.peer.tables import PEER, RATIO, VALUE, pairs


class PeerPage(Page[PeerConfig, AnyCell]):
    """Both packages interleaved, each by its defaults and with its fastest choices."""

    name = "peer"
    title = "Against the published package"
    question = "Is it better than the published package?"
    installs = True
    config = PeerConfig
    tables = (PEER, peer_tables.PROTOCOL)
    store = STORE
    readme_table = peer_tables.BESIDE
    readme_columns = ("work", "precision", "base", "setting", RATIO, "result", "n_ok")

    def total(self, config: PeerConfig) -> int:
        return len(plan(config)) + len(protocol_plan(config))

    def measure(self, session: Session[PeerConfig, AnyCell]) -> Iterator[Sequence[AnyCell]]:
        return compare(session.config, done=session.done)

    def tabulate(self, records: Sequence[AnyCell], run: RunInfo[PeerConfig]) -> Tables:
        return peer_tables.tabulate(records, run)

    def bounds(self, records: Sequence[AnyCell], config: PeerConfig) -> Iterator[str]:
        return problems(records, config)

    def figures(self, tables: Tables, run: RunInfo[PeerConfig]) -> Mapping[str, Figure]:
        return {"ratios": figures.ratios(tables[PEER.file])}

    def answer(self, tables: Tables, run: RunInfo[PeerConfig]) -> str:
        return prose.answer(tables[PEER.file], run.config)

    def reading(self, tables: Tables, run: RunInfo[PeerConfig]) -> str:
        return prose.reading(tables[PEER.file], run.config)

    def section(self, name: str, tables: Tables, run: RunInfo[PeerConfig]) -> str:
        """The two packages `beside` each other."""
        return peer_tables.BESIDE.html(pairs(tables[PEER.file]))

    def best(self, tables: Tables, run: RunInfo[PeerConfig]) -> pd.DataFrame:
        return pairs(tables[PEER.file])

    def readme_note(self, run: RunInfo[PeerConfig]) -> str:
        return (
            f"Beside {prose.package(run.config)}. A ratio is ours to the published package's, "
            f"paired by block, with its {CONFIDENCE:.0%} interval; of what is saved for backward "
            "it is one of bytes."
        )

    def setting(self, row: Row) -> str:
        return super().setting(row).removeprefix(f"{OURS}, ")

    def stem(self, row: Row) -> str:
        return ".".join([self.name, *(str(row.values[name]) for name in ROW)])

    def is_headline(self, row: Row, column: Column) -> bool:
        return row.values[RATIO] is not None

    def column_of(self, row: Row, column: Column) -> Column:
        return peer_tables.column_of(column, row.values)

    def numbers(self, run: Evidence) -> Iterator[Number]:
        """Of ours, measured once, to the published package's."""
        return (n for n in super().numbers(run) if n.row and n.row.values["side"] == OURS)

    def summary(self, numbers: Sequence[Number]) -> str:
        return prose.summary(numbers)

    def found(self, run: Evidence) -> str:
        return prose.found(list(self.numbers(run)))

    def measure_again(
        self, row: Row, request: RerunRequest[PeerConfig], records: Sequence[AnyCell]
    ) -> list[AnyCell]:
        """All sides of the row; works that came after it in its processes are left out."""
        values, asked = row.values, request.config.work
        changes: dict[str, Any] = {n: (values[n],) for n in ("base", "setting", "precision")}
        changes |= {"work": asked[: asked.index(values["work"]) + 1], "n_repeats": request.repeats}
        config = request.config.model_copy(update=changes | {"protocol_batch_tokens": ()})
        request.say(f"measuring in {len(plan(config))} fresh processes")
        return [record for found in compare(config) for record in found]

    def replicates(
        self, records: Sequence[AnyCell], row: Row, config: PeerConfig
    ) -> Mapping[str, Mapping[int, float]]:
        """Of bytes, those of the side alone: what the other side saves is a row of its own."""
        side = row.values["side"]
        other = peer_tables.OTHER.get(side)
        mine = peer_tables.amounts(_of_row(records, row, side))
        if row.values["work"] == SAVED or other is None:
            return {VALUE: mine}
        theirs = peer_tables.amounts(_of_row(records, row, other))
        return {VALUE: mine, RATIO: {b: mine[b] / theirs[b] for b in mine.keys() & theirs}}

    def failures(self, records: Sequence[AnyCell], row: Row) -> list[str]:
        return [r.reason for r in _of_row(records, row, row.values["side"]) if r.reason]


def _of_row(records: Sequence[AnyCell], row: Row, side: str) -> list[PeerCell]:
    key = tuple(row.values[name] for name in ROW)
    return [record for record in compared(records) if (record.side, record.row) == (side, key)]


PAGE = PeerPage()
