"""Train what the tiny-corpus page asks for, and collect the files of its run folder."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from psannlm import CHECKPOINTS
from psannlm.bench.ceiling import measure_ceiling, rate
from psannlm.config.training import TrainingConfig
from psannlm.evidence.session import Session
from psannlm.model.bases import build
from psannlm.model.sampling import Sampling
from psannlm.model.sine import DampedSine
from psannlm.model.transformer import Transformer
from psannlm.pages.tiny_corpus.records import SAMPLES, SINE, YARDSTICKS, Trained, from_texts
from psannlm.train import session as training
from psannlm.train.compression import yardsticks
from psannlm.train.data import Data, limits, sources
from psannlm.train.distributed import Ranks
from psannlm.train.pretrained import TOKENIZER, continuations, nonlinearities
from psannlm.train.recorder import Progress, ProgressBar

LOG = ("loss.csv", "speed.csv", training.METRICS, TOKENIZER)
"""Files that the folder of a training and the folder of its run share."""

CEILING_SECONDS, CEILING_STEPS = 2.0, 5
"""Least time and number of the matrix products that the MFU is measured against."""


def train(session: Session[TrainingConfig, Trained]) -> Trained:
    """Train what the parameters ask for, or go on with it.

    Log and checkpoints lie below checkpoints/, under the name of the run: weights are no evidence.

    Raises:
        ConfigError: The corpus is missing or broken, a loss is not finite, or the disk is full.
    """
    config, device = session.config, session.device

    def ceiling() -> float:
        seconds, steps = CEILING_SECONDS, CEILING_STEPS
        found = measure_ceiling(device, config.precision, min_seconds=seconds, min_steps=steps)
        return rate(*found)

    bar = ProgressBar(sys.stdout)

    def watch(progress: Progress) -> None:
        bar(progress)
        session.report_progress(progress.step, progress.n_steps, f"loss {progress.loss:.3f}")

    folder = CHECKPOINTS / session.run.folder.name
    done = training.train(config, folder, Ranks(0, 1, device), ceiling=ceiling, watch=watch)
    session.run.state(**sources(config, done.data))
    before, after = build(config.network, seed=config.seed), done.trainer.model
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in LOG}
    texts[YARDSTICKS.file] = YARDSTICKS.write(YARDSTICKS.frame(_yardsticks(config, done.data)))
    texts[SINE.file] = SINE.write(SINE.frame(_sines(before, after)))
    texts[SAMPLES.file] = _samples(config, done.data, after)
    [trained] = from_texts(texts)
    return trained


def train_again(folder: Path, config: TrainingConfig, device: torch.device) -> Trained:
    """The same training in another folder, without what stands beside it."""
    training.train(config, folder, Ranks(0, 1, device), watch=ProgressBar())
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in LOG}
    texts |= {table.file: table.write(table.frame([])) for table in (YARDSTICKS, SINE)}
    [trained] = from_texts(texts | {SAMPLES.file: "[]"})
    return trained


def _yardsticks(config: TrainingConfig, data: Data) -> Iterator[dict[str, object]]:
    """Each yardstick on the text that the network was evaluated on."""
    within = limits(config)
    training, held_out = (
        data.corpus.texts(split, within[split]) for split in ("train", "validation")
    )
    for found in yardsticks(training, held_out, order=config.ngram_order):
        yield {name: getattr(found, name) for name in YARDSTICKS.names}


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
