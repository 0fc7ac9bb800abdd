"""Trainings on a dask cluster: the same work, elsewhere; what goes wrong there is said here."""

import importlib.util
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from psannlm.config.schema import ConfigError
from psannlm.pages.shootout import cluster
from psannlm.pages.shootout.cluster import objection, on_cluster, refuse_unready
from psannlm.pages.shootout.worker import TrainingTask
from tests.synthetic_shootout import shootout_config

PATIENCE = 30.0
HAS_DASK = importlib.util.find_spec("distributed") is not None


def on_dask(test):
    needs = pytest.mark.skipif(not HAS_DASK, reason="dask.distributed is not installed")
    return pytest.mark.slow(needs(test))


def worker(nthreads: int = 1) -> SimpleNamespace:
    """What is asked of a dask worker before it trains."""
    return SimpleNamespace(state=SimpleNamespace(nthreads=nthreads))


def standing() -> dict[str, str]:
    return cluster._standing(shootout_config().corpus)


@pytest.mark.parametrize("what", ["code", "torch", "corpus"])
def test_a_worker_that_would_train_something_else_is_named_with_the_difference(what):
    ours, text = standing(), shootout_config().corpus

    said = objection(ours | {what: "other"}, text, "cpu", worker())

    assert said == f"its {what} is {ours[what]}, not other; install or copy the same there"
    assert objection(ours, text, "cpu", worker()) == ""


def test_a_worker_of_several_threads_or_without_the_text_must_not_train():
    said = objection(standing(), shootout_config().corpus, "cpu", worker(4))

    assert said.startswith("it would train 4 networks at a time on one device; start it with")
    assert "nowhere.txt" in objection(standing(), "nowhere.txt", "cpu", worker())


def test_code_is_another_once_a_file_changes(tmp_path, monkeypatch):
    (tmp_path / "psannlm").mkdir()
    (tmp_path / "psannlm" / "one.py").write_text("a = 1\n")
    corpus = str(cluster.ROOT / shootout_config().corpus)
    monkeypatch.setattr(cluster, "ROOT", tmp_path)

    before = cluster._standing(corpus)
    (tmp_path / "psannlm" / "one.py").write_text("a = 2\n")
    after = cluster._standing(corpus)

    assert before["code"] != after["code"]
    assert before["corpus"] == after["corpus"]


def test_without_dask_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)

    with pytest.raises(ConfigError, match=r"run: .* -m pip install -e '\.\[cluster\]'"):
        refuse_unready(shootout_config(scheduler="tcp://127.0.0.1:1"))


@pytest.fixture
def dask(tmp_path, monkeypatch) -> Iterator:
    """Starts clusters of one worker, in this process or in one of its own."""
    from distributed import LocalCluster

    monkeypatch.setattr(cluster, "CHECKPOINTS", tmp_path / "there")
    started = []

    def start(**how):
        usual = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "protocol": "tcp://"}
        found = LocalCluster(
            **usual | how,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
            local_directory=str(tmp_path / "dask"),
        )
        started.append(found)
        return found

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="distributed")
        yield start
        for one in started:
            one.close()


def trains(monkeypatch, train, address, *keys, place):
    """The generator of a cluster there whose workers train by that function."""
    monkeypatch.setattr(cluster, "train", train)
    tasks = [TrainingTask(key, {"device": "cpu"}, False, 50.0, {}) for key in keys]
    return on_cluster(tasks, shootout_config(scheduler=address), place / "run")


@on_dask
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", "tcp://127.0.0.1"])
def test_an_address_where_no_scheduler_answers_is_refused(monkeypatch, address):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)

    with pytest.raises(ConfigError, match=f"scheduler must be the address .* got {address}, where"):
        refuse_unready(shootout_config(scheduler=address))


@on_dask
def test_a_scheduler_without_workers_is_refused(dask):
    address = dask(n_workers=0).scheduler_address

    with pytest.raises(ConfigError, match=f"has no worker; start one with `dask worker {address}"):
        refuse_unready(shootout_config(scheduler=address))


