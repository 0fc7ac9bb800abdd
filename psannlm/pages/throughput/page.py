"""The throughput page: tokens per second of every base, forward pass and training step."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pandas as pd

from psannlm.bench.statistics import CONFIDENCE, FEWEST_REPEATS
from psannlm.evidence.figures import Figure
from psannlm.evidence.page import Page, RerunRequest, RunInfo, Tables
from psannlm.evidence.runs import Evidence
from psannlm.evidence.session import Session
from psannlm.evidence.table import Number, Row
from psannlm.pages.throughput import figures, prose
from psannlm.pages.throughput import tables as made
from psannlm.pages.throughput.plan import cells_of_row, expected_seconds, plan, throughput
from psannlm.pages.throughput.records import CEILING, ROW, STORE, CellRecord, ThroughputConfig
from psannlm.pages.throughput.tables import RATIO, SPEED, THROUGHPUT


class ThroughputPage(Page[ThroughputConfig, CellRecord]):
    """Speed of every base, as a ratio to the baseline and as a share of the matmul ceiling."""

    name = "throughput"
    title = "Throughput"
    question = "Is it as fast?"
    config = ThroughputConfig
    tables = (THROUGHPUT,)
    store = STORE
    readme_figure = "throughput"
    readme_columns = ("label", "mode", "precision", "batch_tokens", SPEED, RATIO, "verdict")
    reducible: ClassVar[Mapping[str, float]] = {"n_repeats": FEWEST_REPEATS}
    expected_seconds = staticmethod(expected_seconds)
    tabulate = staticmethod(made.tabulate)
    answer = staticmethod(prose.answer)
    reading = staticmethod(prose.reading)
    summary = staticmethod(prose.summary)

    def total(self, config: ThroughputConfig) -> int:
        return len(plan(config))

    def measure(self, session: Session[ThroughputConfig, CellRecord]) -> Iterator[list[CellRecord]]:
        return throughput(session.config, done=session.done)

    def figures(self, tables: Tables, run: RunInfo[ThroughputConfig]) -> Mapping[str, Figure]:
        table = tables[THROUGHPUT.file]
        return {"throughput": figures.speed(table), "ceiling": figures.ceiling(table)}

    def best(self, tables: Tables, run: RunInfo[ThroughputConfig]) -> pd.DataFrame:
        return made.best_rows(tables[THROUGHPUT.file])

    def readme_note(self, run: RunInfo[ThroughputConfig]) -> str:
        return (
            "Best batch of each base; medians over fresh processes with "
            f"{CONFIDENCE:.0%} intervals."
        )

    def setting(self, row: Row) -> str:
        second = row.values["label"] != row.values["base"]
        return super().setting(row) + (", measured again" if second else "")

    def stem(self, row: Row) -> str:
        return super().stem(row) + ("" if self.is_main(row) else ".again")

    def numbers(self, run: Evidence) -> Iterator[Number]:
        """All but the ratio of the baseline to itself, which was not measured twice."""
        for number in super().numbers(run):
            if number.column.name != RATIO or number.verdict != "baseline":
                yield number

    def is_main(self, row: Row) -> bool:
        return bool(row.values["label"] == row.values["base"])

    def pieces(self) -> Mapping[str, str]:
        return {"costs.md": prose.costs()}

    def found(self, run: Evidence) -> str:
        return prose.found([n for n in self.numbers(run) if n.is_main])

    def measure_again(
        self, row: Row, request: RerunRequest[ThroughputConfig], records: Sequence[CellRecord]
    ) -> list[CellRecord]:
        config = request.config.model_copy(update={"n_repeats": request.repeats})
        cells = cells_of_row(row.values, config)
        request.say(f"measuring in {len(cells)} fresh processes")
        return [record for found in throughput(config, cells=cells) for record in found]

    def replicates(
        self, records: Sequence[CellRecord], row: Row, config: ThroughputConfig
    ) -> Mapping[str, Mapping[Any, float]]:
        label, *setting = (row.values[name] for name in ROW)
        mine, baseline = (
            made.rates_of(r for r in records if r.row == (name, *setting))
            for name in (label, config.baseline)
        )
        products = (CEILING, row.values["precision"], "ok")
        ceiling = {
            r.repeat: r.flop_per_s for r in records if (r.mode, r.precision, r.status) == products
        }
        found = {SPEED: mine, "ceiling_flop_per_s": ceiling}
        if label == config.baseline:
            return found
        return found | {RATIO: {b: mine[b] / baseline[b] for b in mine.keys() & baseline}}

    def failures(self, records: Sequence[CellRecord], row: Row) -> list[str]:
        key = tuple(row.values[name] for name in ROW)
        return [record.reason for record in records if record.row == key and record.reason]


PAGE = ThroughputPage()
