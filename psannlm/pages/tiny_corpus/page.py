"""The tiny-corpus page: a training on real text from end to end, among its yardsticks."""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from psannlm import CHECKPOINTS
from psannlm.bench.rates import COMPILING, Pace, is_emulated
from psannlm.bench.steps import measure_ceiling, rate
from psannlm.config.training import TrainingConfig
from psannlm.evidence.figures import Figure
from psannlm.evidence.page import Page, Quantity, Repeat, RerunRequest, RunInfo, Tables
from psannlm.evidence.runs import Evidence
from psannlm.evidence.session import Session
from psannlm.evidence.table import Column, Row
from psannlm.model.bases import build
from psannlm.model.sampling import Sampling
from psannlm.model.sine import DampedSine
from psannlm.model.transformer import Transformer
from psannlm.pages.shootout.comparison import SMALLEST_EFFECT
from psannlm.pages.tiny_corpus import figures, prose
from psannlm.pages.tiny_corpus import tables as training_files
from psannlm.pages.tiny_corpus.tables import METRICS, SAMPLES, SINE, YARDSTICKS, Trained
from psannlm.train import trainer as training
from psannlm.train.compression import yardsticks
from psannlm.train.data import Data, limits, sources
from psannlm.train.distributed import Ranks
from psannlm.train.pretrained import TOKENIZER, continuations, nonlinearities
from psannlm.train.recorder import Progress, ProgressBar

CEILING: dict[str, Any] = {"min_seconds": 2.0, "min_steps": 5}  # of the products behind the MFU

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
    raw = (training_files.STATED,)
    store = training_files.STORE
    usual_repeats = 1
    # Fewer than two passes over four megabytes tell little of what a network would learn.
    reducible: ClassVar[Mapping[str, float]] = {"evaluations": 1, "train_megabytes": 4.0}
    bounds = staticmethod(training_files.problems)
    summary = staticmethod(prose.summary)

    def total(self, config: TrainingConfig) -> int:
        return 1

    def expected_seconds(self, config: TrainingConfig, pace: Pace) -> float:
        start: float = 2 * CEILING["min_seconds"] + config.compile * COMPILING[True]
        return start + pace.training(config, with_test=True)

    def trainings(self, config: TrainingConfig) -> Sequence[TrainingConfig]:
        return (config,)

    def measure(self, session: Session[TrainingConfig, Trained]) -> Iterator[list[Trained]]:
        if not session.records:
            yield [train(session)]

    def tabulate(self, records: Sequence[Trained], run: RunInfo[TrainingConfig]) -> Tables:
        found = [training_files.metrics_of(trained, run) for trained in records]
        return {METRICS.file: pd.DataFrame(found, dtype=object)}

    def files(self, tables: Tables, run: RunInfo[TrainingConfig]) -> Mapping[str, str]:
        [metrics] = tables[METRICS.file].to_dict("records")
        return {
            METRICS.file: json.dumps(metrics, indent=2) + "\n",
            "README.md": self.readme(tables, run),
        }

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

    def found(self, run: Evidence) -> str:
        return next(n.shown for n in self.numbers(run) if n.column.name == "bits_per_byte")

    def measure_again(
        self, row: Row, request: RerunRequest[TrainingConfig], records: Sequence[Trained]
    ) -> list[Trained]:
        minutes = row.values["train_seconds"] / 60
        request.say(f"training again, which took {minutes:.0f} min when published")
        with tempfile.TemporaryDirectory(prefix="psannlm-rerun-") as place:
            folder, ranks = Path(place, "training"), Ranks(0, 1, request.device)
            training.train(request.config, folder, ranks, watch=ProgressBar())
            empty = {table.file: table.write(table.frame([])) for table in (YARDSTICKS, SINE)}
            return [_trained(folder, empty | {SAMPLES.file: "[]"})]

    def compare_again(
        self,
        row: Row,
        request: RerunRequest[TrainingConfig],
        old: Sequence[Trained],
        new: Sequence[Trained],
    ) -> Repeat:
        """Losses from the same seed are the same to the digit, or else near."""
        metrics, quantities = new[0].metrics, []
        within = 0.0 if request.same_digits else SMALLEST_EFFECT
        expected = f"within {within:g}" if within else "the same"
        for split, name in (("validation", "val_loss"), ("test", "test_loss")):
            published, measured = row.values[name], metrics[name]
            said = f"{split} loss, nats/token", repr(published), expected, repr(measured)
            quantities.append(Quantity(*said, abs(measured - published) <= within))
        then, now = (f"{values['tokens_per_s']:,.0f}" for values in (row.values, metrics))
        quantities.append(Quantity("tokens/s", then, "shown only", now, None))
        return Repeat(tuple(quantities), (SAME if request.same_digits else NEAR,))


