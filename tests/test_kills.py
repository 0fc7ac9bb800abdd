"""A training that is killed at any moment, again and again, ends as one that was left alone."""

import functools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
import yaml

from psannlm import ROOT
from psannlm.config.training import TrainingConfig
from psannlm.train import session
from psannlm.train.checkpoint import checkpoints
from psannlm.train.data import read
from tests.tiny_trainings import ALONE, training_config, write_text

N_KILLS = 20
PATIENCE = 60  # seconds for a training to write its next row


def course(folder: Path, epochs: int) -> TrainingConfig:
    """23 steps an epoch, of which each fifth and each best is saved."""
    return training_config(
        corpus=str(folder / "text.txt"), epochs=epochs, n_layers=1, batch_tokens=64, pass_tokens=32,
        checkpoint_steps=5, keep_checkpoints=2, evaluations=3,
    )  # fmt: skip


def train(folder: Path, config: TrainingConfig, cache: Path) -> None:
    """What a process of its own does."""
    torch.set_num_threads(1)
    session.read = functools.partial(read, cache=cache)
    session.train(config, folder, ALONE)


def n_rows(folder: Path) -> int:
    return (folder / "loss.csv").read_bytes().count(b"\n") - 1


def written_at(folder: Path) -> int:
    """When the log was written last; going on cuts it, which counts even if nothing is cut off."""
    return (folder / "loss.csv").stat().st_mtime_ns if (folder / "loss.csv").exists() else 0


def wait_until(is_there: Callable[[], bool], is_alive: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not is_there():
        assert is_alive()
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.mark.slow
def test_twenty_kills_leave_no_trace_in_the_log(tmp_path) -> None:
    write_text(tmp_path)
    config, draw = course(tmp_path, 10), random.Random(0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["psannlm.train.session"])

    def started(folder: Path) -> BaseProcess:
        process = context.Process(target=train, args=(folder, config, tmp_path / "cache"))
        process.start()
        return process

    whole = started(tmp_path / "whole")
    whole.join()
    part, places, n_saved = tmp_path / "part", [], 0
    for _ in range(N_KILLS):
        before = written_at(part)
        process = started(part)
        wait_until(
            lambda before=before: written_at(part) != before, process.is_alive
        )  # cut, or anew
        enough = n_rows(part) + draw.randint(1, 18)
        wait_until(lambda enough=enough: n_rows(part) >= enough, process.is_alive)
        time.sleep(draw.uniform(0, 0.02))
        n_saved += bool(checkpoints(part))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        places.append(n_rows(part))
    last = started(part)
    last.join()

    assert last.exitcode == whole.exitcode == 0
    assert n_saved >= N_KILLS / 2
    assert max(places) > 100
    assert (part / "loss.csv").read_bytes() == (tmp_path / "whole" / "loss.csv").read_bytes()
    ends = [checkpoints(folder)[-1] for folder in (tmp_path / "whole", part)]
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (ends[0] / name).read_bytes() == (ends[1] / name).read_bytes()
    assert not list(part.glob(".*"))


@pytest.mark.slow
def test_the_same_command_goes_on_where_the_killed_one_was(tmp_path) -> None:
    write_text(tmp_path)
    config = course(tmp_path, 3)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    part = tmp_path / "part"
    arguments = ("train", "--config", str(tmp_path / "c.yaml"), "--out", str(part))
    command = [sys.executable, "-m", "psannlm", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PSANNLM_CACHE": str(tmp_path / "cache")}
    quiet = {"env": environment, "cwd": ROOT, "stderr": subprocess.DEVNULL}

    with subprocess.Popen(command, **quiet) as killed:
        wait_until(lambda: written_at(part) and n_rows(part) >= 20, lambda: killed.poll() is None)
        killed.kill()
    done = subprocess.run(command, **quiet, stdout=subprocess.PIPE, text=True)

    assert killed.returncode == -signal.SIGKILL
    assert done.returncode == 0
    assert str(part) in done.stdout
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "read", functools.partial(read, cache=tmp_path / "cache"))
        session.train(config, tmp_path / "whole", ALONE)
    assert (part / "loss.csv").read_bytes() == (tmp_path / "whole" / "loss.csv").read_bytes()
