"""A training notes each step once, in rows that outlive a kill, and ends where one is no number."""

import errno
import io
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from psannlm.config.schema import ConfigError
from psannlm.train import recorder as module
from psannlm.train.distributed import Ranks
from psannlm.train.plan import Plan, rate_at
from psannlm.train.recorder import (
    FILES,
    LOSS,
    DivergenceError,
    Evaluation,
    Journal,
    Progress,
    Recorder,
    Tally,
)
from tests.tiny_trainings import ALONE, column, rows, training_config

PLAN = Plan(
    n_steps=10, n_windows=20, context_length=16, batch_sequences=4, pass_sequences=4, n_passes=1,
    evaluations=frozenset({5, 10}), epoch_ends={5: 1, 10: 2}, checkpoint_steps=5,
)  # fmt: skip
ONE = torch.tensor(1.0)


class Clock:
    """Time that passes only when told to."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def recorder(
    folder: Path, ranks: Ranks = ALONE, config: dict[str, Any] | None = None, **options: Any
) -> Recorder:
    given = {"tally": Tally(), "journal": Journal(folder), "ceiling": None, "watch": lambda _: None}
    constants = {"flop_per_token": 1000.0, "looked_at": 100.0}
    return Recorder(training_config(**config or {}), PLAN, ranks, **given | options, **constants)


def note(
    recorder: Recorder, step: int, loss: float, norm: float = 1.0, waited: float = 0.0
) -> None:
    recorder.add(step, torch.tensor(loss), torch.tensor(norm), waited)
    recorder.look()


def evaluation(loss: float) -> Evaluation:
    return Evaluation(loss=loss, top1=0.25, n_tokens=100, n_bytes=300)


def speed(folder: Path) -> list[dict[str, float]]:
    return [{k: float(v) for k, v in row.items()} for row in rows(folder, name="speed.csv")]


def test_a_step_is_logged_and_told_with_all_that_is_known_of_it(tmp_path, clock) -> None:
    told: list[Progress] = []
    noted = recorder(tmp_path, watch=told.append, ceiling=64000.0)
    clock.now += 2.0

    note(noted, 3, 1.5, norm=0.75, waited=0.125)

    assert told == [Progress(3, 10, 1.5, tokens_per_s=64.0, mfu=1.0)]
    [row] = rows(tmp_path)
    assert row == {
        "per": "step", "step": "3", "epoch": "0.6", "tokens": "192", "train_loss": "1.5",
        "val_loss": "", "bits_per_byte": "", "perplexity": "", "top1": "",
        "learning_rate": repr(rate_at(3, 10, training_config())), "grad_norm": "0.75",
    }  # fmt: skip
    assert speed(tmp_path) == [
        {"step": 3, "step_seconds": 2.0, "wait_seconds": 0.125, "elapsed_seconds": 2.0}
    ]


def test_steps_between_two_looks_share_their_time_and_one_that_is_no_number_is_found(
    tmp_path, clock
) -> None:
    noted = recorder(tmp_path)
    for step, loss in ((1, 2.0), (2, 2.0), (3, math.nan), (4, math.nan)):
        noted.add(step, torch.tensor(loss), ONE, 0.0)
    clock.now += 2.0

    with pytest.raises(DivergenceError, match="loss is nan at step 3 of 10: over the 2 steps"):
        noted.look()

    assert column(tmp_path, "step") == [1, 2, 3]
    assert [row["step_seconds"] for row in speed(tmp_path)] == [0.5] * 3
    assert [row["elapsed_seconds"] for row in speed(tmp_path)] == [0.5, 1.0, 1.5]


def test_a_cpu_is_looked_at_every_step_and_a_gpu_every_few(tmp_path) -> None:
    host, gpu = (recorder(tmp_path, Ranks(0, 1, torch.device(name))) for name in ("cpu", "cuda"))

    assert not host.is_due
    for one in (host, gpu):
        one.add(1, ONE, ONE, 0.0)
        assert one.is_due  # what compiles is told apart
    gpu.look()
    for step in range(2, module.CUDA_PATIENCE + 2):
        assert not gpu.is_due
        gpu.add(step, ONE, ONE, 0.0)
    assert gpu.is_due


def test_time_of_evaluations_is_spent_but_on_no_step(tmp_path, clock) -> None:
    noted = recorder(tmp_path)
    for step, spent in ((5, 8.0), (6, 9.5)):
        clock.now += 1.0
        note(noted, step, 2.0)
        clock.now += spent - noted.tally.elapsed_seconds
        noted.evaluated(step, evaluation(2.0))

    assert [row["step_seconds"] for row in speed(tmp_path)] == [1.0, 1.0]
    assert [row["elapsed_seconds"] for row in speed(tmp_path)] == [1.0, 9.0]
    assert noted.tally.elapsed_seconds == 9.5


def test_an_evaluation_is_logged_and_the_lowest_loss_remembered(tmp_path) -> None:
    noted = recorder(tmp_path)

    for step, loss in ((2, 3.0), (5, 1.5), (7, 1.5), (10, 2.0)):
        note(noted, step, 4.0)
        noted.evaluated(step, evaluation(loss))

    assert (noted.tally.best_step, noted.tally.best_loss) == (5, 1.5)
    [first, *_], found = rows(tmp_path, "evaluation"), evaluation(3.0)
    measures = {name: float(first[name]) for name in ("bits_per_byte", "perplexity", "top1")}
    assert measures == {name: getattr(found, name) for name in measures}
    assert (first["val_loss"], first["train_loss"], first["learning_rate"]) == ("3.0", "", "")
    with pytest.raises(DivergenceError, match="validation loss is nan at step 10 of 10"):
        noted.evaluated(10, evaluation(math.nan))
    assert noted.tally.best_step == 5


def test_sums_go_on_from_those_of_a_checkpoint_and_begin_anew_with_an_epoch(
    tmp_path, clock
) -> None:
    so_far = {"epoch_loss": 10.0, "epoch_steps": 4, "elapsed_seconds": 8.0, "best_loss": 1.0}
    noted = recorder(tmp_path, tally=Tally(step=4, best_step=2, **so_far))

    for step in range(5, 11):
        clock.now += 2.0
        note(noted, step, float(step))
        if step in PLAN.evaluations:
            noted.evaluated(step, evaluation(1.25))

    assert column(tmp_path, "epoch", "epoch") == [1, 2]
    assert column(tmp_path, "train_loss", "epoch") == [3.0, 8.0]
    assert speed(tmp_path)[0]["elapsed_seconds"] == 10.0
    assert (noted.tally.step, noted.tally.best_step, noted.tally.best_loss) == (10, 2, 1.0)


LATE = (
    "at step 4 of 10: over the 3 steps before, gradient norms had a median of 2 and went up to "
    rf"70 at a learning rate of {rate_at(4, 10, training_config()):.3g}; lower learning_rate, or "
    "raise warmup_fraction$"
)
EARLY = (
    "at step 1 of 10: the network overflows before it has learned anything; "
    r"lower init_std \(now 9\.0\) or sine_amplitude \(now 5\.0\)$"
)
FP16 = "fp16 has overflowed; use precision: bf16$"


@pytest.mark.parametrize(
    ("config", "before", "loss", "norm", "message"),
    [
        ({}, [1.0, 2.0, 70.0], math.nan, 1.0, f"^loss is nan {LATE}"),
        ({}, [1.0, 2.0, 70.0], math.inf, 1.0, f"^loss is inf {LATE}"),
        ({}, [1.0, 2.0, 70.0], 2.0, math.nan, f"^the gradient norm is nan {LATE}"),
        ({"init_std": 9.0, "sine_amplitude": 5.0}, [], math.nan, 1.0, f"^loss is nan {EARLY}"),
        ({"precision": "fp16"}, [], math.inf, 1.0, FP16),
        ({"precision": "fp16"}, [1.0, math.inf, 1.0], math.inf, 1.0, FP16),
    ],
)
def test_what_is_no_number_ends_a_training_and_its_likely_cause_is_named(
    tmp_path, config, before, loss, norm, message
) -> None:
    noted = recorder(tmp_path, config=config)
    for step, earlier in enumerate(before, start=1):
        note(noted, step, 2.0, earlier)  # fp16 leaves out a step whose gradients overflow

    with pytest.raises(DivergenceError, match=message):
        note(noted, len(before) + 1, loss, norm)


def step(number: int) -> dict[str, Any]:
    return {"per": "step", "step": number, "train_loss": 1 / 3 + number}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """One begun over what an earlier training left, with one step."""
    (tmp_path / "loss.csv").write_text("of an earlier training\n" * 9)
    journal = Journal(tmp_path)
    journal.add("loss.csv", step(1))
    return journal


def test_a_new_journal_has_its_columns_and_then_each_row_at_once_to_the_last_digit(
    tmp_path, journal
) -> None:
    journal.add("speed.csv", {"step": 1, "step_seconds": 1e-7})

    for name, columns in FILES.items():
        assert (tmp_path / name).read_text().splitlines()[0] == ",".join(columns)
    assert (tmp_path / "speed.csv").read_text().splitlines()[1:] == ["1,1e-07,,"]
    [row] = rows(tmp_path)
    assert float(row["train_loss"]) == 1 / 3 + 1
    assert {name for name in LOSS if row[name]} == {"per", "step", "train_loss"}
    with pytest.raises(ValueError, match="train_lost"):
        journal.add("loss.csv", {"step": 1, "train_lost": 2.0})


def test_going_on_cuts_off_what_came_after_the_checkpoint(tmp_path, journal, monkeypatch) -> None:
    flushed = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: flushed.append(os.fstat(file).st_ino))
        lengths = journal.lengths()
    assert lengths == {name: (tmp_path / name).stat().st_size for name in FILES}
    assert flushed == [(tmp_path / name).stat().st_ino for name in FILES]
    before = (tmp_path / "loss.csv").read_bytes()
    journal.add("loss.csv", step(2))
    journal.add("speed.csv", {"step": 2})
    with (tmp_path / "loss.csv").open("a") as file:
        file.write("step,3,0.0")  # half a line, as a kill leaves it

    again = Journal(tmp_path, lengths)

    assert (tmp_path / "loss.csv").read_bytes() == before
    assert speed(tmp_path) == []
    again.add("loss.csv", step(2))
    assert column(tmp_path, "step") == [1, 2]


@pytest.mark.parametrize("content", [None, b"", b"per,step"])
def test_a_log_that_has_lost_rows_is_not_gone_on_with(
    tmp_path, journal, content: bytes | None
) -> None:
    lengths = journal.lengths()
    (tmp_path / "loss.csv").unlink()
    if content is not None:
        (tmp_path / "loss.csv").write_bytes(content)

    message = rf"loss\.csv must have the {lengths['loss.csv']} bytes .* got {len(content or b'')};"
    with pytest.raises(ConfigError, match=message):
        Journal(tmp_path, lengths)


def test_a_folder_that_cannot_be_written_and_a_full_disk_are_messages(
    tmp_path, journal, monkeypatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ConfigError, match="csv cannot be written: Not a directory; make room"):
        Journal(tmp_path / "loss.csv")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match=f"{tmp_path} cannot be written: No space left on device"):
        journal.lengths()
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ConfigError, match=f"{tmp_path} cannot be written: No space left on device"):
        journal.add("loss.csv", step(1))


def test_the_bar_counts_from_where_it_goes_on_and_shows_speed_and_share_of_the_machine() -> None:
    screen = io.StringIO()
    bar = module.ProgressBar(screen)
    for step in (90, 95, 99, 100):
        bar(Progress(step, 100, 2.34567, tokens_per_s=12345.6, mfu=0.375))
    first, *_, last = [line for line in re.split(r"[\r\n]", screen.getvalue()) if line.strip()]

    assert " 89/100 " in first
    assert last.startswith("100%")
    assert " 100/100 " in last
    assert "loss 2.346, 12,346 tokens/s, MFU 38%" in last
    bar.file = again = io.StringIO()
    for step in range(1, 5):  # the share is not always known
        bar(Progress(step, 4, 2.0, tokens_per_s=1.0, mfu=None))
    assert " 4/4 " in again.getvalue()
    assert "MFU" not in again.getvalue()
