"""The shootout page: every base and nonlinearity, tuned alike, trained alike and compared."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from psannlm.evidence.figures import Figure
from psannlm.evidence.page import Page, RerunRequest, RunInfo, Tables, run_info
from psannlm.evidence.rows import Number, Row
from psannlm.evidence.runs import Evidence
from psannlm.evidence.table import Column
from psannlm.pages.shootout import bounds, figures, files, prose, results
from psannlm.pages.shootout import tables as shootout_tables
from psannlm.pages.shootout.arms import all_arms, arms_of
from psannlm.pages.shootout.comparison import FEWEST_SEEDS, LEVEL, SMALLEST_EFFECT, by_seed
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.measure import ShootoutSession, measure, measure_again, n_cells
from psannlm.pages.shootout.records import STORE, ShootoutRecord, TrainingRecord, trainings_of


class ShootoutPage(Page[ShootoutConfig, ShootoutRecord]):
    """Arms by place, with the controls that tell what their differences come from."""

    name = "shootout"
    title = "Shootout"
    question = "Does it learn more than a plain transformer?"
    suffix = "_base_shootout"
    config = ShootoutConfig
    tables = shootout_tables.PUBLISHED
    raw = shootout_tables.RAW
    shown = (shootout_tables.LAYERS, shootout_tables.TASKS, shootout_tables.FAILURES)
    store = STORE
    constants: ClassVar[Mapping[str, str]] = {
        "alpha": f"{LEVEL:.0%}",
        "fewest_seeds": str(FEWEST_SEEDS),
        "smallest_loss_effect": f"{SMALLEST_EFFECT:g}",
        "fewest_values": str(results.FEWEST_VALUES),
    }
    usual_repeats = 1

    def names(self) -> Sequence[str]:
        return tuple(all_arms())

    def check_config(self, config: ShootoutConfig) -> None:
        arms_of(config)

    def total(self, config: ShootoutConfig) -> int:
        return n_cells(config) + 1

    def measure(self, session: ShootoutSession) -> Iterator[Sequence[ShootoutRecord]]:
        return measure(session)

    def tabulate(self, records: Sequence[ShootoutRecord], run: RunInfo[ShootoutConfig]) -> Tables:
        return shootout_tables.tabulate(records, run.config)

    def figures(self, tables: Tables, run: RunInfo[ShootoutConfig]) -> Mapping[str, Figure]:
        return figures.all_figures(tables, run.config)

    def answer(self, tables: Tables, run: RunInfo[ShootoutConfig]) -> str:
        return prose.answer(tables, run.config)

    def reading(self, tables: Tables, run: RunInfo[ShootoutConfig]) -> str:
        return prose.reading(tables, run.config)

    def section(self, name: str, tables: Tables, run: RunInfo[ShootoutConfig]) -> str:
        return {"gain": prose.gain, "tasks": prose.tasks}[name](tables, run.config)

    def readme(self, tables: Tables, run: RunInfo[ShootoutConfig]) -> str:
        return files.readme(tables, run)

    def files(self, tables: Tables, run: RunInfo[ShootoutConfig]) -> Mapping[str, str]:
        return {**super().files(tables, run), **files.texts(tables, run)}

    def bounds(self, records: Sequence[ShootoutRecord], config: ShootoutConfig) -> Iterator[str]:
        return bounds.problems(records, config)

    def numbers(self, run: Evidence) -> Iterator[Number]:
        baseline, rows = run.manifest["parameters"]["baseline"], self.rows(run)
        for row in rows:
            for name in ("difference", "val_loss", "val_bits_per_byte"):
                if (name, row.values["base"]) != ("difference", baseline):
                    yield self.number(row, shootout_tables.SUMMARY[name])
        yield from self._gain(run, {row.values["base"]: row for row in rows})

    def number(self, row: Row, column: Column) -> Number:
        if row.values["refused"]:
            row = replace(row, values={**row.values, "status": "refused"})
        return super().number(row, column)

    def summary(self, numbers: Sequence[Number]) -> str:
        return prose.summary(numbers)

    def found(self, run: Evidence) -> str:
        return prose.found(dict(row.values) for row in self.rows(run))

    def _gain(self, run: Evidence, rows: Mapping[str, Row]) -> Iterator[Number]:
        """The sine against gelu with the same learned gains, one planned comparison."""
        info = run_info(self, run)
        for found in results.gain_rows(results.Trainings.of(info.records, info.config).compared):
            arm, other = found["base"], found["other"]
            if (arm, other) != (results.SINE, results.SCALED) or not found["n"]:
                continue
            yield replace(
                self.number(rows[arm], shootout_tables.DIFFERENCE),
                name=prose.GAIN,
                quantity=f"validation loss less that of {other}",
                setting=f"against {other}",
                value=found["difference"],
                status="ok",
                verdict=found["verdict"] if prose.has_verdict(info.config) else "",
                low=found["difference_low"],
                high=found["difference_high"],
                n=found["n"],
                is_main=False,
            )

    def measure_again(
        self, row: Row, request: RerunRequest[ShootoutConfig], records: Sequence[ShootoutRecord]
    ) -> list[ShootoutRecord]:
        return list(measure_again(row, request, trainings_of(records)))

    def replicates(
        self, records: Sequence[ShootoutRecord], row: Row, config: ShootoutConfig
    ) -> Mapping[str, Mapping[int, float]]:
        return {"val_loss": by_seed(_compared(records, row))}

    def failures(self, records: Sequence[ShootoutRecord], row: Row) -> list[str]:
        return [record.reason for record in _compared(records, row) if record.reason]


def _compared(records: Sequence[ShootoutRecord], row: Row) -> list[TrainingRecord]:
    """The compared trainings of the arm of a row."""
    arm = row.values["base"]
    return [record for record in trainings_of(records) if record.final and record.arm == arm]


PAGE = ShootoutPage()
