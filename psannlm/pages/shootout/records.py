"""What a shootout leaves: a frozen record a training, one an arm of its gates, and their files."""

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from psannlm.evidence.store import (
    RecordStore,
    about,
    columns_of,
    parse_field,
    to_csv,
    types_of,
)
from psannlm.evidence.table import (
    BASE,
    DEVICE,
    PEAK_ALLOCATED_BYTES,
    PEAK_RSS_BYTES,
    REASON,
    STARTED_AT,
    STATUS,
    Column,
    Table,
)

ARM = Column("arm", "Name under which the network is compared.")
SEED = Column("seed", "Seed of the training.", heading="seed")
KEY = Column("key", "Hash of all that decides the result of a training; names its file in cells/.")
D_MLP = Column(
    "d_mlp", "Width of the hidden layer of the MLP.", "features", heading="d_mlp", format=",.0f"
)
N_PARAMETERS = Column(
    "n_parameters", "Parameters of the network.", heading="parameters", format=",.0f"
)
FLOPS_PER_TOKEN = Column(
    "flops_per_token",
    "Matrix products of a training step, causal attention counted as half.",
    "FLOP/token",
)
TRAIN_TOKENS = Column(
    "train_tokens", "Tokens trained on.", "tokens", heading="tokens", format=",.0f"
)
TRAIN_LOSS = Column(
    "train_loss",
    "Training loss, mean of the last epoch.",
    "nats/token",
    heading="training loss",
    format=".4f",
)
TRAIN_SECONDS = Column("train_seconds", "Time of all steps.", "s")
TRAIN_TOKENS_PER_S = Column(
    "train_tokens_per_s",
    "Training speed over the steady steps.",
    "tokens/s",
    heading="tokens/s",
    format=",.0f",
)
OVERHEAD_SECONDS = Column(
    "overhead_seconds",
    "From the start of the process to the end of its first step.",
    "s",
    heading="to the first step",
    format=".1f",
)
VAL_LOSS = Column(
    "val_loss",
    "Loss on the validation split.",
    "nats/token",
    heading="validation loss",
    format=".4f",
)
TEST_LOSS = Column(
    "test_loss", "Loss on the test split.", "nats/token", heading="test loss", format=".4f"
)
LEAK = Column(
    "leak",
    "How far changed tokens move logits before them, over the largest logit.",
    heading="leak",
    format=".1e",
)
SAME_AS = Column("same_as", "Arm that is the same network; empty if none is.")
REFUSED = Column("refused", "Why the arm is not ranked; empty if it is.")


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

    key: Annotated[str, KEY]
    arm: Annotated[str, ARM]
    base: Annotated[str, BASE]
    setting: Annotated[
        Setting,
        about(
            "[learning rate, initial frequency, standard deviation of weights, "
            "what the sine learns]."
        ),
    ]
    seed: Annotated[int, SEED]
    final: Annotated[bool, about("Whether it is compared; only then the test split is evaluated.")]
    status: Annotated[Literal["ok", "failed"], STATUS]
    reason: Annotated[str, REASON]
    started_at: Annotated[str, STARTED_AT]
    device: Annotated[str, DEVICE]
    d_mlp: Annotated[int, D_MLP]
    n_parameters: Annotated[int, N_PARAMETERS]
    flops_per_token: Annotated[int, FLOPS_PER_TOKEN]
    n_steps: Annotated[int | None, about("Updates of the optimizer.")] = None
    train_tokens: Annotated[int | None, TRAIN_TOKENS] = None
    train_loss: Annotated[float | None, TRAIN_LOSS] = None
    train_seconds: Annotated[float | None, TRAIN_SECONDS] = None
    train_tokens_per_s: Annotated[float | None, TRAIN_TOKENS_PER_S] = None
    overhead_seconds: Annotated[float | None, OVERHEAD_SECONDS] = None
    compiled: Annotated[bool | None, about("Whether the step was compiled.")] = None
    peak_allocated_bytes: Annotated[int | None, PEAK_ALLOCATED_BYTES] = None
    peak_rss_bytes: Annotated[int | None, PEAK_RSS_BYTES] = None
    val_loss: Annotated[float | None, VAL_LOSS] = None
    val_top1: Annotated[
        float | None,
        about("Share of tokens of the validation split that were the likeliest to the network."),
    ] = None
    val_tokens: Annotated[int | None, about("Tokens of the validation split.", "tokens")] = None
    val_bytes: Annotated[int | None, about("Bytes of the validation split.", "bytes")] = None
    test_loss: Annotated[float | None, TEST_LOSS] = None
    test_top1: Annotated[
        float | None,
        about("Share of tokens of the test split that were the likeliest to the network."),
    ] = None
    test_tokens: Annotated[int | None, about("Tokens of the test split.", "tokens")] = None
    test_bytes: Annotated[int | None, about("Bytes of the test split.", "bytes")] = None
    leak: Annotated[float | None, LEAK] = None
    curve: Annotated[
        tuple[Point, ...],
        about(
            "Evaluations on the way, each [step, tokens, seconds, validation loss in nats/token]."
        ),
    ] = ()
    documents: Annotated[
        tuple[DocumentLoss, ...], about("Validation documents in order, each [nats, tokens].")
    ] = ()
    learned: Annotated[
        tuple[Learned, ...],
        about("Nonlinearities, each [layer, part, mean before, mean after, 5%, 95% of features]."),
    ] = ()
    scores: Annotated[
        tuple[Score, ...],
        about(
            "Tasks of lm-eval, each [task, metric, value, standard error, items, chance, "
            "of each item]."
        ),
    ] = ()

    def as_json(self) -> str:
        """For the file of this training."""
        return json.dumps(dataclasses.asdict(self) | _lists(self), allow_nan=False) + "\n"


