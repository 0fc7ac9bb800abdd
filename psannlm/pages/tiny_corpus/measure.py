"""Train what the tiny-corpus page asks for, and collect the files of its run folder."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
import torch

from psannlm import CHECKPOINTS
from psannlm.bench.ceiling import measure_ceiling, rate
from psannlm.config.training import TrainingConfig
from psannlm.evidence.session import Session
from psannlm.model.bases import build
from psannlm.model.sampling import Sampling
from psannlm.model.sine import DampedSine
from psannlm.model.transformer import Transformer
from psannlm.pages.tiny_corpus.tables import SAMPLES, SINE, YARDSTICKS, Trained, from_texts
from psannlm.train import session as training
from psannlm.train.compression import yardsticks
from psannlm.train.data import Data, limits, sources
from psannlm.train.distributed import Ranks
from psannlm.train.pretrained import TOKENIZER, continuations, nonlinearities
from psannlm.train.recorder import Progress, ProgressBar

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
    model, within = done.trainer.model.eval(), limits(config)
    texts = (done.data.corpus.texts(split, within[split]) for split in ("train", "validation"))
    found = yardsticks(*texts, order=config.ngram_order)
    read = ({"sees_training_text": one.sees_training_text, **vars(one)} for one in found)
    sines = _sines(build(config.network, seed=config.seed), model)
    beside = {
        YARDSTICKS.file: YARDSTICKS.write(YARDSTICKS.frame(read)),
        SINE.file: SINE.write(SINE.frame(sines)),
        SAMPLES.file: _samples(config, done.data, model),
    }
    return _trained(folder, beside)


def train_again(folder: Path, config: TrainingConfig, device: torch.device) -> Trained:
    """The same training in another folder, without what stands beside it."""
    training.train(config, folder, Ranks(0, 1, device), watch=ProgressBar())
    empty = {table.file: table.write(table.frame([])) for table in (YARDSTICKS, SINE)}
    return _trained(folder, empty | {SAMPLES.file: "[]"})


def _trained(folder: Path, beside: Mapping[str, str]) -> Trained:
    """The training whose log lies in `folder`, with the content of the files beside it."""
    shared = ("loss.csv", "speed.csv", training.METRICS, TOKENIZER)
    log = {name: (folder / name).read_text(encoding="utf-8") for name in shared}
    [trained] = from_texts({**log, **beside})
    return trained


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
    drawn = Sampling(temperature=config.temperature, top_p=config.top_p)
    written = continuations(
        model, data.tokenizer, config.prompts, n_tokens, drawn, seed=config.seed
    )
    samples = [
        {"prompt": prompt, "temperature": drawn.temperature, "top_p": drawn.top_p, "text": text}
        for prompt, text in zip(config.prompts, written, strict=True)
    ]
    return json.dumps(samples, indent=1, ensure_ascii=False) + "\n"
