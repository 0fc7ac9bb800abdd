"""A training from beginning to end, for all uses: notebooks, the command line, ranks of torchrun.

What happens at a step depends on the configuration, the data and the step's number alone, so a
training that was killed goes on from its last checkpoint as if nothing had been.
Shape letters: B batch, T tokens.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
import yaml
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from psannlm import CHECKPOINTS
from psannlm.config.parse import read_parameters
from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.device import missing_compiler, peak_resident_bytes, repeatable
from psannlm.files import MIB, locked, write_atomically, writing
from psannlm.model.bases import build, cost_of
from psannlm.model.cost import Shape
from psannlm.train import checkpoint, distributed, recorder
from psannlm.train.compilation import Compilation, begin, read_back, reason_of
from psannlm.train.data import Data, Tokens, read
from psannlm.train.distributed import Ranks, refuse_disagreement
from psannlm.train.objective import NextToken, make_optimizers
from psannlm.train.plan import Batches, Plan, course, rate_at
from psannlm.train.pretrained import TOKENIZER
from psannlm.train.recorder import FILES, Evaluation, Progress, Recorder, Tally, evaluate

CONFIG, METRICS = "config.yaml", "metrics.json"
FoundT = TypeVar("FoundT")
PREFIX = "model."  # of the network's names inside its objective


class Trainer:
    """A network, its data and its optimizers, at some step of a training; one begun goes on.

    `watch` is told of every step, on the first rank; with `keep_best` a checkpoint is written at
    each lowest validation loss. ConfigError if the ranks cannot share the batch or disagree, or the
    checkpoint is of another training or, unless this one may be `mixed`, of other code or software.
    """

    def __init__(
        self,
        config: TrainingConfig,
        data: Data,
        folder: Path,
        ranks: Ranks,
        *,
        ceiling: float | None = None,
        watch: Callable[[Progress], None] = lambda _: None,
        keep_best: bool = True,
        mixed: bool = False,
    ) -> None:
        self.keep_best, self.mixed = keep_best, mixed
        self.config, self.data, self.folder, self.ranks = config, data, folder, ranks
        facts = {
            "the configuration": config.model_dump(mode="json"),
            "the training text": data.train.sha256,
            "the validation text": data.validation.sha256,
            "the tokenizer": data.tokenizer.sha256,
            "the version of torch": torch.__version__,
        }
        refuse_disagreement(ranks, facts)
        n_sequences = config.batch_tokens // config.context_length
        self.batches = Batches(data.train, config.context_length, n_sequences, config.seed)
        self.plan = Plan.of(config, self.batches, ranks.world)
        self.model = build(config.network, seed=config.seed, device=ranks.device)
        self.eager = (config.compile and missing_compiler(ranks.device)) or ""  # why, if it is
        self.compiled = config.compile and not self.eager
        chunk, blocks = config.loss_chunk_tokens, list(self.model.blocks)
        objective = NextToken(self.model, config.precision, chunk, compiled=self.compiled)
        self.parts: list[nn.Module] = [objective] if ranks.world == 1 else blocks
        if self.compiled:
            begin()
            for module in self.parts:
                module.compile()
        self.objective = distributed.share(objective, blocks, ranks, config.parallel)
        self.optimizers = make_optimizers(self.objective, config)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=config.precision == "fp16")
        self.last_evaluation: Evaluation | None = None
        self.tally, lengths = self._beginning()  # what the training has summed up so far
        flops = cost_of(config.network, Shape(1, config.context_length)).model_flops
        flop_per_token = 3 * flops / config.context_length
        journal = recorder.Journal(folder, lengths) if ranks.is_first else None
        self.recorder = Recorder(
            config, self.plan, ranks, self.tally, journal, flop_per_token, ceiling, watch
        )

    def run(self) -> None:
        """Train to the last step; DivergenceError if a loss or a gradient is not finite."""
        self.objective.train()
        self.recorder.looked_at = time.perf_counter()
        with repeatable(self.ranks.device):
            for step in range(self.tally.step + 1, self.plan.n_steps + 1):
                self._step(step)
                self._after(step)

    def _after(self, step: int) -> None:
        """What the plan asks for after a step: a look at its loss, an evaluation, a checkpoint."""
        evaluating, saving = step in self.plan.evaluations, self.plan.saves(step)
        if evaluating or saving or self.recorder.is_due:
            self.recorder.look()
        if evaluating:
            self.last_evaluation = self.evaluate(self.data.validation)
            self.recorder.evaluated(step, self.last_evaluation)
        if saving or (self.keep_best and self.tally.best_step == step):
            self._save(step)
            self.recorder.rest()

    def evaluate(self, tokens: Tokens) -> Evaluation:
        """Evaluate the network as it is on a whole split."""
        with repeatable(self.ranks.device):  # as in training: else it would be compiled anew
            length, batch = self.config.context_length, self.plan.pass_sequences
            options: dict[str, Any] = {"batch": batch, "ranks": self.ranks}
            return self._compiled_or_eager(
                partial(evaluate, self.objective, tokens, length, **options)
            )

    @property
    def compilation(self) -> Compilation:
        """What the compiler has made of the training so far, if it was asked to."""
        return read_back() if self.compiled else Compilation(eager=self.eager)

    def _compiled_or_eager(self, run: Callable[[], FoundT]) -> FoundT:
        """What `run` gives; eagerly from then on, if what it calls does not compile."""
        try:
            return run()
        except (MemoryError, torch.OutOfMemoryError, ConfigError):
            raise
        except Exception as error:
            if not self.compiled:
                raise
            self.compiled, self.eager = False, reason_of(error)
            for module in self.parts:
                module._compiled_call_impl = None
            for module in self.objective.modules():
                if isinstance(module, NextToken):
                    module.compiled = False
            self.objective.zero_grad(set_to_none=True)
            return run()

    def _step(self, step: int) -> None:
        """One optimizer step: all passes of this rank, then the update."""
        total, waited = self._compiled_or_eager(lambda: self._passes(step))
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = self._clip()
        several = self.scaler.is_enabled() and len(self.optimizers) > 1
        if several and not distributed.whole(norm).isfinite():
            # The scaler leaves out the step of the optimizer that overflows: here, of all.
            self.objective.zero_grad(set_to_none=True)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step, self.plan.n_steps, self.config)
            self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        self.recorder.add(step, total, norm, waited)

    def _passes(self, step: int) -> tuple[Tensor, float]:
        """Accumulate the gradient of a step; the loss of this rank, and seconds of waiting."""
        n_passes = self.plan.n_passes
        total, waited = torch.zeros((), device=self.ranks.device), 0.0
        for i in range(n_passes):
            start = time.perf_counter()
            tokens, targets = self._batch(step, i)
            waited += time.perf_counter() - start
            with distributed.summing(self.objective, last=i == n_passes - 1):
                loss = self.objective(tokens, targets) / n_passes
                self.scaler.scale(loss).backward()
            total += loss.detach()
        return total, waited

    def _clip(self) -> Tensor:
        """Scale all gradients down to the norm that is allowed; returns the norm they had."""
        learned = list(self.objective.parameters())
        norm = get_total_norm([p.grad for p in learned if p.grad is not None])
        # A CPU is spared a pass over all gradients; a GPU would have to be waited for.
        if norm.device.type != "cpu" or distributed.whole(norm) > self.config.clip_norm:
            clip_grads_with_norm_(learned, self.config.clip_norm, norm)
        return norm

    def _batch(self, step: int, i: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets (B, T) of pass `i` of this rank."""
        ranks, device = self.ranks, self.ranks.device
        tokens, targets = self.batches.batch(
            step - 1, micro=i, n_micro=self.plan.n_passes, rank=ranks.rank, world=ranks.world
        )
        if device.type == "cuda":
            tokens, targets = tokens.pin_memory(), targets.pin_memory()
        return tokens.to(device, non_blocking=True), targets.to(device, non_blocking=True)

    def _save(self, step: int) -> None:
        """Write a checkpoint; every rank gives its part, the first one writes."""
        weights, tensors = distributed.gather(self.objective, self.optimizers)
        if self.recorder.journal:
            weights = {name.removeprefix(PREFIX): t for name, t in weights.items()}
            about = {
                "step": step,
                "network": self.config.network.model_dump(mode="json"),
                "course": course(self.config),
                "data": self.data.identity,
                "parts": self.made_by,
                "tally": asdict(self.tally),
                "log_bytes": self.recorder.journal.lengths(),
                "scaler": self.scaler.state_dict(),
            }
            checkpoint.save(self.folder, weights, tensors, about)
            best = self.tally.best_step
            checkpoint.prune(self.folder, keep=self.config.keep_checkpoints, best=best)
        self.ranks.wait()

    def _beginning(self) -> tuple[Tally, dict[str, int] | None]:
        """Take over the newest checkpoint, if there is one; its sums and lengths of the log."""
        found = checkpoint.checkpoints(self.folder)[-1:]
        seen = [checkpoint.read_about(path) for path in found]
        refuse_disagreement(self.ranks, {"the newest checkpoint": seen})
        if not found:
            self.made_by = checkpoint.parts_of(None)
            return Tally(), None
        loaded = checkpoint.load(found[0])
        about = loaded.about
        checkpoint.refuse_other(loaded.folder, "course", about["course"], course(self.config))
        checkpoint.refuse_other(loaded.folder, "data", about["data"], self.data.identity)
        self.made_by = checkpoint.parts_of(loaded, mixed=self.mixed)
        weights = {PREFIX + name: t for name, t in loaded.weights.items()}
        distributed.scatter(self.objective, self.optimizers, weights, loaded.optimizer)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(dict(about["scaler"]))
        return Tally(**about["tally"]), about["log_bytes"]


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
    patience: float = 0.0,
    mixed: bool = False,
) -> Session:
    """Train in `folder`, which is of this training alone, or go on there with what was begun.

    The folder then holds the configuration, the tokenizer, the log, the checkpoints that are kept,
    and metrics.json. `ceiling` measures the matmul rate of one device, FLOP/s, before and after
    training; the higher rate counts, as a busy machine shows a lower one. `with_test` evaluates the
    finished network on the test split too. `patience` is how many seconds to wait for another
    process that trains there; `mixed` as of `Trainer`. ConfigError if one does, something about
    corpus, configuration, checkpoint or ranks is wrong, a loss is not finite, or the disk is full.
    """
    alone = locked(folder, patience=patience) if ranks.is_first else contextlib.nullcontext()
    with alone:
        data = _prepared(config, folder, ranks)
        before = ceiling() if ceiling else None
        _forget_peak(ranks.device)
        how: dict[str, Any] = {"watch": watch, "keep_best": keep_best, "mixed": mixed}
        trainer = Trainer(config, data, folder, ranks, ceiling=before, **how)
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


