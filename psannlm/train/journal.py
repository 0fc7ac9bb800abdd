"""The log of a training: loss.csv and speed.csv, a row as soon as it is known.

What follows from its columns is defined here once, for those who write and those who check.
loss.csv holds what a repetition must reproduce to the last digit; speed.csv what it cannot.
"""

import csv
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from psannlm.config.schema import ConfigError
from psannlm.files import writing

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


def perplexity(loss: float) -> float:
    """exp(loss), of a loss in nats per token; infinite where a float cannot hold it."""
    return math.exp(loss) if loss < math.log(sys.float_info.max) else math.inf


def bits_per_byte(loss: float, bytes_per_token: float) -> float:
    """Loss / ln 2 / bytes per token: comparable between tokenizers, and with compressors."""
    return loss / math.log(2) / bytes_per_token


def tokens_per_s(speed: pd.DataFrame, batch_tokens: int) -> float:
    """Tokens of a step over the median time of the steady steps of speed.csv."""
    # The median leaves aside the few that an interruption or a neighbour made long.
    steady = speed["step_seconds"].iloc[int(UNSTEADY_SHARE * len(speed)) :]
    return batch_tokens / float(steady.median())


def wait_share(speed: pd.DataFrame) -> float:
    """Share of the time of all steps of speed.csv in which they waited for data."""
    return float(speed["wait_seconds"].sum() / speed["step_seconds"].sum())
