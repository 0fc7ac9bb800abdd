"""The tiny-corpus page: a training on real text from end to end, among its yardsticks."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from psannlm.config.training import TrainingConfig
from psannlm.evidence.figures import Figure
from psannlm.evidence.page import Page, Quantity, Repeat, RerunRequest, RunInfo, Tables
from psannlm.evidence.rows import Number, Row
from psannlm.evidence.runs import Evidence
from psannlm.evidence.session import Session
from psannlm.evidence.table import Column
from psannlm.pages.shootout.comparison import SMALLEST_EFFECT
from psannlm.pages.tiny_corpus import bounds, figures, measure, prose
from psannlm.pages.tiny_corpus.tables import METRICS, STATED, STORE, Trained, metrics_of

SAME = (
    "validation loss: the same to the digit, as the same seed on the same processor and torch gives"
)
NEAR = (
    "validation loss: on another processor, torch or number of threads rounding differs, and one "
    f"seed gives no interval; within {SMALLEST_EFFECT:g} nats per token, the smallest effect that "
    "a shootout calls a difference"
)


class TinyCorpusPage(Page[TrainingConfig, Trained]):
    """One training: perplexity against its target, bits per byte beside compressors."""

    name = "tiny_corpus"
    title = "Tiny corpus"
    question = "Does it learn?"
    parameters_variable = "TINY_CONFIG"
    config = TrainingConfig
    tables = (METRICS,)
    raw = (STATED,)
    store = STORE
    usual_repeats = 1

    def total(self, config: TrainingConfig) -> int:
        return 1

    def measure(self, session: Session[TrainingConfig, Trained]) -> Iterator[list[Trained]]:
        if not session.records:
            yield [measure.train(session)]

    def tabulate(self, records: Sequence[Trained], run: RunInfo[TrainingConfig]) -> Tables:
        return {METRICS.file: pd.DataFrame([metrics_of(t, run) for t in records], dtype=object)}

    def files(self, tables: Tables, run: RunInfo[TrainingConfig]) -> Mapping[str, str]:
        [metrics] = tables[METRICS.file].to_dict("records")
        return {
            METRICS.file: json.dumps(metrics, indent=2) + "\n",
            "README.md": self.readme(tables, run),
        }

    def bounds(self, records: Sequence[Trained], config: TrainingConfig) -> Iterator[str]:
        return bounds.impossible(records[0], config)

    def figures(self, tables: Tables, run: RunInfo[TrainingConfig]) -> Mapping[str, Figure]:
        [trained] = run.records
        return {
            "loss_curve": figures.losses(trained),
            "yardsticks": figures.yardsticks(trained),
            "course": figures.course(trained, run.config.clip_norm),
            "sine": figures.sines(trained),
        }

    def answer(self, tables: Tables, run: RunInfo[TrainingConfig]) -> str:
        return prose.answer(run.records[0], run.device)

    def reading(self, tables: Tables, run: RunInfo[TrainingConfig]) -> str:
        return prose.reading(run.records[0], run.config)

    def section(self, name: str, tables: Tables, run: RunInfo[TrainingConfig]) -> str:
        return prose.SECTIONS[name](run.records[0])

    def readme(self, tables: Tables, run: RunInfo[TrainingConfig]) -> str:
        return prose.readme(run.records[0], run)

    def setting(self, row: Row) -> str:
        return f"{row.values['epochs']:g} epochs of {row.values['corpus_path']}"

    def target(self, row: Row, column: Column) -> str:
        wanted = row.values["target_perplexity"]
        return f"at most {wanted:g}" if column.name == "perplexity" else ""

    def verdict(self, row: Row, column: Column) -> str:
        if column.name != "perplexity":
            return ""
        return "reached" if row.values["target_reached"] else "not reached"

    def summary(self, numbers: Sequence[Number]) -> str:
        return prose.summary(numbers)

    def found(self, run: Evidence) -> str:
        return next(n.shown for n in self.numbers(run) if n.column.name == "bits_per_byte")

    def measure_again(
        self, row: Row, request: RerunRequest[TrainingConfig], records: Sequence[Trained]
    ) -> list[Trained]:
        minutes = row.values["train_seconds"] / 60
        request.say(f"training again, which took {minutes:.0f} min when published")
        with tempfile.TemporaryDirectory(prefix="psannlm-rerun-") as folder:
            return [measure.train_again(Path(folder, "training"), request.config, request.device)]

    def compare_again(
        self,
        row: Row,
        request: RerunRequest[TrainingConfig],
        old: Sequence[Trained],
        new: Sequence[Trained],
    ) -> Repeat:
        """Losses from the same seed are the same to the digit, or else near."""
        metrics, quantities = new[0].metrics, []
        for split, name in (("validation", "val_loss"), ("test", "test_loss")):
            published, measured = row.values[name], metrics[name]
            inside, expected = measured == published, "the same"
            if not request.same_digits:
                inside = abs(measured - published) <= SMALLEST_EFFECT
                expected = f"within {SMALLEST_EFFECT:g}"
            said = f"{split} loss, nats/token", repr(published), expected, repr(measured)
            quantities.append(Quantity(*said, inside))
        then, now = (f"{values['tokens_per_s']:,.0f}" for values in (row.values, metrics))
        quantities.append(Quantity("tokens/s", then, "shown only", now, None))
        return Repeat(tuple(quantities), (SAME if request.same_digits else NEAR,))


PAGE = TinyCorpusPage()
