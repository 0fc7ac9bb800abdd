"""The memory page: the bytes of a training step, predicted and measured, checkpointed or not."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import pandas as pd

from psannlm.evidence import text
from psannlm.evidence.figures import Figure
from psannlm.evidence.page import Page, RerunRequest, RunInfo, Tables
from psannlm.evidence.runs import Evidence
from psannlm.evidence.session import Session
from psannlm.evidence.store import of_type
from psannlm.evidence.table import Column, Number, Row
from psannlm.files import MIB
from psannlm.pages.memory import figures, prose
from psannlm.pages.memory import records as raw
from psannlm.pages.memory import tables as made
from psannlm.pages.memory.plan import (
    MemoryCell,
    expected_seconds,
    memory,
    memory_plan,
    published,
)
from psannlm.pages.memory.records import DEFAULT, AnyRecord, MemoryConfig, MemoryRecord, Setting
from psannlm.pages.memory.tables import MEASURED, MEMORY, PEER, SAVINGS, WITHIN

SIZES = tuple(f"{what}_{name}_mib" for what in MEASURED for name in ("without", "with", "less"))
COST = (*SIZES, "elapsed_without_s", "elapsed_with_s", "time_ratio", "status")


class MemoryPage(Page[MemoryConfig, AnyRecord]):
    """Bytes of a step of every base with and without checkpointing, and what that costs in time."""

    name = "memory"
    title = "Memory"
    question = "What does checkpointing save?"
    config = MemoryConfig
    tables = (MEMORY, SAVINGS, PEER)
    store = raw.STORE
    readme_table = SAVINGS
    constants: ClassVar[Mapping[str, str]] = {
        f"{what}_within": f"{share:.0%}" for what, share in WITHIN.items()
    }
    readme_columns = ("base", "precision", *COST)
    reducible: ClassVar[Mapping[str, float]] = {"n_repeats": 2}  # two times make an interval
    expected_seconds = staticmethod(expected_seconds)
    tabulate = staticmethod(made.tabulate)
    bounds = staticmethod(raw.problems)
    answer = staticmethod(prose.answer)
    reading = staticmethod(prose.reading)
    summary = staticmethod(prose.summary)

    def total(self, config: MemoryConfig) -> int:
        return len(memory_plan(config)) + (len(config.precision) if config.peer else 0)

    def measure(self, session: Session[MemoryConfig, AnyRecord]) -> Iterator[list[AnyRecord]]:
        for record in memory(session.config, done=session.done):
            yield [record]
        for peer in published(session.config, done=session.done):
            yield [peer]

    def figures(self, tables: Tables, run: RunInfo[MemoryConfig]) -> Mapping[str, Figure]:
        rows = tables[MEMORY.file]
        grown = {what: figures.growth(rows, run.config, what) for what in MEASURED}
        return {"breakdown": figures.breakdown(rows, run.config), **grown}

    def section(self, name: str, tables: Tables, run: RunInfo[MemoryConfig]) -> str:
        """`pairs` of checkpointing, `savers` besides it, or the `parts` of each prediction."""
        rows, savings = tables[MEMORY.file], tables[SAVINGS.file]
        others = savings[savings["saver"] != "checkpointing"]
        views = {
            "pairs": (
                SAVINGS.view(self.best(tables, run), self.readme_columns),
                "What checkpointing saves, and what it costs",
            ),
            "savers": (
                SAVINGS.view(others, ("saver", "base", "precision", "grad_checkpoint", *COST)),
                "Fast paths against plain ones",
            ),
            "parts": (
                made.parts(made.main_rows(rows[rows["variant"] == DEFAULT], run.config)),
                "Predicted memory part by part, beside what was counted and measured",
            ),
        }
        return text.sortable(*views[name])

    def best(self, tables: Tables, run: RunInfo[MemoryConfig]) -> pd.DataFrame:
        savings = tables[SAVINGS.file]
        return made.main_rows(savings[savings["saver"] == "checkpointing"], run.config)

    def readme_note(self, run: RunInfo[MemoryConfig]) -> str:
        return (
            f"Training steps of {run.config.batch_tokens[0]:,} tokens in sequences of "
            f"{run.config.context_length:,}, checkpointing off beside on."
        )

    def stem(self, row: Row) -> str:
        values, own = row.values, row.run.manifest["parameters"]["context_length"]
        precision = values["precision" if "saver" in values else "amp"]
        what = values.get("saver", f"checkpointing_{'on' if values['grad_checkpoint'] else 'off'}")
        named = [self.name, values["base"], precision, values["batch_tokens"], what]
        if values["context_length"] != own:
            named.append(values["context_length"])
        if values.get("variant", DEFAULT) != DEFAULT:
            named.append(values["variant"])
        return ".".join(map(str, named))

    def is_main(self, row: Row) -> bool:
        values, asked = row.values, row.run.manifest["parameters"]
        place = (values["context_length"], values["batch_tokens"])
        known = values.get("variant", DEFAULT), values.get("saver", "checkpointing")
        first = (asked["context_length"], asked["batch_tokens"][0])
        return (place, known) == (first, (DEFAULT, "checkpointing"))

    def verdict(self, row: Row, column: Column) -> str:
        value = row.values.get(column.name)
        if column.name != "saved_less_share" or value is None:
            return ""
        return "less" if value > 0 else "not less"

    def numbers(self, run: Evidence) -> Iterator[Number]:
        for number in super().numbers(run):
            if number.column.name != "max_memory_mb" or number.value is not None:
                yield number

    def counts(self, row: Row, column: Column) -> bool:
        is_ratio = column.name == "time_ratio"
        return super().counts(row, column) and not (is_ratio and row.values.get("emulated"))

    def found(self, run: Evidence) -> str:
        return prose.found([n for n in self.numbers(run) if n.is_main])

    def measure_again(
        self, row: Row, request: RerunRequest[MemoryConfig], records: Sequence[AnyRecord]
    ) -> list[AnyRecord]:
        cells = [MemoryCell(block, block, setting_of(row)) for block in range(request.repeats)]
        request.say(f"measuring in {len(cells)} fresh processes")
        return list(memory(request.config, cells=cells))

    def replicates(
        self, records: Sequence[AnyRecord], row: Row, config: MemoryConfig
    ) -> Mapping[str, Mapping[int, float]]:
        """Each process counts alike, so that all must say one number of saved bytes."""
        good = [r for r in _of_row(records, row) if r.status == "ok"]

        def mib(name: str) -> dict[int, float]:
            return {r.repeat: v / MIB for r in good if (v := getattr(r, name)) is not None}

        return {
            "saved_mib": mib("saved_bytes"),
            "peak_allocated_mib": mib("peak_allocated_bytes"),
            "elapsed_s": made.step_seconds(good),
        }

    def failures(self, records: Sequence[AnyRecord], row: Row) -> list[str]:
        return [record.reason for record in _of_row(records, row) if record.reason]


def setting_of(row: Row) -> Setting:
    """What the processes of a row measured."""
    values = {**row.values, "precision": row.values["amp"]}
    return Setting(*(values[name] for name in Setting._fields))


def _of_row(records: Sequence[AnyRecord], row: Row) -> list[MemoryRecord]:
    return [r for r in of_type(MemoryRecord, records) if r.setting == setting_of(row)]


PAGE = MemoryPage()
