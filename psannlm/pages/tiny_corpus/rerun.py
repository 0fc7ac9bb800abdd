"""The row of the tiny-corpus page again: the whole training, from the same seed."""

import tempfile
from pathlib import Path

from psannlm.config.training import TrainingConfig
from psannlm.evidence.rows import Row
from psannlm.pages.shootout.comparison import SMALLEST_EFFECT
from psannlm.rerun.asked import RerunRequest
from psannlm.rerun.outcome import Quantity, Repeat
from psannlm.rerun.surroundings import refuse_other_text
from psannlm.train import session
from psannlm.train.distributed import Ranks
from psannlm.train.progress import ProgressBar

SAME = (
    "validation loss: the same to the digit, as the same seed on the same processor and torch gives"
)
NEAR = (
    "validation loss: on another processor, torch or number of threads rounding differs, and one "
    f"seed gives no interval; within {SMALLEST_EFFECT:g} nats per token, the smallest effect that "
    "a shootout calls a difference"
)


def measure_again(row: Row, asked: RerunRequest) -> Repeat:
    """Train again in a temporary folder.

    Args:
        row: Of a run of the tiny corpus.
        asked: Where; a training is made once.

    Raises:
        ConfigError: More repeats are asked for, the text is missing or another one, or a loss is
            not finite.
    """
    asked.refuse_repeats()
    refuse_other_text(row.run)
    config = asked.configuration(TrainingConfig)
    minutes = row.values["train_seconds"] / 60
    asked.say(f"training again, which took {minutes:.0f} min when published")
    with tempfile.TemporaryDirectory(prefix="psannlm-rerun-") as folder:
        ranks = Ranks(0, 1, asked.surroundings.device)
        done = session.train(config, Path(folder, "training"), ranks, watch=ProgressBar())
    return compared(row, done.metrics, same_digits=asked.surroundings.same_digits)


def compared(row: Row, metrics: dict[str, float], *, same_digits: bool) -> Repeat:
    """What the new training's metrics say of the row.

    Args:
        row: As published.
        metrics: Of the new training.
        same_digits: Whether it should have reached the same digits.
    """
    names = {"val_loss": "validation loss, nats/token", "test_loss": "test loss, nats/token"}
    quantities = [
        loss(shown, row.values[name], metrics[name], same_digits=same_digits)
        for name, shown in names.items()
    ]
    speeds = (f"{values['tokens_per_s']:,.0f}" for values in (row.values, metrics))
    quantities.append(Quantity("tokens/s", next(speeds), "shown only", next(speeds), None))
    return Repeat(tuple(quantities), (SAME if same_digits else NEAR,))


def loss(name: str, published: float, measured: float, *, same_digits: bool) -> Quantity:
    """A loss from the same seed: the same to the digit, or else near.

    Args:
        name: With its unit.
        published: As published.
        measured: Of the new training.
        same_digits: Whether it should have reached the same digits.
    """
    if same_digits:
        inside, expected = measured == published, "the same"
    else:
        inside = abs(measured - published) <= SMALLEST_EFFECT
        expected = f"within {SMALLEST_EFFECT:g}"
    return Quantity(name, repr(published), expected, repr(measured), inside)
