"""One training from beginning to end: read the data, train or go on, evaluate, keep the result."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from psannlm import CHECKPOINTS
from psannlm.config.parse import read_parameters
from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.device import peak_resident_bytes
from psannlm.files import MIB, write_atomically, writing
from psannlm.train.checkpoint import differences
from psannlm.train.data import Data, read
from psannlm.train.distributed import Ranks
from psannlm.train.evaluation import Evaluation
from psannlm.train.journal import FILES, tokens_per_s, wait_share
from psannlm.train.plan import course
from psannlm.train.pretrained import TOKENIZER
from psannlm.train.recorder import Progress
from psannlm.train.trainer import Trainer

CONFIG, METRICS = "config.yaml", "metrics.json"


@dataclass(frozen=True)
class Session:
    """A training that has come to its end."""

    data: Data
    trainer: Trainer
    validation: Evaluation
    test: Evaluation | None
    metrics: dict[str, Any]


def default_folder(source: Path, config: TrainingConfig) -> Path:
    """Where a training is kept if nothing else is said: one folder for each configuration."""
    digest = hashlib.sha256(json.dumps(course(config), sort_keys=True).encode()).hexdigest()
    return CHECKPOINTS / f"{config.preset}_{source.stem}_{digest[:8]}"


def train(
    config: TrainingConfig,
    folder: Path,
    ranks: Ranks,
    *,
    ceiling: Callable[[], float] | None = None,
    watch: Callable[[Progress], None] = lambda _: None,
    with_test: bool = True,
    keep_best: bool = True,
) -> Session:
    """Train in `folder`, which is of this training alone, or go on there with what was begun.

    The folder then holds the configuration, the tokenizer, the log, the checkpoints that are kept,
    and metrics.json. ConfigError if something about corpus, configuration, checkpoint or ranks is
    wrong, a loss is not finite, or the disk is full.

    Args:
        config: What to train, and how.
        folder: Where.
        ranks: Who trains together.
        ceiling: Measures the matmul rate of one device, FLOP/s; asked before and after training,
            of which the higher rate counts, as a busy machine shows a lower one.
        watch: Told of every step, on the first rank.
        with_test: Whether the finished network is evaluated on the test split.
        keep_best: Whether a checkpoint is written at each lowest validation loss.
    """
    data = None
    if ranks.is_first:
        _refuse_other(folder, config)
        data = read(config)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            said = config.model_dump(mode="json")
            write_atomically(folder / CONFIG, yaml.safe_dump(said, sort_keys=False))
            data.tokenizer.save(folder / TOKENIZER)
    ranks.wait()
    data = data or read(config)  # the others find in the cache what the first has made
    before = ceiling() if ceiling else None
    _forget_peak(ranks.device)
    trainer = Trainer(config, data, folder, ranks, ceiling=before, watch=watch, keep_best=keep_best)
    trainer.run()
    peak = _peak_mib(ranks.device)  # the ceiling's matrices are none of the training's
    if ceiling and before:
        trainer.recorder.ceiling = max(before, ceiling())
    validation = trainer.last_evaluation or trainer.evaluate(data.validation)
    test = trainer.evaluate(data.test) if with_test else None
    metrics = summarise(trainer, validation, test, peak) if ranks.is_first else {}
    if ranks.is_first:
        with writing(folder):
            write_atomically(folder / METRICS, json.dumps(metrics, indent=2) + "\n")
    return Session(data, trainer, validation, test, metrics)


def _forget_peak(device: torch.device) -> None:
    """Have the peak of a GPU's allocator begin anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_mib(device: torch.device) -> float | None:
    """Most that a GPU's allocator had given away since then, in MiB."""
    return torch.cuda.max_memory_allocated(device) / MIB if device.type == "cuda" else None


def summarise(
    trainer: Trainer, validation: Evaluation, test: Evaluation | None, peak_mib: float | None
) -> dict[str, Any]:
    """Everything that metrics.json says; called on the first rank."""
    config, data = trainer.config, trainer.data
    tested: dict[str, Any] = {}
    if test:
        tested["test_loss"], tested["test_perplexity"] = test.loss, test.perplexity
        tested["test_bits_per_byte"] = test.bits_per_byte
        tested["test_tokens"], tested["test_bytes"] = test.n_tokens, test.n_bytes
    losses = pd.read_csv(trainer.folder / "loss.csv")
    speed = pd.read_csv(trainer.folder / "speed.csv")
    epochs = losses[losses["per"] == "epoch"]
    rate = tokens_per_s(speed, config.batch_tokens)
    return {
        "base": config.base[0],
        "preset": config.preset,
        "corpus_path": config.corpus,
        **data.identity,
        "tokenizer": config.tokenizer,
        "vocab_size": config.vocab_size,
        "train_loss": float(epochs["train_loss"].iloc[-1]),
        "val_loss": validation.loss,
        "perplexity": validation.perplexity,
        "bits_per_byte": validation.bits_per_byte,
        "top1": validation.top1,
        "val_tokens": validation.n_tokens,
        "val_bytes": validation.n_bytes,
        "bytes_per_token": validation.n_bytes / validation.n_tokens,
        **tested,
        "best_val_loss": trainer.tally.best_loss,
        "best_step": trainer.tally.best_step,
        "target_perplexity": config.target_perplexity,
        "target_reached": validation.perplexity <= config.target_perplexity,
        "n_parameters": sum(p.numel() for p in trainer.model.parameters()),
        "n_steps": trainer.plan.n_steps,
        "epochs": config.epochs,
        "batch_tokens": config.batch_tokens,
        "train_tokens": trainer.plan.n_steps * config.batch_tokens,
        "train_split_tokens": data.train.n_predicted,
        "train_split_bytes": data.train.n_bytes,
        "train_seconds": float(speed["elapsed_seconds"].iloc[-1]),
        "tokens_per_s": rate,
        "wait_share": wait_share(speed),
        "ceiling_flop_per_s": trainer.recorder.ceiling,
        "mfu": trainer.recorder.mfu(rate),
        "peak_allocated_mib": peak_mib,
        "peak_rss_mib": peak_resident_bytes() / MIB,
        "compiled": trainer.compiled,
        "n_ranks": trainer.ranks.world,
        "parallel": config.parallel,
    }


def _refuse_other(folder: Path, config: TrainingConfig) -> None:
    """Leave alone a folder that holds a training with another configuration."""
    if not ((folder / CONFIG).exists() and any((folder / name).exists() for name in FILES)):
        return  # nothing, or what was refused before its first step
    then, now = read_parameters(folder / CONFIG), course(config)
    if shown := differences(then, now, now):
        raise ConfigError(
            f"{folder} holds a training with another configuration: {shown}; "
            "name another folder, or remove this one"
        )
