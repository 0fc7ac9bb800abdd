"""What a training leaves in its run folder, read back, and the numbers that follow from it.

The columns of its files are fixed here, those of its log in train/journal.py; whoever trains writes
them, whoever shows or checks a training reads them with `read`.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from psannlm.train.journal import LOSS, SPEED

YARDSTICKS = ("name", "training_bytes", "sees_training_text", "bits_per_byte", "seconds")
SINE = (
    "layer", "feature", "amplitude_before", "amplitude_after", "frequency_before",
    "frequency_after", "decay_before", "decay_after",
)  # fmt: skip
SAMPLE = ("prompt", "temperature", "top_p", "text")
"""Keys of each entry of samples.json; `text` is what follows the prompt, without it."""

METRICS = (
    "train_loss", "val_loss", "perplexity", "corpus_path",  # as the original plan names them
    "base", "preset", "corpus_sha256", "tokenizer", "tokenizer_sha256", "vocab_size",
    "bits_per_byte", "top1", "val_tokens", "val_bytes", "bytes_per_token", "test_loss",
    "test_bits_per_byte", "test_perplexity", "test_tokens", "test_bytes", "best_val_loss",
    "best_step", "n_parameters", "n_steps", "epochs", "batch_tokens", "train_tokens",
    "train_split_tokens", "train_split_bytes", "train_seconds", "tokens_per_s", "mfu",
    "ceiling_flop_per_s", "wait_share", "peak_allocated_mib", "peak_rss_mib", "target_perplexity",
    "target_reached", "n_ranks", "parallel",
)  # fmt: skip
"""Keys of metrics.json."""


@dataclass(frozen=True)
class Trained:
    """A finished training as its files tell it."""

    losses: pd.DataFrame
    """loss.csv."""

    speed: pd.DataFrame
    """speed.csv."""

    metrics: Mapping[str, Any]
    yardsticks: pd.DataFrame
    sine: pd.DataFrame
    """sine.csv; no rows for a base without a damped sine."""

    samples: Sequence[Mapping[str, Any]]

    def rows(self, per: str) -> pd.DataFrame:
        """Rows of loss.csv of one kind: step, evaluation or epoch."""
        return self.losses[self.losses["per"] == per].reset_index(drop=True)

    @property
    def has_best_before_end(self) -> bool:
        """Whether the loss on the validation split rose again after its lowest."""
        return bool(self.metrics["best_step"] < self.metrics["n_steps"])


def read(folder: Path) -> Trained:
    """The training in a run folder.

    Raises:
        OSError: A file is missing.
        ValueError: A file is not what its name says; names the file and what it lacks.
    """
    metrics = _json(folder, "metrics.json", dict)
    _require("metrics.json", METRICS, metrics)
    samples = _json(folder, "samples.json", list)
    for sample in samples:
        _require("samples.json", SAMPLE, sample)
    return Trained(
        losses=_csv(folder, "loss.csv", LOSS),
        speed=_csv(folder, "speed.csv", SPEED),
        metrics=metrics,
        yardsticks=_csv(folder, "yardsticks.csv", YARDSTICKS),
        sine=_csv(folder, "sine.csv", SINE),
        samples=samples,
    )


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
    others = trained.yardsticks[list(YARDSTICKS)].assign(is_network=False)
    table = pd.concat([others, pd.DataFrame([network])], ignore_index=True)
    return table.sort_values("bits_per_byte", kind="stable", ignore_index=True)


def _json(folder: Path, name: str, kind: type) -> Any:
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{name} cannot be read: {error}") from None
    if not isinstance(value, kind):
        raise ValueError(f"{name} must hold a {kind.__name__}, got {type(value).__name__}")
    return value


def _csv(folder: Path, name: str, columns: Sequence[str]) -> pd.DataFrame:
    text = (folder / name).read_text(encoding="utf-8")
    try:
        frame = pd.read_csv(io.StringIO(text))
    except ValueError as error:
        raise ValueError(f"{name} cannot be read: {error}") from None
    _require(name, columns, list(frame.columns))
    return frame


def _require(name: str, wanted: Sequence[str], found: Any) -> None:
    if missing := [key for key in wanted if key not in found]:
        raise ValueError(f"{name} lacks {', '.join(missing)}")
