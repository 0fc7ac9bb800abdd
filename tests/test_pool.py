"""Slots of this machine train side by side, and leave nothing running when they are left."""

import dataclasses
import json
import os
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from psannlm.config.schema import ConfigError
from psannlm.pages.shootout import pool
from psannlm.pages.shootout.pool import on_this_machine, slots
from psannlm.pages.shootout.worker import TrainingTask
from tests.synthetic_shootout import shootout_config

PATIENCE = 30.0


def tasks(*keys: str) -> list[TrainingTask]:
    return [TrainingTask(key, {"seed": 0}, False, 50.0, {}) for key in keys]


@pytest.fixture
def trainings(monkeypatch):
    """Replaces processes: what a training does is called instead."""

    def install(behave) -> None:
        def run_task(task, **how):
            return [{"mode": "training", "status": "ok"} | (behave(task, **how) or {})]

        monkeypatch.setattr(pool, "run_task", run_task)

    return install


@pytest.fixture
def gpus(monkeypatch):
    """As many GPUs as it is told."""

    def install(count: int, visible: str = "") -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(pool, "select_device", lambda name: torch.device("cuda"))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return install


def test_a_cpu_is_one_slot_and_several_share_its_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)

    [alone] = slots(shootout_config())
    shared = slots(shootout_config(cells_at_once=3))

    assert alone.variables == {}
    assert [slot.variables["OMP_NUM_THREADS"] for slot in shared] == ["2"] * 3
    assert slots(shootout_config(cells_at_once=9))[8].variables["MKL_NUM_THREADS"] == "1"


def test_every_gpu_is_a_slot_that_sees_no_other(gpus):
    gpus(2)

    found = slots(shootout_config(device="cuda"))

    assert [slot.variables["CUDA_VISIBLE_DEVICES"] for slot in found] == ["0", "1"]
    assert [slot.device.index for slot in found] == [0, 1]
    with pytest.raises(ConfigError, match=r"at most the number of visible GPUs, 2, got 3; lower"):
        slots(shootout_config(cells_at_once=3))


def test_gpus_hidden_from_this_process_stay_hidden(gpus):
    gpus(2, visible="GPU-5, 3,-1,6")

    found = slots(shootout_config())

    assert [slot.variables["CUDA_VISIBLE_DEVICES"] for slot in found] == ["GPU-5", "3"]
    assert len(slots(shootout_config(cells_at_once=1))) == 1


def test_each_training_is_told_its_folder_and_its_start_and_comes_back_under_its_key(
    trainings, tmp_path
):
    trainings(lambda task, cache, **_: {"told": (task.folder, task.started, cache)})
    before = time.time()

    found = dict(on_this_machine(tasks("a", "b"), shootout_config(), tmp_path))

    assert list(found) == ["a", "b"]
    for key, values in found.items():
        folder, started, cache = values["told"]
        assert (Path(folder), cache) == (tmp_path / key, tmp_path / "compiled")
        assert before <= started <= time.time()
        assert "mode" not in values
        assert "cores" in values["device"]


def test_as_many_train_at_once_as_there_are_slots_and_results_come_as_they_end(trainings, tmp_path):
    running, most, slow_may_end = set(), [], threading.Event()

    def behave(task, **_):
        running.add(task.key)
        most.append(len(running))
        if task.key == "slow":
            assert slow_may_end.wait(PATIENCE)
        running.discard(task.key)

    trainings(behave)
    keys = []
    asked = tasks("slow", "b", "c", "d")
    for key, _ in on_this_machine(asked, shootout_config(cells_at_once=2), tmp_path):
        keys.append(key)
        if len(keys) == 3:
            slow_may_end.set()

    assert keys[-1] == "slow"
    assert set(keys) == {"slow", "b", "c", "d"}
    assert max(most) == 2


def test_on_gpus_processes_are_new_and_see_one_gpu_each(trainings, gpus, monkeypatch, tmp_path):
    gpus(2)
    monkeypatch.setattr(pool, "device_name", lambda device: f"GPU {device.index}")
    both = threading.Barrier(2)

    def behave(task, fork_server, variables, **_):
        both.wait(PATIENCE)
        return {"server": fork_server, "seen": variables["CUDA_VISIBLE_DEVICES"]}

    trainings(behave)

    found = dict(on_this_machine(tasks("a", "b"), shootout_config(), tmp_path)).values()

    assert {(v["seen"], v["device"]) for v in found} == {("0", "GPU 0"), ("1", "GPU 1")}
    assert [values["server"] for values in found] == [None, None]


def test_left_early_it_ends_what_runs_and_begins_nothing_more(trainings, tmp_path):
    begun, ended = [], []

    def behave(task, stopped, **_):
        begun.append(task.key)
        until = time.monotonic() + PATIENCE
        while task.key != "quick" and not stopped():
            assert time.monotonic() < until
            time.sleep(0.005)
        ended.append(task.key)

    trainings(behave)

    asked = tasks("quick", "b", "c", "d", "e")
    found = on_this_machine(asked, shootout_config(cells_at_once=2), tmp_path)
    assert next(found)[0] == "quick"
    found.close()

    assert len(begun) <= 3
    assert sorted(begun) == sorted(ended)


def test_an_error_of_ours_ends_the_run(trainings, tmp_path):
    trainings(lambda task, **_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        list(on_this_machine(tasks("a"), shootout_config(), tmp_path))


@pytest.fixture
def stand_in(monkeypatch):
    """Processes are real; what trains in them is tests/stand_in_training.py."""
    monkeypatch.setattr(TrainingTask, "worker", (sys.executable, "-m", "tests.stand_in_training"))


@pytest.mark.slow
def test_forked_processes_have_their_share_of_the_machine_and_every_end_a_reason(
    stand_in, monkeypatch, tmp_path
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    *others, hangs = tasks("told", "raises", "dies", "hangs")
    asked = [*others, dataclasses.replace(hangs, timeout_seconds=1.0)]

    found = dict(on_this_machine(asked, shootout_config(cells_at_once=2), tmp_path))

    assert found["told"]["environment"]["OMP_NUM_THREADS"] == "3"
    assert found["told"]["environment"]["TORCHINDUCTOR_CACHE_DIR"] == "compiled", "its public name"
    assert found["raises"]["reason"].endswith("RuntimeError: no such luck")
    assert found["dies"]["reason"].startswith("killed by signal SIGKILL")
    assert found["hangs"]["reason"] == "timed out after 1 s"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_left_early_no_process_stays_behind(kind, stand_in, gpus, monkeypatch, tmp_path):
    if kind == "cuda":
        gpus(1, visible="7")
    monkeypatch.setattr(pool, "device_name", lambda device: device.type)
    found = on_this_machine(tasks("told", "hangs"), shootout_config(), tmp_path)

    _, told = next(found)
    written = tmp_path / "hangs.json"
    until = time.monotonic() + PATIENCE
    while not written.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    hanging = json.loads(written.read_text())
    found.close()

    this = os.getpid()
    assert told["environment"].get("CUDA_VISIBLE_DEVICES") == {"cpu": None, "cuda": "7"}[kind]
    assert (hanging["parent"] == this) == (kind == "cuda")
    assert not psutil.pid_exists(hanging["pid"])
    assert hanging["parent"] == this or not psutil.pid_exists(hanging["parent"])
