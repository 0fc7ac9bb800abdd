"""What no training could have left: identities of its log, and bounds of its numbers."""

import math
from collections.abc import Iterator

import pandas as pd

from psannlm.config.training import TrainingConfig
from psannlm.files import MIB
from psannlm.pages.shootout.bounds import PARAMETER_BYTES, differs
from psannlm.pages.tiny_corpus.tables import SINE, Trained
from psannlm.train.recorder import bits_per_byte, perplexity

CLOCK_TOLERANCE = 1e-3  # relative, between seconds by the clocks of device and host


def impossible(trained: Trained, config: TrainingConfig) -> Iterator[str]:
    """What is wrong with the files of a training: file, row and rule."""
    for problems in (_losses, _epochs, _speed, _outcome, _side_files):
        yield from problems(trained, config)


def _losses(trained: Trained, config: TrainingConfig) -> Iterator[str]:
    steps, density = list(trained.rows("step")["step"]), trained.metrics["bytes_per_token"]
    if steps != list(range(1, len(steps) + 1)):
        yield "loss.csv: the steps are not 1, 2, 3 and so on, each once"
    for row in trained.losses.itertuples():
        where = f"loss.csv: {row.per} at step {row.step}"
        n_tokens = row.step * config.batch_tokens
        yield from differs(f"{where}: tokens", row.tokens, n_tokens, "batch_tokens")
        loss = "train_loss" if row.per == "step" else "val_loss"
        if not 0 < (value := getattr(row, loss)) < math.inf:
            yield f"{where}: {loss} must be positive and finite, got {value}"
        if row.per == "step":
            if not (row.learning_rate >= 0 and row.grad_norm >= 0):
                yield f"{where}: learning_rate and grad_norm must be at least 0"
            continue
        bits = bits_per_byte(row.val_loss, density)
        yield from differs(f"{where}: perplexity", row.perplexity, perplexity(value), "val_loss")
        yield from differs(f"{where}: bits_per_byte", row.bits_per_byte, bits, "val_loss")
        if not 0 <= row.top1 <= 1:
            yield f"{where}: top1 must lie between 0 and 1, got {row.top1}"


def _epochs(trained: Trained, config: TrainingConfig) -> Iterator[str]:
    """Epochs share out the steps; each ends in an evaluation, the last one with the last step."""
    steps, evaluations = trained.rows("step"), trained.rows("evaluation").set_index("step")
    before = 0
    for number, row in enumerate(trained.rows("epoch").itertuples(), start=1):
        where = f"loss.csv: epoch {row.epoch:g}"
        yield from differs(f"{where}: epoch", float(row.epoch), float(number), "the order")
        mean = float(steps[steps["step"].between(before + 1, row.step)]["train_loss"].mean())
        yield from differs(f"{where}: train_loss", row.train_loss, mean, "the mean of its steps")
        for name in ("val_loss", "top1"):
            value = float(evaluations[name].loc[row.step])
            yield from differs(f"{where}: {name}", getattr(row, name), value, "the evaluation")
        before = row.step
    if before != len(steps):
        yield f"loss.csv: the last epoch ends at step {before}, the last step is {len(steps)}"


def _speed(trained: Trained, config: TrainingConfig) -> Iterator[str]:
    speed = trained.speed
    if list(speed["step"]) != list(trained.rows("step")["step"]):
        yield "speed.csv: its steps are not those of loss.csv"
    for row, together in zip(speed.itertuples(), speed["step_seconds"].cumsum(), strict=True):
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
    name = "peak_rss_mib" if metrics["peak_allocated_mib"] is None else "peak_allocated_mib"
    held = metrics["n_parameters"] * PARAMETER_BYTES / MIB / metrics["n_ranks"]
    if not metrics[name] > held:
        yield f"metrics.json: {name} {metrics[name]} cannot hold the parameters' {held:.1f} MiB"


def _side_files(trained: Trained, config: TrainingConfig) -> Iterator[str]:
    """Yardsticks, learned sine parameters and samples."""
    wanted = {"zlib", "bz2", "xz", "xz after training text", f"{config.ngram_order}-gram model"}
    if missing := wanted - set(trained.yardsticks["name"]):
        yield f"yardsticks.csv: no row for {', '.join(sorted(missing))}"
    for row in trained.yardsticks.itertuples():
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
