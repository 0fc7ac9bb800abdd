"""A training notes each step once, knows its best evaluation, and ends where one is no number."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from psannlm.train import recorder as recorder_module
from psannlm.train.distributed import Ranks
from psannlm.train.evaluation import Evaluation
from psannlm.train.journal import Journal
from psannlm.train.optimizer import rate_at
from psannlm.train.plan import Plan
from psannlm.train.recorder import CUDA_PATIENCE, DivergenceError, Progress, Recorder, Tally
from tests.tiny_trainings import ALONE, training_config

PLAN = Plan(
    n_steps=10,
    n_windows=20,
    context_length=16,
    batch_sequences=4,
    pass_sequences=4,
    n_passes=1,
    evaluations=frozenset({5, 10}),
    epoch_ends={5: 1, 10: 2},
    checkpoint_steps=5,
)


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(recorder_module, "time", clock)
    return clock


def recorder(
    folder: Path, *, ranks: Ranks = ALONE, tally: Tally | None = None, **options: Any
) -> Recorder:
    return Recorder(
        training_config(**options.pop("config", {})),
        PLAN,
        ranks,
        tally or Tally(),
        Journal(folder),
        flop_per_token=options.pop("flop_per_token", 1000.0),
        ceiling=options.pop("ceiling", None),
        watch=options.pop("watch", lambda _: None),
        looked_at=100.0,
    )


def note(
    recorder: Recorder, step: int, loss: float, norm: float = 1.0, waited: float = 0.0
) -> None:
    recorder.add(step, torch.tensor(loss), torch.tensor(norm), waited)
    recorder.look()


def evaluation(loss: float) -> Evaluation:
    return Evaluation(loss=loss, top1=0.25, n_tokens=100, n_bytes=300)


def rows(folder: Path, per: str | None = None, name: str = "loss.csv") -> list[dict[str, str]]:
    with (folder / name).open(newline="") as lines:
        return [row for row in csv.DictReader(lines) if per in (None, row.get("per"))]


def test_a_step_is_logged_with_all_that_is_known_of_it(tmp_path, clock) -> None:
    noted = recorder(tmp_path)
    clock.now += 2.0

    note(noted, 3, 1.5, norm=0.75, waited=0.125)

    [row] = rows(tmp_path)
    assert row == {
        "per": "step", "step": "3", "epoch": "0.6", "tokens": "192", "train_loss": "1.5",
        "val_loss": "", "bits_per_byte": "", "perplexity": "", "top1": "",
        "learning_rate": repr(rate_at(3, 10, training_config())), "grad_norm": "0.75",
    }  # fmt: skip
    assert rows(tmp_path, name="speed.csv") == [
        {"step": "3", "step_seconds": "2.0", "wait_seconds": "0.125", "elapsed_seconds": "2.0"}
    ]


def test_steps_between_two_looks_share_their_time(tmp_path, clock) -> None:
    noted = recorder(tmp_path)
    for step in (1, 2, 3, 4):
        noted.add(step, torch.tensor(1.0), torch.tensor(1.0), 0.0)
    clock.now += 2.0

    noted.look()
    noted.look()  # nothing is left to log

    speed = rows(tmp_path, name="speed.csv")
    assert [row["step_seconds"] for row in speed] == ["0.5"] * 4
    assert [row["elapsed_seconds"] for row in speed] == ["0.5", "1.0", "1.5", "2.0"]


def test_a_cpu_is_looked_at_every_step_and_a_gpu_every_few(tmp_path) -> None:
    host, gpu = (recorder(tmp_path, ranks=Ranks(0, 1, torch.device(d))) for d in ("cpu", "cuda"))

    gpu.add(1, torch.tensor(1.0), torch.tensor(1.0), 0.0)
    assert gpu.is_due  # what compiles is told apart
    gpu.pending = [(1, torch.tensor(1.0), torch.tensor(1.0), 0.0)]
    gpu.look()
    for step in range(2, CUDA_PATIENCE + 2):
        assert not gpu.is_due
        gpu.add(step, torch.tensor(1.0), torch.tensor(1.0), 0.0)

    assert gpu.is_due
    assert not host.is_due
    host.add(1, torch.tensor(1.0), torch.tensor(1.0), 0.0)
    assert host.is_due


def test_time_of_evaluations_is_spent_but_on_no_step(tmp_path, clock) -> None:
    noted = recorder(tmp_path)
    clock.now += 1.0
    note(noted, 5, 2.0)
    clock.now += 7.0
    noted.evaluated(5, evaluation(2.0))
    assert noted.tally.elapsed_seconds == 8.0
    clock.now += 0.5
    noted.rest()
    clock.now += 1.0

    note(noted, 6, 2.0)

    last = rows(tmp_path, name="speed.csv")[-1]
    assert (last["step_seconds"], last["elapsed_seconds"]) == ("1.0", "9.5")
    assert noted.tally.elapsed_seconds == 9.5


def test_an_evaluation_is_logged_and_the_lowest_loss_remembered(tmp_path) -> None:
    noted = recorder(tmp_path)

    for step, loss in ((2, 3.0), (5, 1.5), (7, 1.5), (10, 2.0)):
        note(noted, step, 4.0)
        noted.evaluated(step, evaluation(loss))

    assert (noted.tally.best_step, noted.tally.best_loss) == (5, 1.5)
    first = rows(tmp_path, "evaluation")[0]
    found = evaluation(3.0)
    assert [float(first[name]) for name in ("val_loss", "bits_per_byte", "perplexity", "top1")] == [
        3.0, found.bits_per_byte, found.perplexity, 0.25,
    ]  # fmt: skip
    assert first["train_loss"] == first["learning_rate"] == ""


def test_an_epochs_loss_is_the_mean_of_its_own_steps(tmp_path) -> None:
    noted = recorder(tmp_path)
    for step in range(1, 11):
        note(noted, step, float(step))
        if PLAN.evaluates(step):
            noted.evaluated(step, evaluation(1.0))

    epochs = [(row["epoch"], float(row["train_loss"])) for row in rows(tmp_path, "epoch")]
    assert epochs == [("1", 3.0), ("2", 8.0)]


def test_sums_go_on_from_those_of_a_checkpoint(tmp_path, clock) -> None:
    tally = Tally(
        step=4, epoch_loss=10.0, epoch_steps=4, elapsed_seconds=8.0, best_loss=1.0, best_step=2
    )
    noted = recorder(tmp_path, tally=tally)
    clock.now += 2.0

    note(noted, 5, 5.0)
    noted.evaluated(5, evaluation(1.25))

    [epoch] = rows(tmp_path, "epoch")
    assert float(epoch["train_loss"]) == 3.0
    assert rows(tmp_path, name="speed.csv")[0]["elapsed_seconds"] == "10.0"
    assert (noted.tally.step, noted.tally.best_step, noted.tally.best_loss) == (5, 2, 1.0)


class Doubled(Ranks):
    """Two ranks of which the other always has three times the loss."""

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return 4 * values


def test_the_loss_is_the_mean_of_ranks_of_which_the_first_alone_speaks_and_writes(tmp_path) -> None:
    told: list[Progress] = []
    other = recorder(tmp_path, ranks=Doubled(1, 2, torch.device("cpu")), watch=told.append)
    other.journal = None

    note(other, 1, 1.5)

    assert told == rows(tmp_path) == []
    assert other.tally.epoch_loss == 3.0


def test_the_watcher_is_told_speed_share_of_the_ceiling_and_time_left(tmp_path, clock) -> None:
    told: list[Progress] = []
    noted = recorder(
        tmp_path, watch=told.append, ceiling=64000.0, tally=Tally(step=3, elapsed_seconds=6.0)
    )
    clock.now += 2.0

    note(noted, 4, 1.5)
    clock.now += 2.0

    # 128 tokens in 2 s; 4 steps in 8 s leave 12 s for the other 6.
    assert told == [Progress(4, 10, 1.5, tokens_per_s=64.0, mfu=1.0, seconds_left=12.0)]
    noted.ceiling = None
    note(noted, 5, 1.5)
    assert told[1].mfu is None


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_its_step_and_the_learning_rate(tmp_path, loss) -> None:
    noted = recorder(tmp_path, config={"learning_rate": 0.5, "warmup_fraction": 0})
    for step, norm in ((1, 1.0), (2, 2.0), (3, 70.0)):
        note(noted, step, 2.0, norm)

    message = (
        f"loss is {loss} at step 4 of 10: over the 3 steps before, gradient norms had a median of "
        rf"2 and went up to 70 at a learning rate of {rate_at(4, 10, noted.config):.3g}; "
        "lower learning_rate, or raise warmup_fraction"
    )
    with pytest.raises(DivergenceError, match=f"^{message}$"):
        note(noted, 4, loss)


@pytest.mark.parametrize(
    ("config", "before", "loss", "norm", "message"),
    [
        ({}, 1, 2.0, math.nan, "the gradient norm is nan at step 2 of 10: over the"),
        (
            {"init_std": 9.0, "sine_amplitude": 5.0}, 0, math.nan, 1.0,
            "loss is nan at step 1 of 10: the network overflows before it has learned anything; "
            r"lower init_std \(now 9\.0\) or sine_amplitude \(now 5\.0\)",
        ),
        ({"precision": "fp16"}, 0, math.inf, 1.0, "fp16 has overflowed; use precision: bf16"),
        ({"precision": "fp16"}, 3, math.inf, 1.0, "fp16 has overflowed; use precision: bf16"),
    ],
)  # fmt: skip
def test_what_is_no_number_ends_a_training_and_its_likely_cause_is_named(
    tmp_path, config, before: int, loss: float, norm: float, message: str
) -> None:
    noted = recorder(tmp_path, config=config)
    for step in range(1, before + 1):
        note(noted, step, 2.0)

    with pytest.raises(DivergenceError, match=message):
        note(noted, before + 1, loss, norm)


def test_a_step_that_fp16_leaves_out_is_no_divergence(tmp_path) -> None:
    noted = recorder(tmp_path, config={"precision": "fp16"})

    note(noted, 1, 2.0, norm=math.inf)

    assert rows(tmp_path)[0]["grad_norm"] == "inf"


def test_an_evaluation_that_is_no_number_ends_the_training_and_is_not_the_best(tmp_path) -> None:
    noted = recorder(tmp_path)
    note(noted, 5, 2.0)

    with pytest.raises(DivergenceError, match="validation loss is nan at step 5 of 10"):
        noted.evaluated(5, evaluation(math.nan))

    assert noted.tally.best_step is None


def test_a_step_that_is_no_number_is_found_among_those_of_one_look(tmp_path) -> None:
    noted = recorder(tmp_path, ranks=ALONE)
    for step, loss in ((1, 2.0), (2, 2.0), (3, math.nan), (4, math.nan)):
        noted.add(step, torch.tensor(loss), torch.tensor(1.0), 0.0)

    with pytest.raises(DivergenceError, match="loss is nan at step 3 of 10: over the 2 steps"):
        noted.look()

    assert [row["step"] for row in rows(tmp_path)] == ["1", "2", "3"]
