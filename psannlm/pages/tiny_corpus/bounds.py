"""What no training could have left: identities of its log, and bounds of its numbers."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from psannlm.config.training import TrainingConfig
from psannlm.files import MIB
from psannlm.pages.tiny_corpus.records import SINE, Trained
from psannlm.train.journal import bits_per_byte, perplexity

TOLERANCE = 1e-9
"""Relative. The same sums in another order differ by rounding in the last digits at most."""

CLOCK_TOLERANCE = 1e-3
"""Relative, between seconds that two clocks measured: the device's and the host's."""

PARAMETER_BYTES = 4
"""The trained weights are float32, whatever precision products are in."""


def impossible(trained: Trained, config: TrainingConfig) -> Iterator[str]:
    """What is wrong with the files of a training: file, row and rule."""
    yield from _steps(trained, config)
    yield from _evaluations(trained)
    yield from _epochs(trained)
    yield from _speed(trained)
    yield from _outcome(trained, config)
    yield from _side_files(trained, config)


def _differs(where: str, stated: Any, expected: Any, source: str) -> Iterator[str]:
    """The message that `stated` is not `expected`, unless it is."""
    if isinstance(expected, float) and isinstance(stated, int | float):
        same = math.isclose(stated, expected, rel_tol=TOLERANCE)
    else:
        same = stated == expected
    if not same:
        yield f"{where} is {stated!r}, {source} gives {expected!r}"


def _steps(trained: Trained, config: TrainingConfig) -> Iterator[str]:
    steps = trained.rows("step")
    if list(steps["step"]) != list(range(1, len(steps) + 1)):
        yield "loss.csv: the steps are not 1, 2, 3 and so on, each once"
    for row in trained.losses.itertuples():
        where = f"loss.csv: {row.per} at step {row.step}"
        yield from _differs(
            f"{where}: tokens", row.tokens, row.step * config.batch_tokens, "batch_tokens"
        )
    for row in steps.itertuples():
        where = f"loss.csv: step at step {row.step}"
        if not 0 < row.train_loss < math.inf:
            yield f"{where}: train_loss must be positive and finite, got {row.train_loss}"
        if not (row.learning_rate >= 0 and row.grad_norm >= 0):
            yield f"{where}: learning_rate and grad_norm must be at least 0"


def _evaluations(trained: Trained) -> Iterator[str]:
    density = trained.metrics["bytes_per_token"]
    for row in trained.losses[trained.losses["per"] != "step"].itertuples():
        where = f"loss.csv: {row.per} at step {row.step}"
        if not 0 < row.val_loss < math.inf:
            yield f"{where}: val_loss must be positive and finite, got {row.val_loss}"
        for name, expected in (
            ("perplexity", perplexity(row.val_loss)),
            ("bits_per_byte", bits_per_byte(row.val_loss, density)),
        ):
            yield from _differs(f"{where}: {name}", getattr(row, name), expected, "val_loss")
        if not 0 <= row.top1 <= 1:
            yield f"{where}: top1 must lie between 0 and 1, got {row.top1}"


def _epochs(trained: Trained) -> Iterator[str]:
    """Epochs share out the steps; each ends in an evaluation, the last one with the last step."""
    steps, epochs = trained.rows("step"), trained.rows("epoch")
    evaluations = trained.rows("evaluation").set_index("step")
    before = 0
    for number, row in enumerate(epochs.itertuples(), start=1):
        where = f"loss.csv: epoch {row.epoch:g}"
        yield from _differs(f"{where}: epoch", float(row.epoch), float(number), "the order")
        mine = steps[(steps["step"] > before) & (steps["step"] <= row.step)]["train_loss"]
        yield from _differs(
            f"{where}: train_loss", row.train_loss, float(mine.mean()), "the mean of its steps"
        )
        for name in ("val_loss", "top1"):
            value = float(evaluations[name].loc[row.step])
            yield from _differs(f"{where}: {name}", getattr(row, name), value, "the evaluation")
        before = row.step
    if before != len(steps):
        yield f"loss.csv: the last epoch ends at step {before}, the last step is {len(steps)}"


def _speed(trained: Trained) -> Iterator[str]:
    speed = trained.speed
    if list(speed["step"]) != list(trained.rows("step")["step"]):
        yield "speed.csv: its steps are not those of loss.csv"
    trained_for = speed["step_seconds"].cumsum()
    for row, together in zip(speed.itertuples(), trained_for, strict=True):
        where = f"speed.csv: step {row.step}"
        if not 0 <= row.wait_seconds <= row.step_seconds < math.inf:
            yield f"{where}: waited {row.wait_seconds} of {row.step_seconds} seconds"
        if not row.elapsed_seconds >= together * (1 - CLOCK_TOLERANCE):
            yield f"{where}: elapsed_seconds {row.elapsed_seconds} is less than its steps took"


def _outcome(trained: Trained, config: TrainingConfig) -> Iterator[str]:
    """Numbers that no machine and no text could give."""
    metrics = trained.metrics
    if not 0 < metrics["vocab_size"] <= config.vocab_size:
        yield f"metrics.json: vocab_size {metrics['vocab_size']} is more than was asked for"
    for name in ("val_loss", "test_loss", "best_val_loss", "bits_per_byte", "test_bits_per_byte"):
        if not 0 < metrics[name] < math.inf:
            yield f"metrics.json: {name} must be positive and finite, got {metrics[name]}"
    if metrics["mfu"] is not None and metrics["mfu"] > 1:
        yield f"metrics.json: mfu {metrics['mfu']} is more than the measured ceiling"
    seen = math.ceil(config.epochs) * (metrics["train_split_tokens"] + config.batch_tokens)
    if metrics["train_tokens"] > seen:
        yield f"metrics.json: train_tokens {metrics['train_tokens']} is more than its epochs hold"
    on_cpu = metrics["peak_allocated_mib"] is None
    name = "peak_rss_mib" if on_cpu else "peak_allocated_mib"
    held = metrics["n_parameters"] * PARAMETER_BYTES / MIB / metrics["n_ranks"]
    if not metrics[name] > held:
        yield f"metrics.json: {name} {metrics[name]} cannot hold the parameters' {held:.1f} MiB"


def _side_files(trained: Trained, config: TrainingConfig) -> Iterator[str]:
    """Yardsticks, learned sine parameters and samples."""
    yardsticks = trained.yardsticks
    wanted = {"zlib", "bz2", "xz", "xz after training text", f"{config.ngram_order}-gram model"}
    if missing := wanted - set(yardsticks["name"]):
        yield f"yardsticks.csv: no row for {', '.join(sorted(missing))}"
    for row in yardsticks.itertuples():
        if not 0 < row.bits_per_byte < math.inf:
            yield f"yardsticks.csv: {row.name}: bits_per_byte must be positive and finite"
    for name in SINE.names[2:]:
        if config.decay_mode == "none" and name.startswith("decay"):
            continue  # such a sine has none
        values = pd.to_numeric(trained.sine[name])
        for wrong in trained.sine[~(values > 0)].itertuples():
            yield f"sine.csv: layer {wrong.layer}, feature {wrong.feature}: {name} must be positive"
    for prompt in set(config.prompts) - {sample["prompt"] for sample in trained.samples}:
        yield f"samples.json: no sample of the prompt {prompt!r}"
