"""The training behind the tiny-corpus page: from a page to the files of its run folder."""

import io
import json
import sys
from collections.abc import Iterable, Iterator

import pandas as pd

from psannlm import CHECKPOINTS
from psannlm.bench.ceiling import measure_ceiling, rate
from psannlm.config.training import TrainingConfig
from psannlm.evidence.session import Page
from psannlm.model.bases import build
from psannlm.model.sampling import Sampling
from psannlm.model.sine import DampedSine
from psannlm.model.transformer import Transformer
from psannlm.pages.tiny_corpus.tables import SINE, YARDSTICKS, Trained, read
from psannlm.train import session
from psannlm.train.compression import yardsticks
from psannlm.train.data import Data, limits, sources
from psannlm.train.distributed import Ranks
from psannlm.train.learned import nonlinearities
from psannlm.train.pretrained import TOKENIZER, continuations
from psannlm.train.progress import ProgressBar
from psannlm.train.recorder import Progress

LOG = ("loss.csv", "speed.csv", session.METRICS, TOKENIZER)
"""Files that the folder of a training and the folder of its run share."""

CEILING_SECONDS, CEILING_STEPS = 2.0, 5
"""Least time and number of the matrix products that the MFU is measured against."""


def train(page: Page) -> Trained:
    """Train what the page's parameters ask for, or go on with it, and write the run's files.

    Log and checkpoints lie below checkpoints/, under the name of the run: weights are no evidence.

    Raises:
        ConfigError: The corpus is missing or broken, a loss is not finite, or the disk is full.
    """
    config = page.config
    assert isinstance(config, TrainingConfig)
    device, precision = page.device, config.precision

    def ceiling() -> float:
        seconds, steps = CEILING_SECONDS, CEILING_STEPS
        return rate(*measure_ceiling(device, precision, min_seconds=seconds, min_steps=steps))

    bar = ProgressBar(sys.stdout)

    def watch(progress: Progress) -> None:
        bar(progress)
        page.report_progress(progress.step, progress.n_steps, f"loss {progress.loss:.3f}")

    folder = CHECKPOINTS / page.run.folder.name
    done = session.train(config, folder, Ranks(0, 1, device), ceiling=ceiling, watch=watch)
    for name in LOG:
        page.run.write(name, (folder / name).read_bytes())
    page.run.state(**sources(config, done.data))
    page.run.write("yardsticks.csv", _csv(_yardsticks(config, done.data), YARDSTICKS))
    before = build(config.network, seed=config.seed)
    page.run.write("sine.csv", _csv(_sines(before, done.trainer.model), SINE))
    page.run.write("samples.json", _samples(config, done.data, done.trainer.model))
    return read(page.run.folder)


def _yardsticks(config: TrainingConfig, data: Data) -> Iterator[dict[str, object]]:
    """Each yardstick on the text that the network was evaluated on."""
    within = limits(config)
    training, held_out = (
        data.corpus.texts(split, within[split]) for split in ("train", "validation")
    )
    for found in yardsticks(training, held_out, order=config.ngram_order):
        yield {name: getattr(found, name) for name in YARDSTICKS}


def _sines(before: Transformer, after: Transformer) -> Iterator[dict[str, object]]:
    """A row a feature of every damped sine: its parameters before and after the training."""
    for sine in nonlinearities(before, after):
        if sine.kind is not DampedSine:
            continue
        columns = {
            f"{part}_{when}": found[part].tolist()
            for when, found in (("before", sine.before), ("after", sine.after))
            for part in found
        }
        for feature in range(len(sine.after["amplitude"])):
            values = {column: found[feature] for column, found in columns.items()}
            yield {"layer": sine.layer, "feature": feature, **values}


def _samples(config: TrainingConfig, data: Data, model: Transformer) -> str:
    """What the network makes of each prompt."""
    longest = max((len(data.tokenizer.encode(prompt)) for prompt in config.prompts), default=0)
    n_tokens = min(config.sample_tokens, config.context_length - longest - 1)
    sampling = Sampling(temperature=config.temperature, top_p=config.top_p)
    written = continuations(
        model.eval(), data.tokenizer, config.prompts, n_tokens, sampling, seed=config.seed
    )
    samples = [
        {"prompt": prompt, "temperature": config.temperature, "top_p": config.top_p, "text": text}
        for prompt, text in zip(config.prompts, written, strict=True)
    ]
    return json.dumps(samples, indent=1, ensure_ascii=False) + "\n"


def _csv(rows: Iterable[dict[str, object]], columns: tuple[str, ...]) -> str:
    out = io.StringIO()
    pd.DataFrame(list(rows), columns=list(columns)).to_csv(out, index=False, lineterminator="\n")
    return out.getvalue()
