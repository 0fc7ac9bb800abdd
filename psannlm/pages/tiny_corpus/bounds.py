"""What must hold between the files of a training, and what no training could reach."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from psannlm.config.parse import parse
from psannlm.config.training import TrainingConfig
from psannlm.evidence.runs import Evidence
from psannlm.files import MIB
from psannlm.model.bases import cost_of
from psannlm.model.cost import Shape
from psannlm.pages.tiny_corpus import tables as training_tables
from psannlm.pages.tiny_corpus.tables import Trained
from psannlm.train import journal
from psannlm.train.journal import bits_per_byte, perplexity

TOLERANCE = 1e-9
"""Relative. The same sums in another order differ by rounding in the last digits at most."""

CLOCK_TOLERANCE = 1e-3
"""Relative, between seconds that two clocks measured: the device's and the host's."""

PARAMETER_BYTES = 4
"""The trained weights are float32, whatever precision products are in."""


def problems(run: Evidence) -> Iterator[str]:
    """What the files of a training state wrongly: file, row and identity."""
    try:
        trained = training_tables.read(run.folder)
        config = parse(TrainingConfig, run.manifest["parameters"], source="parameters")
        for found in (
            _step_problems(trained, config),
            _evaluation_problems(trained),
            _epoch_problems(trained),
            _speed_problems(trained),
            _outcome_problems(trained),
            _asked_problems(trained, config, run),
            _bound_problems(trained, config),
            _side_problems(trained, config),
        ):
            yield from found
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        yield f"cannot be checked: {type(error).__name__}: {error}"


def _differs(where: str, stated: Any, expected: Any, source: str) -> Iterator[str]:
    """The message that `stated` is not `expected`, unless it is."""
    if isinstance(expected, float) and isinstance(stated, int | float):
        same = math.isclose(stated, expected, rel_tol=TOLERANCE)
    else:
        same = stated == expected
    if not same:
        yield f"{where} is {stated!r}, {source} gives {expected!r}"


def _step_problems(trained: Trained, config: TrainingConfig) -> Iterator[str]:
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


def _evaluation_problems(trained: Trained) -> Iterator[str]:
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


def _epoch_problems(trained: Trained) -> Iterator[str]:
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


def _speed_problems(trained: Trained) -> Iterator[str]:
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
    metrics = trained.metrics
    for name, value in (
        ("train_seconds", float(speed["elapsed_seconds"].iloc[-1])),
        ("tokens_per_s", journal.tokens_per_s(speed, metrics["batch_tokens"])),
        ("wait_share", journal.wait_share(speed)),
    ):
        yield from _differs(f"metrics.json: {name}", metrics[name], value, "speed.csv")


def _outcome_problems(trained: Trained) -> Iterator[str]:
    """What metrics.json says of losses, perplexities and bits, from loss.csv and from itself."""
    metrics, evaluations = trained.metrics, trained.rows("evaluation")
    last, best = evaluations.iloc[-1], evaluations.loc[evaluations["val_loss"].idxmin()]
    if int(last["step"]) != metrics["n_steps"]:
        yield f"loss.csv: the last evaluation is of step {int(last['step'])}, not of the last step"
    steps = trained.rows("step")
    density = metrics["val_bytes"] / metrics["val_tokens"]
    test_density = metrics["test_bytes"] / metrics["test_tokens"]
    expected = {
        "n_steps": (int(steps["step"].iloc[-1]), "loss.csv"),
        "train_loss": (float(trained.rows("epoch")["train_loss"].iloc[-1]), "the last epoch"),
        "val_loss": (float(last["val_loss"]), "the last evaluation"),
        "top1": (float(last["top1"]), "the last evaluation"),
        "best_val_loss": (float(best["val_loss"]), "the evaluations"),
        "best_step": (int(best["step"]), "the evaluations"),
        "train_tokens": (metrics["n_steps"] * metrics["batch_tokens"], "n_steps * batch_tokens"),
        "bytes_per_token": (density, "val_bytes / val_tokens"),
        "perplexity": (perplexity(metrics["val_loss"]), "exp(val_loss)"),
        "bits_per_byte": (bits_per_byte(metrics["val_loss"], density), "val_loss"),
        "test_perplexity": (perplexity(metrics["test_loss"]), "exp(test_loss)"),
        "test_bits_per_byte": (bits_per_byte(metrics["test_loss"], test_density), "test_loss"),
        "target_reached": (metrics["perplexity"] <= metrics["target_perplexity"], "perplexity"),
    }
    for name, (value, source) in expected.items():
        yield from _differs(f"metrics.json: {name}", metrics[name], value, source)


def _asked_problems(trained: Trained, config: TrainingConfig, run: Evidence) -> Iterator[str]:
    """What metrics.json repeats of the request, and of the text and tokenizer in the manifest."""
    metrics = trained.metrics
    corpus, tokenizer = run.manifest["corpus"], run.manifest["tokenizer"]
    asked = {
        "base": config.base[0],
        "preset": config.preset,
        "tokenizer": config.tokenizer,
        "epochs": config.epochs,
        "batch_tokens": config.batch_tokens,
        "target_perplexity": config.target_perplexity,
        "parallel": config.parallel,
        "corpus_path": corpus["path"],
        "corpus_sha256": corpus["sha256"],
        "tokenizer_sha256": tokenizer["sha256"],
    }
    for name, value in asked.items():
        yield from _differs(f"metrics.json: {name}", metrics[name], value, "run.json")
    if not 0 < metrics["vocab_size"] <= config.vocab_size:
        yield f"metrics.json: vocab_size {metrics['vocab_size']} is more than was asked for"
    network = config.network.model_copy(update={"vocab_size": metrics["vocab_size"]})
    shape = Shape(1, config.context_length)
    cost = cost_of(network, shape)
    yield from _differs(
        "metrics.json: n_parameters", metrics["n_parameters"], cost.n_parameters, "the network"
    )
    if metrics["ceiling_flop_per_s"] is None:
        yield from _differs("metrics.json: mfu", metrics["mfu"], None, "an unknown ceiling")
        return
    rate = 3 * cost.model_flops / shape.total * metrics["tokens_per_s"] / metrics["n_ranks"]
    share = rate / metrics["ceiling_flop_per_s"]
    yield from _differs("metrics.json: mfu", metrics["mfu"], share, "tokens_per_s")


def _bound_problems(trained: Trained, config: TrainingConfig) -> Iterator[str]:
    """Numbers that no machine and no text could give."""
    metrics = trained.metrics
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


def _side_problems(trained: Trained, config: TrainingConfig) -> Iterator[str]:
    """Yardsticks, learned sine parameters and samples."""
    yardsticks = trained.yardsticks
    wanted = {"zlib", "bz2", "xz", "xz after training text", f"{config.ngram_order}-gram model"}
    if missing := wanted - set(yardsticks["name"]):
        yield f"yardsticks.csv: no row for {', '.join(sorted(missing))}"
    for row in yardsticks.itertuples():
        if not 0 < row.bits_per_byte < math.inf:
            yield f"yardsticks.csv: {row.name}: bits_per_byte must be positive and finite"
    for name in training_tables.SINE[2:]:
        if config.decay_mode == "none" and name.startswith("decay"):
            continue  # such a sine has none
        values = pd.to_numeric(trained.sine[name])
        for wrong in trained.sine[~(values > 0)].itertuples():
            yield f"sine.csv: layer {wrong.layer}, feature {wrong.feature}: {name} must be positive"
    for prompt in set(config.prompts) - {sample["prompt"] for sample in trained.samples}:
        yield f"samples.json: no sample of the prompt {prompt!r}"
