"""What a shootout is asked to do and what it leaves: a record a training, one an arm of its gates.

An arm is a name under which a network is compared: a base, or a nonlinearity of the base
`transformer`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import ConfigDict, TypeAdapter

from psannlm.config import schema
from psannlm.config.schema import AnyOf, Count, OneOrMore, Positive, Processes, Rule, Seed, Text
from psannlm.config.training import TrainingSettings
from psannlm.evidence import store, table
from psannlm.evidence.store import about, columns_of, of_type
from psannlm.evidence.table import Column, Table
from psannlm.train.recorder import Document

ARM = Column("arm", "Name under which the network is compared.")
SEED = Column("seed", "Seed of the training.", heading="seed")
KEY = Column("key", "Hash of all that decides the result of a training; names its file in cells/.")
D_MLP = Column("d_mlp", "Width of the hidden layer of the MLP.", "features", "d_mlp", ",.0f")
N_PARAMETERS = Column("n_parameters", "Parameters of the network.", "", "parameters", ",.0f")
FLOPS_PER_TOKEN = Column(
    "flops_per_token", "Matrix products of a training step, causal attention counted as half.",
    "FLOP/token",
)  # fmt: skip
TRAIN_TOKENS = Column("train_tokens", "Tokens trained on.", "tokens", "tokens", ",.0f")
TRAIN_LOSS = Column(
    "train_loss", "Training loss, mean of the last epoch.", "nats/token", "training loss", ".4f"
)
TRAIN_SECONDS = Column("train_seconds", "Time of all steps.", "s")
TRAIN_TOKENS_PER_S = Column(
    "train_tokens_per_s", "Training speed over the steady steps.", "tokens/s", "tokens/s", ",.0f"
)
OVERHEAD_SECONDS = Column(
    "overhead_seconds", "From the start of the process to the end of its first step.", "s",
    "to the first step", ".1f",
)  # fmt: skip
VAL_LOSS = Column(
    "val_loss", "Loss on the validation split.", "nats/token", "validation loss", ".4f"
)
TEST_LOSS = Column("test_loss", "Loss on the test split.", "nats/token", "test loss", ".4f")
LEAK = Column(
    "leak", "How far changed tokens move logits before them, over the largest logit.",
    heading="leak", format=".1e",
)  # fmt: skip
SAME_AS = Column("same_as", "Arm that is the same network; empty if none is.")
REFUSED = Column("refused", "Why the arm is not ranked; empty if it is.")
TOP1 = "Share of tokens of the {} split that were the likeliest to the network."


class ShootoutConfig(TrainingSettings):
    """Everything that notebooks/shootout.ipynb may vary."""

    base: AnyOf[Text]  # arms; none named means all there are
    baseline: Text  # the arm that differences are taken against
    match: Literal["parameters", "width"]  # what arms share: the baseline's size, or its d_mlp
    learning_rates: OneOrMore[Positive]  # grid of arms whose nonlinearity has no frequency
    scaled_learning_rates: OneOrMore[Positive]  # grid, with the next, of those with an initial f
    scaled_frequencies: OneOrMore[Positive]
    tuning_seed: Seed  # of every tuning; none of `seeds`: no published training was chosen by
    seeds: OneOrMore[Seed]  # of weights and the order of text; the same for all arms
    side_seeds: Count  # how many of them the ablation and the scales take, from the first on
    ablation: AnyOf[Text]  # arms with a damped sine: every subset of what it learns is trained
    scales: AnyOf[Positive]  # initial scales: f where there is one, else factors of init_std
    scale_arms: AnyOf[Text]  # arms that are trained at every scale
    cells_at_once: Processes  # trainings at a time; 0 is one a GPU, or one
    scheduler: str  # address of a dask scheduler whose workers train; empty for this machine
    timeout_seconds: Positive  # a longer training is stopped and becomes a row that says so
    with_lm_eval: bool
    lm_eval_tasks: AnyOf[Text]
    lm_eval_limit: Count  # items of each task
    lm_eval_folder: schema.OptionalFile  # of task definitions of one's own, instead of lm-eval's

    rules: ClassVar[tuple[Rule, ...]] = (
        *TrainingSettings.rules,
        Rule(
            ("learning_rates", "scaled_learning_rates", "scaled_frequencies"),
            lambda plain, scaled, frequencies: len(plain) == len(scaled) * len(frequencies),
            "every arm must be tuned with as many settings: learning_rates ({}) must be as many as "
            "scaled_learning_rates ({}) times scaled_frequencies ({})",
        ),
        Rule(
            ("tuning_seed", "seeds"),
            lambda one, seeds: one not in seeds,
            "tuning_seed must be none of seeds, got {} and {}",
        ),
        Rule(
            ("side_seeds", "seeds"),
            lambda n, seeds: n <= len(seeds),
            "side_seeds must be at most the number of seeds, got {} and {}",
        ),
    )


class Setting(NamedTuple):
    """What a tuning chooses, and what controls vary; the rest of a training is the run's."""

    learning_rate: float
    sine_frequency: float  # initial f; idle in arms without one
    init_std: float
    learnable: tuple[str, ...]  # parameters of the damped sine that learn; idle without one


