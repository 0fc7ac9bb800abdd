"""A shootout that is killed at any moment, again and again, ends as one that was left alone."""

import contextlib
import dataclasses
import importlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from psannlm.bench import processes
from psannlm.files import write_atomically
from psannlm.pages.shootout import plan, pool
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.gates import gates
from psannlm.pages.shootout.measure import run_cells
from psannlm.pages.shootout.plan import Cell
from psannlm.pages.shootout.records import TrainingRecord, from_json
from psannlm.pages.shootout.tables import SUMMARY, tabulate
from psannlm.train import data
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
    """What a process of its own does: all trainings of a shootout that are not yet kept."""
    torch.set_num_threads(1)
    data.CACHE = cache
    processes.subprocess = SimpleNamespace(Popen=Forked, PIPE=subprocess.PIPE)
    train = pool.train

    def noted(task, *places, **how):
        note(folder, "again" if path_of(folder, task.key).exists() else "begun", task.key)
        return train(task, *places, **how)

    pool.train = noted
    config = asked(corpus)
    tunings = plan.tunings(config)
    keep(plan.distinct(tunings, config), config, folder)
    chosen = plan.choose(config, kept(folder).values())
    keep(plan.distinct(plan.after_tuning(config, chosen), config), config, folder)


def asked(corpus: str) -> ShootoutConfig:
    return shootout_config(
        corpus=corpus, tokenizer="bytes", vocab_size=257, train_megabytes=0, validation_megabytes=0,
        batch_tokens=64, pass_tokens=64, epochs=1, checkpoint_steps=5, evaluations=3, n_layers=1,
        base=("respsann", "swiglu"), seeds=(0, 1), side_seeds=1, ablation=(), scale_arms=(),
        cells_at_once=2,
    )  # fmt: skip


def summary(corpus: str, records: Mapping[str, TrainingRecord]) -> str:
    """summary.csv of a run with these records, but for what no run repeats."""
    config, found = asked(corpus), list(records.values())
    examined = gates(config, plan.choose(config, found), found)
    summary = tabulate([*found, *examined], config)[SUMMARY.file]
    return str(summary.drop(columns=["train_seconds", "train_tokens_per_s"]).to_csv())


def keep(cells: Mapping[str, Cell], config: Any, folder: Path) -> None:
    ended = run_cells(cells, config, done=set(kept(folder)), place=folder / "place")
    with contextlib.closing(ended):
        for record in ended:
            write_atomically(path_of(folder, record.key), record.as_json())
            note(folder, "kept", record.key)


def path_of(folder: Path, key: str) -> Path:
    (folder / "records").mkdir(parents=True, exist_ok=True)
    return folder / "records" / f"{key}.json"


def note(folder: Path, what: str, key: str) -> None:
    with (folder / "log").open("a") as log:
        log.write(f"{what} {key}\n")


def kept(folder: Path) -> dict[str, TrainingRecord]:
    paths = sorted((folder / "records").glob("[!.]*.json"))
    return {path.stem: from_json(path.read_text()) for path in paths}


def untimed(record: TrainingRecord) -> TrainingRecord:
    curve = tuple(point._replace(seconds=0.0) for point in record.curve)
    return dataclasses.replace(record, **TIMED, curve=curve)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def notes_of(folder: Path) -> list[str]:
    """What the shootouts of a folder have noted, in order."""
    log = folder / "log"
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.slow
def test_ten_kills_leave_no_trace_in_the_records(tmp_path) -> None:
    corpus, draw = str(write_text(tmp_path, 3000)), random.Random(0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["psannlm.pages.shootout.measure", "torch._dynamo"])

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
    assert summary(corpus, resumed) == summary(corpus, whole)
    notes = notes_of(part)
    assert "again" not in notes
    assert notes.count("begun") > notes.count("kept")  # kills have met trainings
    assert [path.name for path in (part / "place").iterdir()] == []
    until = time.monotonic() + PATIENCE
    while any(map(is_alive, behind)):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert behind