def train(session: Session[TrainingConfig, Trained]) -> Trained:
    """Train what the parameters ask for, or go on with it; ConfigError as of `training.train`.

    Log and checkpoints lie below checkpoints/, under the name of the run: weights are no evidence.
    """
    config, device = session.config, session.device

    def ceiling() -> float:
        return rate(*measure_ceiling(device, config.precision, **CEILING))

    bar = ProgressBar(sys.stdout)

    def watch(progress: Progress) -> None:
        bar(progress)
        session.report_progress(progress.step, progress.n_steps, f"loss {progress.loss:.3f}")

    folder = CHECKPOINTS / session.run.folder.name
    # What is emulated has no ceiling: small products and those of the network differ by far.
    known = None if is_emulated(device.type, config.precision) else ceiling
    how: dict[str, Any] = {"ceiling": known, "watch": watch}
    how["mixed"] = "parts" in session.run.manifest
    done = training.train(config, folder, Ranks(0, 1, device), **how)
    session.run.state(**sources(config, done.data))
    model, within = done.trainer.model.eval(), limits(config)
    texts = (done.data.corpus.texts(split, within[split]) for split in ("train", "validation"))
    found = yardsticks(*texts, order=config.ngram_order)
    read = ({"sees_training_text": one.training_bytes > 0, **vars(one)} for one in found)
    sines = _sines(build(config.network, seed=config.seed), model)
    beside = {
        YARDSTICKS.file: YARDSTICKS.write(YARDSTICKS.frame(read)),
        SINE.file: SINE.write(SINE.frame(sines)),
        SAMPLES.file: _samples(config, done.data, model),
    }
    return _trained(folder, beside)


def _trained(folder: Path, beside: Mapping[str, str]) -> Trained:
    """The training whose log lies in `folder`, with the content of the files beside it."""
    shared = ("loss.csv", "speed.csv", training.METRICS, TOKENIZER)
    log = {name: (folder / name).read_text(encoding="utf-8") for name in shared}
    return training_files.from_texts({**log, **beside})[0]


def _sines(before: Transformer, after: Transformer) -> Iterator[dict[str, object]]:
    """A row a feature of every damped sine: its parameters before and after the training."""
    for sine in nonlinearities(before, after):
        if sine.kind is not DampedSine:
            continue
        columns = {
            f"{part}_{when}": values.tolist()
            for when, found in (("before", sine.before), ("after", sine.after))
            for part, values in found.items()
        }
        for feature, row in enumerate(pd.DataFrame(columns).to_dict("records")):
            yield {"layer": sine.layer, "feature": feature, **row}


def _samples(config: TrainingConfig, data: Data, model: Transformer) -> str:
    """What the network makes of each prompt."""
    longest = max((len(data.tokenizer.encode(prompt)) for prompt in config.prompts), default=0)
    n_tokens = min(config.sample_tokens, config.context_length - longest - 1)
    how: dict[str, Any] = {"temperature": config.temperature, "top_p": config.top_p}
    asked = model, data.tokenizer, config.prompts, n_tokens, Sampling(**how)
    texts = zip(config.prompts, continuations(*asked, seed=config.seed), strict=True)
    samples = [{"prompt": prompt, **how, "text": text} for prompt, text in texts]
    return json.dumps(samples, indent=1, ensure_ascii=False) + "\n"


PAGE = TinyCorpusPage()
