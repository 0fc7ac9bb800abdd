"""A shootout that is killed at any moment, again and again, ends as one that was left alone."""

import contextlib
import dataclasses
import importlib
import io
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import psutil
import pytest
import torch

from psannlm.bench import processes
from psannlm.evidence.runs import Run
from psannlm.evidence.session import Session
from psannlm.pages.shootout import measure, pool
from psannlm.pages.shootout.page import PAGE
from psannlm.pages.shootout.records import TrainingRecord, from_json
from psannlm.places import as_published
from psannlm.train import data
from tests.synthetic import start_manifest
from tests.synthetic_shootout import shootout_config
from tests.tiny_trainings import write_text

N_KILLS = 10
PATIENCE = 120.0
TIMED = {
    "started_at": "", "train_seconds": None, "train_tokens_per_s": None, "overhead_seconds": None,
    "peak_rss_bytes": None,
}  # fmt: skip


class Forked:
    """A fork server that is forked from this process: at once, not in 5 s."""

    def __init__(self, command: list[str], **_: Any) -> None:
        asked, ask = os.pipe()
        answer, answered = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.dup2(asked, 0)
                os.dup2(answered, 1)
                os.closerange(3, 1024)  # no end of another fork server's pipes
                sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
                processes.answer_requests(importlib.import_module(command[3]).main)
            finally:
                os._exit(0)
        os.close(asked)
        os.close(answered)
        self.stdin, self.stdout = os.fdopen(ask, "w"), os.fdopen(answer)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def shootout(corpus: str, folder: Path, cache: Path) -> None:
    """What a process of its own does: a whole shootout, from where it was killed on."""
    torch.set_num_threads(1)
    sys.stdout = io.StringIO()
    data.CACHE, measure.CHECKPOINTS = cache, folder / "checkpoints"
    processes.subprocess = SimpleNamespace(Popen=Forked, PIPE=subprocess.PIPE)
    train = pool.train

    def noted(task, *places, **how):
        with (folder / "log").open("a") as log:
            log.write("again\n" if task.key in kept(folder) else "begun\n")
        return train(task, *places, **how)

    pool.train = noted
    config = as_published(shootout_config(
        corpus=corpus, tokenizer="bytes", vocab_size=257, train_megabytes=0, validation_megabytes=0,
        batch_tokens=64, pass_tokens=64, epochs=1, checkpoint_steps=5, evaluations=3, n_layers=1,
        base=("respsann", "swiglu"), seeds=(0, 1), side_seeds=1, ablation=(), scale_arms=(),
        cells_at_once=2,
    ))  # fmt: skip
    manifest = start_manifest("shootout", config)
    begun = [path.parent for path in folder.glob("benchmarks/*/run.json")]
    if begun:
        run = Run.resume(begun[0], manifest)
    else:
        run = Run.start("benchmarks", manifest, reports=folder)
    Session(PAGE, config, run, torch.device("cpu")).measure()


def kept(folder: Path) -> dict[str, TrainingRecord]:
    paths = sorted(folder.glob("benchmarks/*/cells/[!.]*.json"))
    return {path.stem: from_json(path.read_text()) for path in paths}


def summary(folder: Path) -> str:
    """summary.csv, but for what no run repeats."""
    [path] = folder.glob("benchmarks/*/summary.csv")
    table = pd.read_csv(path).drop(columns=["train_seconds", "train_tokens_per_s"])
    return str(table.to_csv())


def untimed(record: TrainingRecord) -> TrainingRecord:
    curve = tuple(point._replace(seconds=0.0) for point in record.curve)
    return dataclasses.replace(record, **TIMED, curve=curve)


def is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def notes_of(folder: Path) -> list[str]:
    """What the shootouts of a folder have noted, in order."""
    log = folder / "log"
    return log.read_text().split() if log.exists() else []


@pytest.mark.slow
def test_ten_kills_leave_no_trace_in_the_records(tmp_path) -> None:
    corpus, draw = str(write_text(tmp_path, 3000)), random.Random(0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.synthetic_shootout", "torch._dynamo"])

    def started(folder: Path) -> BaseProcess:
        folder.mkdir(exist_ok=True)
        process = context.Process(target=shootout, args=(corpus, folder, tmp_path / "cache"))
        process.start()
        return process

    started(tmp_path / "warm").join()  # loads, and reads the text
    start = time.monotonic()
    alone = started(tmp_path / "whole")
    alone.join()
    seconds = time.monotonic() - start
    part, behind = tmp_path / "part", []
    for n in range(N_KILLS):
        begun = notes_of(part).count("begun")
        process = started(part)
        while n % 2 and notes_of(part).count("begun") == begun and process.is_alive():
            time.sleep(0.01)  # every other kill meets a training
        time.sleep(draw.uniform(0, seconds / (50 if n % 2 else 6)))
        behind += psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    last = started(part)
    last.join()

    assert alone.exitcode == last.exitcode == 0
    whole, resumed = kept(tmp_path / "whole"), kept(part)
    assert {record.status for record in whole.values()} == {"ok"}
    assert {key: untimed(record) for key, record in resumed.items()} == {
        key: untimed(record) for key, record in whole.items()
    }
    assert summary(part) == summary(tmp_path / "whole")
    notes = notes_of(part)
    assert "again" not in notes
    assert notes.count("begun") > len(resumed)  # kills have met trainings
    assert list((part / "checkpoints").iterdir()) == []
    until = time.monotonic() + PATIENCE
    while any(map(is_alive, behind)):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert behind