def _prepared(config: TrainingConfig, folder: Path, ranks: Ranks) -> Data:
    """The data; before that, what belongs into the folder of a training is put there."""
    data = None
    if ranks.is_first:
        _refuse_other(folder, config)
        data = read(config)
        with writing(folder):
            said = config.model_dump(mode="json")
            write_atomically(folder / CONFIG, yaml.safe_dump(said, sort_keys=False))
            data.tokenizer.save(folder / TOKENIZER)
    ranks.wait()
    return data or read(config)  # the others find in the cache what the first has made


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
    config, data, made = trainer.config, trainer.data, trainer.compilation
    told = ("loss", "perplexity", "bits_per_byte", "n_tokens", "n_bytes") if test else ()
    tested = {f"test_{name.removeprefix('n_')}": getattr(test, name) for name in told}
    losses = pd.read_csv(trainer.folder / "loss.csv")
    speed = pd.read_csv(trainer.folder / "speed.csv")
    epochs = losses[losses["per"] == "epoch"]
    rate = recorder.tokens_per_s(speed, config.batch_tokens)
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
        "wait_share": recorder.wait_share(speed),
        "ceiling_flop_per_s": trainer.recorder.ceiling,
        "mfu": trainer.recorder.mfu(rate),
        "peak_allocated_mib": peak_mib,
        "peak_rss_mib": peak_resident_bytes() / MIB,
        "compiled": config.compile and not made.eager,
        **(made._asdict() if config.compile else {}),
        "n_ranks": trainer.ranks.world,
        "parallel": config.parallel,
        **({"parts": trainer.made_by} if len(trainer.made_by) > 1 else {}),
    }


def _refuse_other(folder: Path, config: TrainingConfig) -> None:
    """Leave alone a folder that holds a training with another configuration."""
    if not ((folder / CONFIG).exists() and any((folder / name).exists() for name in FILES)):
        return  # nothing, or what was refused before its first step
    then, now = read_parameters(folder / CONFIG), course(config)
    if shown := checkpoint.differences(then, now, now):
        raise ConfigError(
            f"{folder} holds a training with another configuration: {shown}; "
            "name another folder, or remove this one"
        )