@dataclass(frozen=True)
class Gate:
    """What the gates found of one arm."""

    arm: Annotated[str, ARM]
    leak: Annotated[float, LEAK]
    """Of the network with noisy parameters or of a finished training, whichever comes nearest to
    its bound."""

    bound: Annotated[float, about("The most that the leak may be.")]
    nearest: Annotated[str, about("The other arm whose logits are nearest.")]
    """With equal seeds; empty if there is no other."""

    distance: Annotated[
        float,
        about("Norm of the difference of its logits to the nearest arm's, over their norm."),
    ]
    same_as: Annotated[str, SAME_AS]
    """The first such arm, in the order of arms; empty if it is the first itself."""

    refused: Annotated[str, REFUSED]

    @property
    def key(self) -> str:
        """Names the record within its run."""
        return f"gate of {self.arm}"


ShootoutRecord = TrainingRecord | Gate

TUPLES: Mapping[str, type[Any]] = {
    "curve": Point,
    "documents": DocumentLoss,
    "learned": Learned,
    "scores": Score,
}
"""Fields that hold rows, and what a row is."""

PREFIX = "cells/"
CELLS = Table(
    f"{PREFIX}*.json", "Record of one training, tunings and controls too.",
    columns_of(TrainingRecord),
)  # fmt: skip
GATES = Table(
    "gates.csv", "One row an arm, what it must pass before it is ranked.", columns_of(Gate)
)


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


def trainings_of(records: Sequence[ShootoutRecord]) -> list[TrainingRecord]:
    """The trainings among the records of a run, in the order of their files."""
    found = [record for record in records if isinstance(record, TrainingRecord)]
    return sorted(found, key=lambda record: record.key)


def gates_of(records: Sequence[ShootoutRecord]) -> list[Gate]:
    """What the gates found, among the records of a run."""
    return [record for record in records if isinstance(record, Gate)]


def to_texts(records: Sequence[ShootoutRecord]) -> dict[str, str]:
    """A file a training, and one of all gates once they have examined the networks."""
    texts = {f"{PREFIX}{record.key}.json": record.as_json() for record in trainings_of(records)}
    if gates := gates_of(records):
        texts[GATES.file] = to_csv(GATES.names, map(dataclasses.astuple, gates))
    return texts


def from_texts(texts: Mapping[str, str]) -> list[ShootoutRecord]:
    """The records whose files these are.

    Raises:
        TypeError: A field is missing or unknown.
        ValueError: A number is none.
    """
    found: list[ShootoutRecord] = [
        from_json(text) for name, text in texts.items() if name != GATES.file
    ]
    kinds = types_of(Gate)
    for row in csv.DictReader(io.StringIO(texts.get(GATES.file, ""))):
        found.append(Gate(**{name: parse_field(kinds[name], text) for name, text in row.items()}))
    return found


def label(record: ShootoutRecord) -> str:
    """What the progress bar calls a training that has ended."""
    if isinstance(record, Gate):
        return "gates"
    outcome = record.status if record.val_loss is None else f"{record.val_loss:.3f}"
    return f"{record.arm}, seed {record.seed}: {outcome}"


STORE: RecordStore[ShootoutRecord] = RecordStore(
    (CELLS, GATES), to_texts, from_texts, label, unit="training", prefix=PREFIX
)


def _lists(record: TrainingRecord) -> dict[str, Any]:
    """Rows as lists: `asdict` would keep their names once a row."""
    rows = {name: [list(row) for row in getattr(record, name)] for name in TUPLES}
    return rows | {"setting": list(record.setting)}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