@on_dask
def test_an_unfit_worker_is_refused_before_anything_is_trained(dask, monkeypatch, tmp_path):
    address = dask(threads_per_worker=2).scheduler_address

    with pytest.raises(ConfigError, match="must not train: it would train 2 networks at a time"):
        refuse_unready(shootout_config(scheduler=address))
    with pytest.raises(ConfigError, match="must not train: it would train 2 networks at a time"):
        next(trains(monkeypatch, None, address, "a", place=tmp_path))


@on_dask
def test_trainings_end_as_the_worker_says_and_those_that_fail_do_too(dask, monkeypatch, tmp_path):
    seen = []

    def train(task, place, cache, *, stopped):
        seen.append(task.key)
        (place / task.key).mkdir(parents=True)
        assert Path(cache).is_relative_to(tmp_path / "dask")
        if task.key == "b":
            raise RuntimeError("no such luck")
        return {"status": "ok", "place": str(place)}

    found = dict(trains(monkeypatch, train, dask().scheduler_address, *"abc", place=tmp_path))

    assert seen == ["a", "b", "c"]
    assert found["b"] == {"status": "failed", "reason": "RuntimeError: no such luck"}
    assert found["a"]["place"] == found["c"]["place"] == str(tmp_path / "there" / "run")
    assert "cores" in found["a"]["device"]
    assert [path.name for path in (tmp_path / "there" / "run").iterdir()] == ["b"]


@on_dask
def test_a_worker_that_joins_late_is_looked_at_too(dask, monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "_refuse_unfit", lambda client, config: None)
    address = dask(threads_per_worker=2).scheduler_address

    [(_, found)] = trains(monkeypatch, None, address, "a", place=tmp_path)

    assert found["status"] == "failed"
    assert found["reason"].startswith("the worker must not train: it would train 2 networks")


@on_dask
def test_left_early_the_worker_ends_what_it_trains_and_keeps_its_folder(
    dask, monkeypatch, tmp_path
):
    begun, ended = threading.Event(), threading.Event()

    def train(task, place, cache, *, stopped):
        if task.key == "a":
            return {"status": "ok"}
        (place / task.key).mkdir(parents=True)
        begun.set()
        until = time.monotonic() + PATIENCE
        while not stopped():
            assert time.monotonic() < until
            time.sleep(0.01)
        ended.set()
        return {"status": "failed"}

    records = trains(monkeypatch, train, dask().scheduler_address, "a", "b", place=tmp_path)
    next(records)
    assert begun.wait(PATIENCE)
    records.close()

    assert ended.wait(PATIENCE)
    assert (tmp_path / "there" / "run" / "b").exists()


@on_dask
def test_a_lost_cluster_ends_the_run_with_a_word(dask, monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 0.1)
    begun, go_on = threading.Event(), threading.Event()

    def train(task, place, cache, *, stopped):
        begun.set()
        go_on.wait(PATIENCE)
        return {"status": "ok"}

    made = dask()

    def lose() -> None:
        begun.wait(PATIENCE)
        made.scale(0)

    threading.Thread(target=lose).start()
    try:
        with pytest.raises(ConfigError, match="all of its workers are gone; start them again and"):
            list(trains(monkeypatch, train, made.scheduler_address, "a", place=tmp_path))
    finally:
        go_on.set()


def train_and_die(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@on_dask
def test_a_training_that_kills_its_workers_fails_and_the_others_go_on(dask, monkeypatch, tmp_path):
    import dask as settings

    with settings.config.set({"distributed.scheduler.allowed-failures": 0}):
        made = dask(processes=True)
    monkeypatch.setattr(cluster, "train_on_worker", train_and_die)

    [(key, found)] = trains(monkeypatch, None, made.scheduler_address, "a", place=tmp_path)

    assert (key, found["status"]) == ("a", "failed")
    assert "KilledWorker" in found["reason"]
