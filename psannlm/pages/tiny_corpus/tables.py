"""The tables of a training: what metrics.json states, and the columns of the files behind it."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from psannlm.config.training import TrainingConfig
from psannlm.evidence.page import RunInfo
from psannlm.evidence.table import Column, Table
from psannlm.model.bases import cost_of
from psannlm.model.cost import Shape
from psannlm.pages.tiny_corpus.records import YARDSTICKS, Trained
from psannlm.train import journal
from psannlm.train.journal import bits_per_byte, perplexity

METRICS = Table(
    "metrics.json",
    "Losses, perplexities, bits per byte, sizes, speed and memory of the training.",
    (
        Column("train_loss", "Training loss, mean of the last epoch.", "nats/token"),
        Column("val_loss", "Loss on the validation split.", "nats/token"),
        Column(
            "perplexity",
            "Exponential of the validation loss.",
            "per token",
            headline="BMRK-01",
            quantity="validation perplexity",
            format=".1f",
            better="lower",
        ),
        Column("corpus_path", "Text trained on."),
        Column(
            "base",
            "Architecture under test, by its name in this report.",
            role="key",
            heading="base",
        ),
        Column("preset", "Set of parameter files, smoke, cpu or gpu."),
        Column("corpus_sha256", "Hash of that text."),
        Column("tokenizer", "Kind of tokenizer."),
        Column("tokenizer_sha256", "Hash of the tokenizer."),
        Column("vocab_size", "Tokens that the vocabulary has."),
        Column(
            "bits_per_byte",
            "Validation loss over ln 2 and the bytes of a token.",
            "bits/byte",
            headline="BMRK-01",
            quantity="validation text",
            format=".3f",
            better="lower",
            compare="counted",
        ),
        Column(
            "top1",
            "Share of tokens of the validation split that were the likeliest to the network.",
        ),
        Column("val_tokens", "Tokens of the validation split.", "tokens"),
        Column("val_bytes", "Bytes of the validation split.", "bytes"),
        Column("bytes_per_token", "Bytes of the validation split over its tokens.", "bytes/token"),
        Column("test_loss", "Loss on the test split.", "nats/token"),
        Column(
            "test_bits_per_byte",
            "Loss on the test split over ln 2 and the bytes of a token.",
            "bits/byte",
            headline="BMRK-01",
            quantity="test text",
            format=".3f",
        ),
        Column(
            "test_perplexity",
            "Exponential of the loss on the test split.",
            "per token",
            headline="BMRK-01",
            quantity="test perplexity",
            format=".1f",
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
            "tokens_per_s",
            "Training speed over the steady steps.",
            "tokens/s",
            quantity="training speed",
            format=",.0f",
            better="higher",
            compare="single",
        ),
        Column("mfu", "Matrix products a second over the ceiling measured in the same run."),
        Column("ceiling_flop_per_s", "Fastest matrix product measured in the same run.", "FLOP/s"),
        Column("wait_share", "Share of the time of all steps in which they waited for data."),
        Column(
            "peak_allocated_mib",
            "Most memory that the allocator had handed out at one time.",
            "MiB",
        ),
        Column("peak_rss_mib", "Largest resident set of the process since it started.", "MiB"),
        Column("target_perplexity", "Perplexity that the plan asks for."),
        Column(
            "target_reached",
            "Whether the validation perplexity is at most the target; null without one.",
        ),
        Column("n_ranks", "Processes that trained together."),
        Column("parallel", "How ranks share the network, ddp or fsdp."),
    ),
    fixed=("train_loss", "val_loss", "perplexity", "corpus_path"),
)
STATED = Table(
    METRICS.file,
    METRICS.text,
    (
        *METRICS.columns,
        Column("compiled", "Whether the step was compiled."),
        Column("train_sha256", "Hash of the tokens of the training split."),
        Column("validation_sha256", "Hash of the tokens of the validation split."),
    ),
)
"""The file as a training writes it, which states more than is published of it."""


def metrics_of(trained: Trained, run: RunInfo[TrainingConfig]) -> dict[str, Any]:
    """What metrics.json must state: all that follows from the log, the request and itself."""
    return {
        **trained.metrics,
        **_from_log(trained),
        **_from_losses(trained.metrics),
        **_from_request(trained.metrics, run),
    }


def _from_log(trained: Trained) -> dict[str, Any]:
    """What follows from loss.csv and speed.csv."""
    evaluations, speed = trained.rows("evaluation"), trained.speed
    last, best = evaluations.iloc[-1], evaluations.loc[evaluations["val_loss"].idxmin()]
    return {
        "n_steps": int(trained.rows("step")["step"].iloc[-1]),
        "train_loss": float(trained.rows("epoch")["train_loss"].iloc[-1]),
        "val_loss": float(last["val_loss"]),
        "top1": float(last["top1"]),
        "best_val_loss": float(best["val_loss"]),
        "best_step": int(best["step"]),
        "train_seconds": float(speed["elapsed_seconds"].iloc[-1]),
        "tokens_per_s": journal.tokens_per_s(speed, trained.metrics["batch_tokens"]),
        "wait_share": journal.wait_share(speed),
    }


def _from_losses(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Perplexities and bits per byte, from the losses and the sizes of the splits."""
    density = metrics["val_bytes"] / metrics["val_tokens"]
    test_density = metrics["test_bytes"] / metrics["test_tokens"]
    return {
        "train_tokens": metrics["n_steps"] * metrics["batch_tokens"],
        "bytes_per_token": density,
        "perplexity": perplexity(metrics["val_loss"]),
        "bits_per_byte": bits_per_byte(metrics["val_loss"], density),
        "test_perplexity": perplexity(metrics["test_loss"]),
        "test_bits_per_byte": bits_per_byte(metrics["test_loss"], test_density),
        "target_reached": metrics["perplexity"] <= metrics["target_perplexity"],
    }


def _from_request(metrics: Mapping[str, Any], run: RunInfo[TrainingConfig]) -> dict[str, Any]:
    """What repeats the request, the text and the tokenizer, and what the network costs."""
    config, corpus, tokenizer = run.config, run.manifest["corpus"], run.manifest["tokenizer"]
    shape = Shape(1, config.context_length)
    network = config.network.model_copy(update={"vocab_size": metrics["vocab_size"]})
    cost, ceiling = cost_of(network, shape), metrics["ceiling_flop_per_s"]
    rate = 3 * cost.model_flops / shape.total * metrics["tokens_per_s"] / metrics["n_ranks"]
    return {
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
        "n_parameters": cost.n_parameters,
        "mfu": None if ceiling is None else rate / ceiling,
    }


def elapsed_at(speed: pd.DataFrame, steps: pd.Series) -> pd.Series:
    """Seconds from the start of the training to the end of each of `steps`."""
    return steps.map(speed.set_index("step")["elapsed_seconds"])


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
