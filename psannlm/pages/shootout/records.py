"""What one training of a shootout leaves: a frozen record, and the JSON that keeps it."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple


class Setting(NamedTuple):
    """What a tuning chooses, and what controls vary; the rest of a training is the run's."""

    learning_rate: float
    sine_frequency: float
    """Initial f; idle in arms without one."""

    init_std: float
    learnable: tuple[str, ...]
    """Parameters of the damped sine that learn; idle in arms without one."""


class Point(NamedTuple):
    """An evaluation on the whole validation split, on the way."""

    step: int
    tokens: int
    """Trained on so far."""

    seconds: float
    """Of all steps so far; evaluations and checkpoints are not counted."""

    val_loss: float


class DocumentLoss(NamedTuple):
    """How well the finished network predicts one document."""

    nats: float
    n_tokens: int


class Learned(NamedTuple):
    """One parameter of the nonlinearities of a layer, over their features, before and after."""

    layer: str
    part: str
    """amplitude, frequency or decay."""

    before: float
    """Mean."""

    after: float
    """Mean."""

    low: float
    """5% of the features lie below, after."""

    high: float
    """5% lie above."""


class Score(NamedTuple):
    """Result of a task of lm-eval."""

    task: str
    metric: str
    value: float
    stderr: float | None
    n_items: int
    chance: float | None
    """Of a blind guess; None where guessing gets nowhere."""

    items: tuple[float, ...]
    """Of each item, in the task's order, where the metric is a mean over items."""


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """One network trained from its first step to its last in one process; a failure is one too.

    What is unknown, or was not asked for, is None or empty.
    """

    key: str
    """Hash of everything that decides the result; names the training within its run."""

    arm: str
    base: str
    setting: Setting
    seed: int
    final: bool
    """Whether it is one of those that are compared: only these are evaluated on the test split."""

    status: Literal["ok", "failed"]
    reason: str
    """Why it failed; empty otherwise."""

    started_at: str
    """UTC."""

    device: str
    d_mlp: int
    n_parameters: int
    flops_per_token: int
    """Of a training step, matrix products only, causal attention counted as half."""

    n_steps: int | None = None
    train_tokens: int | None = None
    train_loss: float | None = None
    """Mean of the last epoch's steps, nats per token."""

    train_seconds: float | None = None
    """Of all steps."""

    train_tokens_per_s: float | None = None
    """Over the steady steps, by the rule of train/journal.py."""

    overhead_seconds: float | None = None
    """From the start of the process to the end of its first step."""

    compiled: bool | None = None
    peak_allocated_bytes: int | None = None
    """CUDA only."""

    peak_rss_bytes: int | None = None
    val_loss: float | None = None
    """Nats per token, as all losses here."""

    val_top1: float | None = None
    val_tokens: int | None = None
    val_bytes: int | None = None
    test_loss: float | None = None
    test_top1: float | None = None
    test_tokens: int | None = None
    test_bytes: int | None = None
    leak: float | None = None
    """How far changed tokens move logits before them in the trained network, over the largest
    logit."""

    curve: tuple[Point, ...] = ()
    documents: tuple[DocumentLoss, ...] = ()
    """Of the validation split, in its order."""

    learned: tuple[Learned, ...] = ()
    scores: tuple[Score, ...] = ()

    def as_json(self) -> str:
        """For the file of this training."""
        return json.dumps(dataclasses.asdict(self) | _lists(self), allow_nan=False) + "\n"


TUPLES: Mapping[str, type[Any]] = {
    "curve": Point,
    "documents": DocumentLoss,
    "learned": Learned,
    "scores": Score,
}
"""Fields that hold rows, and what a row is."""


def from_json(text: str) -> TrainingRecord:
    """The record that `as_json` wrote.

    Raises:
        TypeError: A field is missing or unknown.
    """
    values = json.loads(text)
    rows = {
        name: tuple(kind(*(_tuple(v) for v in row)) for row in values[name])
        for name, kind in TUPLES.items()
    }
    setting = Setting(*(_tuple(v) for v in values["setting"]))
    return TrainingRecord(**values | rows | {"setting": setting})


def _lists(record: TrainingRecord) -> dict[str, Any]:
    """Rows as lists: `asdict` would keep their names once a row."""
    rows = {name: [list(row) for row in getattr(record, name)] for name in TUPLES}
    return rows | {"setting": list(record.setting)}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
