"""What a training leaves in its run folder, and the way back from its files."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from psannlm.evidence.store import RecordStore
from psannlm.evidence.table import Column, Table

LOSS = Table(
    "loss.csv",
    "One row a step, an evaluation and an epoch.",
    (
        Column("per", "What the row is of, step, evaluation or epoch."),
        Column("step", "Number of the step, from 1."),
        Column("epoch", "Passes over the training split so far."),
        Column("tokens", "Trained on so far.", "tokens"),
        Column("train_loss", "Of the step, or the mean of the epoch's steps.", "nats/token"),
        Column("val_loss", "Loss on the validation split.", "nats/token"),
        Column("bits_per_byte", "Validation loss over ln 2 and the bytes of a token.", "bits/byte"),
        Column("perplexity", "Exponential of the validation loss."),
        Column(
            "top1",
            "Share of tokens of the validation split that were the likeliest to the network.",
        ),
        Column("learning_rate", "Learning rate of the step."),
        Column("grad_norm", "Norm of the gradient before it is clipped."),
    ),
)
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
        Column("name", "The compressor or model."),
        Column("training_bytes", "Bytes of the training split that it has read before.", "bytes"),
        Column("sees_training_text", "Whether it has read the training split before."),
        Column("bits_per_byte", "What it needs for the validation split.", "bits/byte"),
        Column("seconds", "Time that it took.", "s"),
    ),
)
SINE = Table(
    "sine.csv",
    "One row a feature of the damped sine, before and after the training.",
    (
        Column("layer", "Number of the block, and the part of it."),
        Column("feature", "Number of the feature in its layer, from 0."),
        Column("amplitude_before", "Amplitude A before the training."),
        Column("amplitude_after", "Amplitude A after the training."),
        Column("frequency_before", "Frequency f before the training."),
        Column("frequency_after", "Frequency f after the training."),
        Column("decay_before", "Decay d before the training."),
        Column("decay_after", "Decay d after the training."),
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
METRICS_FILE = "metrics.json"


@dataclass(frozen=True)
class Trained:
    """A finished training as its files state it."""

    losses: pd.DataFrame
    """loss.csv."""

    speed: pd.DataFrame
    """speed.csv."""

    metrics: Mapping[str, Any]
    yardsticks: pd.DataFrame
    sine: pd.DataFrame
    """sine.csv; no rows for a base without a damped sine."""

    samples: Sequence[Mapping[str, Any]]
    texts: Mapping[str, str] = field(repr=False)
    """Content of its files, by name."""

    key: tuple[Any, ...] = ("training",)

    def rows(self, per: str) -> pd.DataFrame:
        """Rows of loss.csv of one kind: step, evaluation or epoch."""
        return self.losses[self.losses["per"] == per].reset_index(drop=True)

    @property
    def has_best_before_end(self) -> bool:
        """Whether the loss on the validation split rose again after its lowest."""
        return bool(self.metrics["best_step"] < self.metrics["n_steps"])


def from_texts(texts: Mapping[str, str]) -> list[Trained]:
    """The training whose files these are.

    Raises:
        ValueError: A file is not what its name says; names the file and what it lacks.
    """
    return [
        Trained(
            losses=_csv(LOSS, texts),
            speed=_csv(SPEED, texts),
            metrics=json.loads(texts[METRICS_FILE]),
            yardsticks=_csv(YARDSTICKS, texts),
            sine=_csv(SINE, texts),
            samples=json.loads(texts[SAMPLES.file]),
            texts=texts,
        )
    ]


STORE: RecordStore[Trained] = RecordStore(
    (LOSS, SPEED, YARDSTICKS, SINE, SAMPLES, TOKENIZER, Table(METRICS_FILE, "", ())),
    lambda records: {name: text for record in records for name, text in record.texts.items()},
    from_texts,
    lambda trained: f"loss {trained.metrics['val_loss']:.3f}",
    unit="training",
)


def _csv(table: Table, texts: Mapping[str, str]) -> pd.DataFrame:
    frame = pd.read_csv(io.StringIO(texts[table.file]))
    if missing := [name for name in table.names if name not in frame.columns]:
        raise ValueError(f"{table.file} lacks {', '.join(missing)}")
    return frame
