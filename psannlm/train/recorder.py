"""What a training notes of itself: evaluations, its log, and its end if something is no number.

The log is loss.csv, what a repetition must reproduce to the last digit, and speed.csv, what it
cannot: a row as soon as it is known. A GPU is looked at every few steps only, as each look waits.
Shape letters: b windows at a time, T tokens of each.
"""

import csv
import itertools
import math
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from tqdm import tqdm

from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.files import writing
from psannlm.model.loss import IGNORED
from psannlm.train.data import Tokens
from psannlm.train.distributed import Ranks, whole
from psannlm.train.plan import Plan, rate_at

CUDA_PATIENCE = 10  # steps between two looks at a GPU
# `per` is step, evaluation or epoch, and tells which fields a row fills.
LOSS = (
    "per", "step", "epoch", "tokens", "train_loss", "val_loss", "bits_per_byte", "perplexity",
    "top1", "learning_rate", "grad_norm",
)  # fmt: skip
# A step's seconds contain its wait for data, elapsed ones everything.
SPEED = ("step", "step_seconds", "wait_seconds", "elapsed_seconds")
FILES = {"loss.csv": LOSS, "speed.csv": SPEED}
# Share of the steps, from the first on, in which compilation and warm-up fall.
UNSTEADY_SHARE = 0.1


class Document(NamedTuple):
    """How well a network predicts one document, and the end of text after it."""

    nats: float
    n_tokens: int