class Point(NamedTuple):
    """An evaluation on the whole validation split, on the way."""

    step: int
    tokens: int  # trained on so far
    seconds: float  # of all steps so far; evaluations and checkpoints are not counted
    val_loss: float


class Learned(NamedTuple):
    """One parameter of the nonlinearities of a layer, over their features, before and after."""

    layer: str
    part: str  # amplitude, frequency or decay
    before: float  # mean
    after: float  # mean
    low: float  # 5% of the features lie below, after
    high: float  # 5% lie above


class Score(NamedTuple):
    """Result of a task of lm-eval."""

    task: str
    metric: str
    value: float
    stderr: float | None
    n_items: int
    chance: float | None  # of a blind guess; None where guessing gets nowhere
    items: tuple[float, ...]  # of each, in the task's order, where the metric is their mean


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """One network trained from its first step to its last in one process; a failure is one too.

    What is unknown, or was not asked for, is None or empty.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    key: Annotated[str, KEY]
    arm: Annotated[str, ARM]
    base: Annotated[str, table.BASE]
    setting: Annotated[Setting, about(
        "[learning rate, initial frequency, standard deviation of weights, what the sine learns]."
    )]  # fmt: skip
    seed: Annotated[int, SEED]
    final: Annotated[bool, about("Whether it is compared; only then the test split is evaluated.")]
    status: Annotated[Literal["ok", "failed"], table.STATUS]
    reason: Annotated[str, table.REASON]
    started_at: Annotated[str, table.STARTED_AT]
    device: Annotated[str, table.DEVICE]
    d_mlp: Annotated[int, D_MLP]
    n_parameters: Annotated[int, N_PARAMETERS]
    flops_per_token: Annotated[int, FLOPS_PER_TOKEN]
    n_steps: Annotated[int | None, about("Updates of the optimizer.")] = None
    train_tokens: Annotated[int | None, TRAIN_TOKENS] = None
    train_loss: Annotated[float | None, TRAIN_LOSS] = None
    train_seconds: Annotated[float | None, TRAIN_SECONDS] = None
    train_tokens_per_s: Annotated[float | None, TRAIN_TOKENS_PER_S] = None
    overhead_seconds: Annotated[float | None, OVERHEAD_SECONDS] = None
    compiled: Annotated[bool | None, table.COMPILED] = None
    frames: Annotated[int | None, table.FRAMES] = None
    graph_breaks: Annotated[int | None, table.GRAPH_BREAKS] = None
    eager: Annotated[str | None, table.EAGER] = None
    peak_allocated_bytes: Annotated[int | None, table.PEAK_ALLOCATED_BYTES] = None
    peak_rss_bytes: Annotated[int | None, table.PEAK_RSS_BYTES] = None
    val_loss: Annotated[float | None, VAL_LOSS] = None
    val_top1: Annotated[float | None, about(TOP1.format("validation"))] = None
    val_tokens: Annotated[int | None, about("Tokens of the validation split.", "tokens")] = None
    val_bytes: Annotated[int | None, about("Bytes of the validation split.", "bytes")] = None
    test_loss: Annotated[float | None, TEST_LOSS] = None
    test_top1: Annotated[float | None, about(TOP1.format("test"))] = None
    test_tokens: Annotated[int | None, about("Tokens of the test split.", "tokens")] = None
    test_bytes: Annotated[int | None, about("Bytes of the test split.", "bytes")] = None
    leak: Annotated[float | None, LEAK] = None
    curve: Annotated[tuple[Point, ...], about(
        "Evaluations on the way, each [step, tokens, seconds, validation loss in nats/token]."
    )] = ()  # fmt: skip
    documents: Annotated[
        tuple[Document, ...], about("Validation documents in order, each [nats, tokens].")
    ] = ()
    learned: Annotated[tuple[Learned, ...], about(
        "Nonlinearities, each [layer, part, mean before, mean after, 5%, 95% of features]."
    )] = ()  # fmt: skip
    scores: Annotated[tuple[Score, ...], about(
        "Tasks of lm-eval, each [task, metric, value, standard error, items, chance, of each item]."
    )] = ()  # fmt: skip

    def as_json(self) -> str:
        """For the file of this training; raises ValueError for a number that is not finite."""
        return json.dumps(vars(self), allow_nan=False) + "\n"


@dataclass(frozen=True)
class Gate:
    """What the gates found of one arm."""

    arm: Annotated[str, ARM]
    leak: Annotated[float, LEAK]  # with noisy parameters or as trained: the nearest to its bound
    bound: Annotated[float, about("The most that the leak may be.")]
    nearest: Annotated[str, about("The other arm whose logits are nearest.")]  # with equal seeds
    distance: Annotated[float, about(
        "Norm of the difference of its logits to the nearest arm's, over their norm."
    )]  # fmt: skip
    same_as: Annotated[str, SAME_AS]  # the first such arm; empty if it is the first itself
    refused: Annotated[str, REFUSED]

    @property
    def key(self) -> str:
        """Names the record within its run."""
        return f"gate of {self.arm}"


ShootoutRecord = TrainingRecord | Gate

PREFIX = "cells/"
CELLS = Table(
    "cells/*.json", "Record of one training, tunings and controls too.", columns_of(TrainingRecord)
)
GATES = Table(
    "gates.csv", "One row an arm, what it must pass before it is ranked.", columns_of(Gate)
)

from_json = TypeAdapter(TrainingRecord).validate_json
"""The record that `as_json` wrote; ValueError if a field is missing, unknown or of another type."""


def split(records: Sequence[ShootoutRecord]) -> tuple[list[TrainingRecord], list[Gate]]:
    """The trainings in the order of their files, and what the gates found."""
    trainings = sorted(of_type(TrainingRecord, records), key=lambda record: record.key)
    return trainings, of_type(Gate, records)


def to_texts(records: Sequence[ShootoutRecord]) -> dict[str, str]:
    """A file a training, and one of all gates once they have examined the networks."""
    trainings, gates = split(records)
    texts = {f"{PREFIX}{record.key}.json": record.as_json() for record in trainings}
    if gates:
        texts[GATES.file] = store.records_csv(GATES, gates)
    return texts


def from_texts(texts: Mapping[str, str]) -> list[ShootoutRecord]:
    """The records whose files these are; errors as of `from_json`."""
    trainings = [from_json(text) for name, text in texts.items() if name != GATES.file]
    gates = store.fields_of_csv(Gate, texts.get(GATES.file, ""))
    return [*trainings, *(Gate(**row) for row in gates)]


def label(record: ShootoutRecord) -> str:
    """What the progress bar calls a training that has ended."""
    if isinstance(record, Gate):
        return "gates"
    outcome = record.status if record.val_loss is None else f"{record.val_loss:.3f}"
    return f"{record.arm}, seed {record.seed}: {outcome}"


STORE: store.RecordStore[ShootoutRecord] = store.RecordStore(
    (CELLS, GATES), to_texts, from_texts, label, unit="training", prefix=PREFIX
)
