"""What a training leaves in its run folder: its files, the way back, what none could have left."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from psannlm.config.training import TrainingConfig
from psannlm.evidence import table
from psannlm.evidence.page import RunInfo
from psannlm.evidence.store import RecordStore
from psannlm.evidence.table import Column, Table
from psannlm.files import MIB
from psannlm.model.bases import cost_of
from psannlm.model.cost import Shape
from psannlm.pages.shootout.bounds import PARAMETER_BYTES, differs
from psannlm.train import recorder
from psannlm.train.recorder import bits_per_byte, perplexity

CLOCK_TOLERANCE = 1e-3  # relative, between seconds by the clocks of device and host

VAL_LOSS = Column("val_loss", "Loss on the validation split.", "nats/token")
BITS = Column("bits_per_byte", "Validation loss over ln 2 and the bytes of a token.", "bits/byte")
PERPLEXITY = Column("perplexity", "Exponential of the validation loss.")
TOP1 = Column(
    "top1", "Share of tokens of the validation split that were the likeliest to the network."
)

LOSS = Table(
    "loss.csv",
    "One row a step, an evaluation and an epoch.",
    (
        Column("per", "What the row is of, step, evaluation or epoch."),
        Column("step", "Number of the step, from 1.", "", "step", ","),
        Column("epoch", "Passes over the training split so far.", "", "epoch", "g"),
        Column("tokens", "Trained on so far.", "tokens", "tokens", ","),
        Column(
            "train_loss", "Of the step, or the mean of the epoch's steps.", "nats/token",
            "training loss, mean", "{:.4f}",
        ),
        VAL_LOSS.but(heading="validation loss", format="{:.4f}"),
        BITS.but(heading="bits per byte", format="{:.3f}"),
        PERPLEXITY.but(heading="perplexity", format=".2f"),
        TOP1.but(heading="top-1", format=".1%"),
        Column("learning_rate", "Learning rate of the step."),
        Column("grad_norm", "Norm of the gradient before it is clipped."),
    ),
    caption="Every epoch",
    shown=(
        "epoch", "step", "tokens", "train_loss", "val_loss", "bits_per_byte", "perplexity", "top1",
    ),
)  # fmt: skip
SPEED = Table(
    "speed.csv",
    "One row a step, its time.",
    (
        Column("step", "Number of the step, from 1."),
        Column("step_seconds", "Time of the step, its wait for data too.", "s"),
        Column("wait_seconds", "Time in which it waited for data.", "s"),
        Column(
            "elapsed_seconds", "Since the training began, evaluations and checkpoints too.", "s"
        ),
    ),
)
YARDSTICKS = Table(
    "yardsticks.csv",
    "One row a compressor, and the n-gram model.",
    (
        Column("name", "The compressor or model.", heading="model"),
        Column(
            "training_bytes", "Bytes of the training split that it has read before.", "bytes",
            "read before", ",",
        ),
        Column("sees_training_text", "Whether it has read the training split before."),
        Column(
            "bits_per_byte", "What it needs for the validation split.", "bits/byte",
            "bits per byte", "{:.3f}",
        ),
        Column("seconds", "Time that it took.", "s", "time", ",.1f"),
    ),
)  # fmt: skip
SINE = Table(
    "sine.csv",
    "One row a feature of the damped sine, before and after the training.",
    (
        Column("layer", "Number of the block, and the part of it."),
        Column("feature", "Number of the feature in its layer, from 0."),
        *(
            Column(f"{part.lower()}_{when}", f"{part} {letter} {when} the training.")
            for part, letter in (("Amplitude", "A"), ("Frequency", "f"), ("Decay", "d"))
            for when in ("before", "after")
        ),
    ),
)
SAMPLES = Table(
    "samples.json",
    "What the network wrote after each prompt.",
    (
        Column("prompt", "Text given."),
        Column("temperature", "Of sampling; 0 takes the likeliest token."),
        Column("top_p", "Sampled from so much probability only."),
        Column("text", "What follows the prompt."),
    ),
)
TOKENIZER = Table(
    "tokenizer.json",
    "The tokenizer, in the format of the library tokenizers.",
    (
        Column("added_tokens", "Tokens outside the vocabulary that was learned."),
        Column("decoder", "How tokens become text again."),
        Column("model", "Vocabulary and merges."),
        Column("normalizer", "What is done to a text first."),
        Column("padding", "How sequences are made equal; null here."),
        Column("post_processor", "What is done to tokens last."),
        Column("pre_tokenizer", "Where a text may be cut."),
        Column("truncation", "Where sequences are cut; null here."),
        Column("version", "Version of the format."),
    ),
)
METRICS = Table(
    "metrics.json",
    "Losses, perplexities, bits per byte, sizes, speed and memory of the training.",
    (
        Column("train_loss", "Training loss, mean of the last epoch.", "nats/token"),
        VAL_LOSS,
        PERPLEXITY.but(
            unit="per token", headline="BMRK-01", quantity="validation perplexity", format=".1f",
            better="lower",
        ),
        Column("corpus_path", "Text trained on."),
        table.BASE,
        Column("preset", "Set of parameter files, smoke, cpu or gpu."),
        Column("corpus_sha256", "Hash of that text."),
        Column("tokenizer", "Kind of tokenizer."),
        Column("tokenizer_sha256", "Hash of the tokenizer."),
        Column("vocab_size", "Tokens that the vocabulary has."),
        BITS.but(
            headline="BMRK-01", quantity="validation text", format=".3f", better="lower",
            compare="counted",
        ),
        TOP1,
        Column("val_tokens", "Tokens of the validation split.", "tokens"),
        Column("val_bytes", "Bytes of the validation split.", "bytes"),
        Column("bytes_per_token", "Bytes of the validation split over its tokens.", "bytes/token"),
        Column("test_loss", "Loss on the test split.", "nats/token"),
        Column(
            "test_bits_per_byte", "Loss on the test split over ln 2 and the bytes of a token.",
            "bits/byte", headline="BMRK-01", quantity="test text", format=".3f",
        ),
        Column(
            "test_perplexity", "Exponential of the loss on the test split.", "per token",
            headline="BMRK-01", quantity="test perplexity", format=".1f",
        ),
        Column("test_tokens", "Tokens of the test split.", "tokens"),
        Column("test_bytes", "Bytes of the test split.", "bytes"),
        Column("best_val_loss", "Lowest validation loss of all evaluations.", "nats/token"),
        Column("best_step", "Step of the lowest validation loss."),
        Column("n_parameters", "Parameters of the network."),
        Column("n_steps", "Updates of the optimizer."),
        Column("epochs", "Passes over the training split."),
        Column("batch_tokens", "Tokens of one step, all its sequences together.", "tokens"),
        Column("train_tokens", "Tokens trained on.", "tokens"),
        Column("train_split_tokens", "Tokens of the training split.", "tokens"),
        Column("train_split_bytes", "Bytes of the training split.", "bytes"),
        Column("train_seconds", "Time of all steps.", "s"),
        Column(
            "tokens_per_s", "Training speed over the steady steps.", "tokens/s",
            quantity="training speed", format=",.0f", better="higher", compare="single",
        ),
        Column("mfu", "Matrix products a second over the ceiling measured in the same run."),
        Column("ceiling_flop_per_s", "Fastest matrix product measured in the same run.", "FLOP/s"),
        Column("wait_share", "Share of the time of all steps in which they waited for data."),
        Column("peak_allocated_mib", table.PEAK_ALLOCATED_BYTES.text, "MiB"),
        Column("peak_rss_mib", table.PEAK_RSS_BYTES.text, "MiB"),
        Column("target_perplexity", "Perplexity that the plan asks for."),
        Column(
            "target_reached",
            "Whether the validation perplexity is at most the target; null without one.",
        ),
        table.EMULATED,
        Column("n_ranks", "Processes that trained together."),
        Column("parallel", "How ranks share the network, ddp or fsdp."),
    ),
    fixed=("train_loss", "val_loss", "perplexity", "corpus_path"),
)  # fmt: skip
STATED = replace(METRICS, columns=(
    *METRICS.columns,
    table.COMPILED, table.FRAMES, table.GRAPH_BREAKS, table.EAGER,
    Column("train_sha256", "Hash of the tokens of the training split."),
    Column("validation_sha256", "Hash of the tokens of the validation split."),
))  # fmt: skip
"""The file as a training writes it, which states more than is published of it."""


@dataclass(frozen=True)
class Trained:
    """A finished training as its files state it."""

    losses: pd.DataFrame  # loss.csv
    speed: pd.DataFrame  # speed.csv
    yardsticks: pd.DataFrame
    sine: pd.DataFrame  # sine.csv; no rows for a base without a damped sine
    metrics: Mapping[str, Any]
    samples: Sequence[Mapping[str, Any]]
    texts: Mapping[str, str] = field(repr=False)  # content of its files, by name
    key: tuple[Any, ...] = ("training",)

    def rows(self, per: str) -> pd.DataFrame:
        """Rows of loss.csv of one kind: step, evaluation or epoch."""
        return self.losses[self.losses["per"] == per].reset_index(drop=True)


def from_texts(texts: Mapping[str, str]) -> list[Trained]:
    """The training whose files these are; ValueError names a file that lacks a column."""
    frames = []
    for one in (LOSS, SPEED, YARDSTICKS, SINE):
        frames.append(table.read_table(one.file, texts[one.file]))
        if missing := [name for name in one.names if name not in frames[-1].columns]:
            raise ValueError(f"{one.file} lacks {', '.join(missing)}")
    metrics, samples = (json.loads(texts[one.file]) for one in (METRICS, SAMPLES))
    losses, speed, yardsticks, sine = frames
    return [Trained(losses, speed, yardsticks, sine, metrics, samples, texts)]


STORE: RecordStore[Trained] = RecordStore(
    (LOSS, SPEED, YARDSTICKS, SINE, SAMPLES, TOKENIZER, METRICS),
    lambda records: {name: text for record in records for name, text in record.texts.items()},
    from_texts,
    lambda trained: f"loss {trained.metrics['val_loss']:.3f}",
    unit="training",
)


def metrics_of(trained: Trained, run: RunInfo[TrainingConfig]) -> dict[str, Any]:
    """What metrics.json must state: all that follows from the log, the request and itself."""
    stated, evaluations, speed = trained.metrics, trained.rows("evaluation"), trained.speed
    last, best = evaluations.iloc[-1], evaluations.loc[evaluations["val_loss"].idxmin()]
    density = stated["val_bytes"] / stated["val_tokens"]
    test_density = stated["test_bytes"] / stated["test_tokens"]
    return {
        **stated,
        "n_steps": int(trained.rows("step")["step"].iloc[-1]),
        "train_loss": float(trained.rows("epoch")["train_loss"].iloc[-1]),
        "val_loss": float(last["val_loss"]),
        "top1": float(last["top1"]),
        "best_val_loss": float(best["val_loss"]),
        "best_step": int(best["step"]),
        "train_seconds": float(speed["elapsed_seconds"].iloc[-1]),
        "tokens_per_s": recorder.tokens_per_s(speed, stated["batch_tokens"]),
        "wait_share": recorder.wait_share(speed),
        "train_tokens": stated["n_steps"] * stated["batch_tokens"],
        "bytes_per_token": density,
        "perplexity": perplexity(stated["val_loss"]),
        "bits_per_byte": bits_per_byte(stated["val_loss"], density),
        "test_perplexity": perplexity(stated["test_loss"]),
        "test_bits_per_byte": bits_per_byte(stated["test_loss"], test_density),
        "target_reached": stated["perplexity"] <= stated["target_perplexity"],
        **_from_request(stated, run),
        "emulated": run.emulated(run.config.precision),
    }


def _from_request(metrics: Mapping[str, Any], run: RunInfo[TrainingConfig]) -> dict[str, Any]:
    """What repeats the request, the text and the tokenizer, and what the network costs."""
    config, corpus = run.config, run.manifest["corpus"]
    network = config.network.model_copy(update={"vocab_size": metrics["vocab_size"]})
    cost, ceiling = cost_of(network, Shape(1, config.context_length)), metrics["ceiling_flop_per_s"]
    flop_per_token = 3 * cost.model_flops / config.context_length
    rate = flop_per_token * metrics["tokens_per_s"] / metrics["n_ranks"]
    repeated = ("preset", "tokenizer", "epochs", "batch_tokens", "target_perplexity", "parallel")
    return {
        **{name: getattr(config, name) for name in repeated},
        "base": config.base[0],
        "corpus_path": corpus["path"],
        "corpus_sha256": corpus["sha256"],
        "tokenizer_sha256": run.manifest["tokenizer"]["sha256"],
        "n_parameters": cost.n_parameters,
        "mfu": None if ceiling is None else rate / ceiling,
    }


def beside_yardsticks(trained: Trained) -> pd.DataFrame:
    """The yardsticks with the network as a row among them, best first."""
    metrics = trained.metrics
    network = {
        "name": metrics["base"],
        "training_bytes": metrics["train_split_bytes"],
        "sees_training_text": True,
        "bits_per_byte": metrics["bits_per_byte"],
        "seconds": metrics["train_seconds"],
        "is_network": True,
    }
    others = trained.yardsticks[YARDSTICKS.names].assign(is_network=False)
    table = pd.concat([others, pd.DataFrame([network])], ignore_index=True)
    return table.sort_values("bits_per_byte", kind="stable", ignore_index=True)


def problems(records: Sequence[Trained], config: TrainingConfig) -> Iterator[str]:
    """What no training could have left, identities and bounds: file, row and rule."""
    for problems_of in (_losses, _epochs, _speed, _outcome, _side_files):
        yield from problems_of(records[0], config)


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
