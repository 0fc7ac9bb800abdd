"""The log of a training: loss.csv and speed.csv, a row as soon as it is known.

loss.csv holds what a repetition must reproduce to the last digit; speed.csv what it cannot.
"""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

LOSS = (
    "per", "step", "epoch", "tokens", "train_loss", "val_loss", "bits_per_byte", "perplexity",
    "top1", "learning_rate", "grad_norm",
)  # fmt: skip
"""Columns of loss.csv; `per` is step, evaluation or epoch, and tells which fields a row fills."""

SPEED = ("step", "step_seconds", "wait_seconds", "elapsed_seconds")
"""Columns of speed.csv; a step's seconds contain its wait for data, elapsed ones everything."""

FILES = {"loss.csv": LOSS, "speed.csv": SPEED}

UNSTEADY_SHARE = 0.1
"""Share of the steps, from the first on, in which compilation and warm-up fall."""


class Journal:
    """The two files below `folder`, appended to.

    Args:
        folder: Of the training.
        lengths: Bytes of each file that hold good, from the checkpoint that the training goes on
            from; what was written after it is cut off. None begins both anew.
    """

    def __init__(self, folder: Path, lengths: Mapping[str, int] | None = None) -> None:
        self.folder = folder
        for name, columns in FILES.items():
            with (folder / name).open("r+b" if lengths else "wb") as file:
                if lengths:
                    file.truncate(lengths[name])
                else:
                    file.write((",".join(columns) + "\n").encode())

    def add(self, name: str, row: Mapping[str, Any]) -> None:
        """Append one row to `loss.csv` or `speed.csv`; columns not given stay empty."""
        line = io.StringIO()
        csv.DictWriter(line, FILES[name], lineterminator="\n").writerow(row)
        with (self.folder / name).open("ab") as file:
            file.write(line.getvalue().encode())

    def lengths(self) -> dict[str, int]:
        """Bytes of each file, once they are safe on disk: what a checkpoint remembers."""
        found = {}
        for name in FILES:
            with (self.folder / name).open("rb") as file:
                os.fsync(file.fileno())
                found[name] = os.fstat(file.fileno()).st_size
        return found


def tokens_per_s(speed: pd.DataFrame, batch_tokens: int) -> float:
    """Tokens of a step over the median time of the steady steps of speed.csv.

    Steady are all steps but the first tenth, in which compilation and warm-up fall. The median
    leaves aside the few that an interruption or a neighbour made long.
    """
    steady = speed["step_seconds"].iloc[int(UNSTEADY_SHARE * len(speed)) :]
    return batch_tokens / float(steady.median())


def wait_share(speed: pd.DataFrame) -> float:
    """Share of the time of all steps of speed.csv in which they waited for data."""
    return float(speed["wait_seconds"].sum() / speed["step_seconds"].sum())
