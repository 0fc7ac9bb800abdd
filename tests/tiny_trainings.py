"""Trainings for tests: a generated text, a network of a few thousand weights, a second's course."""

import csv
import functools
import multiprocessing
import random
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch

from psannlm.config.training import TrainingConfig
from psannlm.train import trainer
from psannlm.train.data import Data, read
from psannlm.train.distributed import Ranks
from psannlm.train.trainer import Session, Trainer

ALONE = Ranks(0, 1, torch.device("cpu"))  # one process, not several
WORDS = ("ada", "bo", "cider", "dune", "elm", "fig", "gorse", "hay", "iris", "juniper")


def training_config(**changes: Any) -> TrainingConfig:
    """A course of 2 epochs over what `write_text` writes; keywords override."""
    values: dict[str, Any] = {
        "vocab_size": 257, "context_length": 16, "d_model": 16, "n_layers": 2, "n_heads": 2,
        "d_mlp": 24, "gate_n_fft": 8, "preset": "smoke", "base": "respsann", "corpus": "text.txt",
        "train_megabytes": 0, "validation_megabytes": 0, "tokenizer": "bytes",
        "tokenizer_file": "", "epochs": 2, "batch_tokens": 128, "pass_tokens": 64,
        "loss_chunk_tokens": 48, "optimizer": "adamw", "learning_rate": 0.01,
        "schedule": "cosine", "warmup_fraction": 0.1, "decay_fraction": 0.2,
        "final_fraction": 0.1, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95, "clip_norm": 1.0,
        "precision": "fp32", "compile": False, "device": "cpu", "parallel": "ddp",
        "evaluations": 2, "checkpoint_steps": 4, "keep_checkpoints": 100,
        "target_perplexity": 50.0, "ngram_order": 3, "prompts": ("Ada",), "sample_tokens": 8,
        "temperature": 0.8, "top_p": 0.95, "seed": 0,
    }  # fmt: skip
    return TrainingConfig(**values | changes)


def write_text(folder: Path, n_bytes: int = 1500, seed: int = 0) -> Path:
    """A text of random words, a paragraph a line, at least three of them; returns its path."""
    draw = random.Random(seed)
    lines: list[str] = []
    while sum(map(len, lines)) < n_bytes or len(lines) < 3:
        lines.append(" ".join(draw.choice(WORDS) for _ in range(6)) + "\n")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "text.txt"
    path.write_text("".join(lines))
    return path


def data_for(config: TrainingConfig, folder: Path) -> Data:
    """The splits of the text at `config.corpus`, kept below `folder`."""
    return read(config, cache=folder / "cache")


def begun(folder: Path, data: Data, config: TrainingConfig, **options: Any) -> Trainer:
    """A trainer in `folder`, which is made; it goes on with what it finds there."""
    folder.mkdir(parents=True, exist_ok=True)
    return Trainer(config, data, folder, options.pop("ranks", ALONE), **options)


def trained(folder: Path, data: Data, config: TrainingConfig, **options: Any) -> Trainer:
    """A trainer in `folder` that has come to its end."""
    trainer = begun(folder, data, config, **options)
    trainer.run()
    return trainer


def session_in(folder: Path, config: TrainingConfig, cache: Path, **options: Any) -> Session:
    """A whole session of one process, whose data are kept in `cache`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "read", functools.partial(read, cache=cache))
        return trainer.train(config, folder, ALONE, **options)


def rows(folder: Path, per: str | None = None, name: str = "loss.csv") -> list[dict[str, str]]:
    """The rows of a log, or those of one kind."""
    with (folder / name).open(newline="") as lines:
        return [row for row in csv.DictReader(lines) if per in (None, row.get("per"))]


def column(folder: Path, name: str, per: str | None = "step") -> list[float]:
    """A column of loss.csv as numbers."""
    return [float(row[name]) for row in rows(folder, per)]


def processes() -> ForkServerContext:
    """What starts processes at once: they find torch and the trainer loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tiny_trainings"])
    return context