@dataclass(frozen=True)
class Evaluation:
    """How well a network predicts a split, every token of it."""

    loss: float  # nats a token
    top1: float  # share of tokens that were the likeliest
    n_tokens: int
    n_bytes: int  # UTF-8 bytes of the text that the tokens spell
    documents: tuple[Document, ...] = ()  # in the order of the split; their nats add up to the loss

    @property
    def perplexity(self) -> float:
        """Exponential of the loss; comparable between equal tokenizers only."""
        return perplexity(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits that the network needs for a byte of the text; comparable between tokenizers."""
        return bits_per_byte(self.loss, self.n_bytes / self.n_tokens)


def perplexity(loss: float) -> float:
    """exp(loss), of a loss in nats per token; infinite where a float cannot hold it."""
    return math.exp(loss) if loss < math.log(sys.float_info.max) else math.inf


def bits_per_byte(loss: float, bytes_per_token: float) -> float:
    """Loss / ln 2 / bytes per token: comparable between tokenizers, and with compressors."""
    return loss / math.log(2) / bytes_per_token


@torch.no_grad()
def evaluate(
    objective: nn.Module, tokens: Tokens, context_length: int, *, batch: int, ranks: Ranks
) -> Evaluation:
    """Evaluate a `NextToken`, shared between ranks or not, on a whole split.

    Windows of T = `context_length` tokens follow one another without overlap; each rank takes every
    world-th `batch` of them.
    """
    was_training = objective.training
    objective.eval()
    n_documents = int(np.count_nonzero(tokens.ids[:-1] == tokens.ids[0]))
    # Of nats, hits and tokens: the sum over the split, then that of each document.
    sums = torch.zeros(3, 1 + n_documents, dtype=torch.float64, device=ranks.device)
    windows = evaluation_windows(tokens, context_length, batch)
    while group := tuple(itertools.islice(windows, ranks.world)):
        # Every rank calls the network equally often, as FSDP2 gathers weights in each call.
        inputs, targets, numbers = group[min(ranks.rank, len(group) - 1)]
        if ranks.rank >= len(group):
            targets = torch.full_like(targets, IGNORED)
        targets = targets.to(ranks.device)
        losses, hits = objective(inputs.to(ranks.device), targets)
        rows = torch.stack([losses, hits, targets.flatten() != IGNORED]).double()  # (3, b * T)
        sums[:, 0] += rows.sum(1)
        sums.index_add_(1, numbers.to(ranks.device), rows)
    objective.train(was_training)
    (nats, right, count), *found = ranks.sum(sums).T.tolist()
    documents = tuple(Document(own, int(n_tokens)) for own, _, n_tokens in found)
    return Evaluation(nats / count, right / count, int(count), tokens.n_bytes, documents)


def evaluation_windows(
    tokens: Tokens, context_length: int, batch: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """All predicted tokens of a split, each once and in order, in b = `batch` windows at once.

    Token ids and the ids that follow them, each int64 (b, T), and the number of the document of
    each that follows, (b * T,). What the last batch has no tokens for has the target IGNORED.
    """
    ids, size = np.asarray(tokens.ids), batch * context_length
    # From 1: a split begins with an end of text, and as many stand before a token.
    numbers = np.cumsum(ids[:-1] == ids[0])
    for start in range(0, tokens.n_predicted, size):
        part = torch.from_numpy(ids[start : start + size + 1].astype(np.int64))
        fill = (0, size + 1 - len(part))
        inputs, targets = pad(part[:-1], fill), pad(part[1:], fill, value=IGNORED)
        of_documents = pad(torch.from_numpy(numbers[start : start + size]), fill)
        yield inputs.view(batch, -1), targets.view(batch, -1), of_documents


class Journal:
    """The two files below `folder`, appended to.

    `lengths` are the bytes of each file that a checkpoint remembers: what was written after them is
    cut off. None begins both anew.
    """

    def __init__(self, folder: Path, lengths: Mapping[str, int] | None = None) -> None:
        self.folder = folder
        for name, columns in FILES.items():
            path = folder / name
            found = path.stat().st_size if path.is_file() else 0
            if lengths and found < lengths[name]:
                raise ConfigError(
                    f"{path} must have the {lengths[name]} bytes that the checkpoint remembers, "
                    f"got {found}; put it back as it was, or train in another folder"
                )
            with writing(folder), path.open("r+b" if lengths else "wb") as file:
                if lengths:
                    file.truncate(lengths[name])
                else:
                    file.write((",".join(columns) + "\n").encode())

    def add(self, name: str, row: Mapping[str, Any]) -> None:
        """Append one row to `loss.csv` or `speed.csv`; columns not given stay empty."""
        with writing(self.folder), (self.folder / name).open("a", newline="") as file:
            csv.DictWriter(file, FILES[name], lineterminator="\n").writerow(row)

    def lengths(self) -> dict[str, int]:
        """Bytes of each file, once they are safe on disk: what a checkpoint remembers."""
        found = {}
        for name in FILES:
            with writing(self.folder), (self.folder / name).open("rb") as file:
                os.fsync(file.fileno())
                found[name] = os.fstat(file.fileno()).st_size
        return found


def tokens_per_s(speed: pd.DataFrame, batch_tokens: int) -> float:
    """Tokens of a step over the median time of the steady steps of speed.csv."""
    # The median leaves aside the few that an interruption or a neighbour made long.
    steady = speed["step_seconds"].iloc[int(UNSTEADY_SHARE * len(speed)) :]
    return batch_tokens / float(steady.median())


def wait_share(speed: pd.DataFrame) -> float:
    """Share of the time of all steps of speed.csv in which they waited for data."""
    return float(speed["wait_seconds"].sum() / speed["step_seconds"].sum())


class DivergenceError(ConfigError):
    """A loss or a gradient that is no number; says at which step, and the likely cause."""


@dataclass(frozen=True)
class Progress:
    """How far a training is."""

    step: int
    n_steps: int
    loss: float
    tokens_per_s: float
    mfu: float | None


@dataclass
class Tally:
    """What is summed up while a training runs, and remembered by its checkpoints."""

    step: int = 0
    epoch_loss: float = 0.0  # sum of the losses of this epoch's steps
    epoch_steps: int = 0
    elapsed_seconds: float = 0.0
    best_loss: float | None = None  # lowest validation loss so far
    best_step: int | None = None


@dataclass
class Recorder:
    """Notes every step and evaluation."""

    config: TrainingConfig
    plan: Plan
    ranks: Ranks
    tally: Tally
    journal: Journal | None  # of the first rank
    flop_per_token: float
    ceiling: float | None  # measured matmul rate of a device, FLOP/s
    watch: Callable[[Progress], None]
    pending: list[tuple[int, Tensor, Tensor, float]] = field(default_factory=list)
    norms: deque[float] = field(default_factory=lambda: deque(maxlen=50))  # explain a divergence
    looks: int = 0
    looked_at: float = field(default_factory=time.perf_counter)

    @property
    def is_due(self) -> bool:
        """Whether it is time to look; the first step, which compiles, is looked at by itself."""
        patient = self.looks > 0 and self.ranks.device.type == "cuda"
        return len(self.pending) >= (CUDA_PATIENCE if patient else 1)

    def add(self, step: int, loss: Tensor, norm: Tensor, waited: float) -> None:
        """Note a step without waiting for its loss."""
        self.tally.step = step
        self.pending.append((step, loss, norm, waited))

    def look(self) -> None:
        """Log the steps since the last look; DivergenceError if one is not finite."""
        if not self.pending:
            return
        losses = torch.stack([loss for _, loss, _, _ in self.pending])
        means = (self.ranks.sum(losses) / self.ranks.world).tolist()
        norms = [float(whole(norm)) for _, _, norm, _ in self.pending]
        now = time.perf_counter()
        seconds = (now - self.looked_at) / len(self.pending)
        for (step, _, _, waited), loss, norm in zip(self.pending, means, norms, strict=True):
            self._log(step, loss, norm, seconds, waited)
        self.pending.clear()
        self.looks += 1
        self.looked_at = now

    def rest(self) -> None:
        """Count the time since the last look as spent, but on no step."""
        now = time.perf_counter()
        self.tally.elapsed_seconds += now - self.looked_at
        self.looked_at = now

    def evaluated(self, step: int, found: Evaluation) -> None:
        """Log an evaluation, and the epoch if it ends one; DivergenceError if it is not finite."""
        tally = self.tally
        self.rest()
        row = {key: getattr(found, key) for key in ("bits_per_byte", "perplexity", "top1")}
        row["val_loss"] = found.loss
        self._write("loss.csv", {"per": "evaluation", **self.plan.place(step), **row})
        if not math.isfinite(found.loss):
            raise self._divergence(f"validation loss is {found.loss}", step)
        if tally.best_loss is None or found.loss < tally.best_loss:
            tally.best_loss, tally.best_step = found.loss, step
        if step in self.plan.epoch_ends:
            place = self.plan.place(step) | {"epoch": self.plan.epoch_ends[step]}
            mean = tally.epoch_loss / tally.epoch_steps
            self._write("loss.csv", {"per": "epoch", **place, "train_loss": mean, **row})
            tally.epoch_loss, tally.epoch_steps = 0.0, 0

    def _log(self, step: int, loss: float, norm: float, seconds: float, waited: float) -> None:
        tally = self.tally
        tally.epoch_loss += loss
        tally.epoch_steps += 1
        tally.elapsed_seconds += seconds
        rate = rate_at(step, self.plan.n_steps, self.config)
        learned = {"train_loss": loss, "learning_rate": rate, "grad_norm": norm}
        self._write("loss.csv", {"per": "step", **self.plan.place(step), **learned})
        timed = {"wait_seconds": waited, "elapsed_seconds": tally.elapsed_seconds}
        self._write("speed.csv", {"step": step, "step_seconds": seconds, **timed})
        if not math.isfinite(loss):
            raise self._divergence(f"loss is {loss}", step)
        if math.isfinite(norm):
            self.norms.append(norm)
        elif self.config.precision != "fp16":  # there the scaler leaves the step out
            raise self._divergence(f"the gradient norm is {norm}", step)
        if self.ranks.is_first:
            speed = self.config.batch_tokens / seconds
            self.watch(Progress(step, self.plan.n_steps, loss, speed, self.mfu(speed)))

    def _write(self, name: str, row: dict[str, Any]) -> None:
        if self.journal:
            self.journal.add(name, row)

    def mfu(self, tokens_per_s: float) -> float | None:
        """Share of all ranks' ceiling that the training takes at this speed."""
        if not self.ceiling:
            return None
        return tokens_per_s * self.flop_per_token / (self.ceiling * self.ranks.world)

    def _divergence(self, what: str, step: int) -> DivergenceError:
        """What a value that is no number most likely comes from, and what to do."""
        config, norms = self.config, self.norms
        if config.precision == "fp16":
            cause = "fp16 has overflowed; use precision: bf16"
        elif not norms:
            cause = (
                "the network overflows before it has learned anything; lower init_std "
                f"(now {config.init_std}) or sine_amplitude (now {config.sine_amplitude})"
            )
        else:
            cause = (
                f"over the {len(norms)} steps before, gradient norms had a median of "
                f"{statistics.median(norms):.3g} and went up to {max(norms):.3g} at a learning "
                f"rate of {rate_at(step, self.plan.n_steps, config):.3g}; lower learning_rate, or "
                "raise warmup_fraction"
            )
        return DivergenceError(f"{what} at step {step} of {self.plan.n_steps}: {cause}")


class ProgressBar:
    """Shows on `file` what it is told of each step; closes itself after the last."""

    def __init__(self, file: IO[str] | None = None) -> None:
        self.file = file or sys.stderr
        self.bar: tqdm[None] | None = None

    def __call__(self, progress: Progress) -> None:
        if self.bar is None:
            self.bar = tqdm(
                total=progress.n_steps,
                initial=progress.step - 1,
                unit="step",
                file=self.file,
                dynamic_ncols=False,
                ncols=100,
                mininterval=0.5 if self.file.isatty() else 2.0,  # seconds; lines of a log stay
            )
        shown = f"loss {progress.loss:.3f}, {progress.tokens_per_s:,.0f} tokens/s"
        if progress.mfu is not None:
            shown += f", MFU {progress.mfu:.0%}"
        self.bar.set_postfix_str(shown, refresh=False)
        self.bar.update(progress.step - self.bar.n)
        if progress.step == progress.n_steps:
            self.bar.close()
            self.bar = None
