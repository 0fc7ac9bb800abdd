"""Cells become records: each once, each with a reason if it failed, each resumable until then."""

import dataclasses
import itertools
import sys
from pathlib import Path

import pytest

from psannlm.config.schema import ConfigError
from psannlm.model.bases import build
from psannlm.pages.shootout import cluster, plan, pool
from psannlm.pages.shootout import measure as contest
from psannlm.pages.shootout.measure import record_of, refuse_early, run_cells, task_of
from psannlm.pages.shootout.records import Point, Setting, from_json
from tests.synthetic_shootout import shootout_config

CONFIG = shootout_config(base=("respsann", "swiglu"), scale_arms=())
CELLS = plan.distinct(plan.tunings(CONFIG), CONFIG)
FINAL = plan.Cell(plan.arms_of(CONFIG)[0], Setting(0.003, 2.25, 0.02, ("amplitude",)), 1, True)


@pytest.fixture
def trainings(monkeypatch):
    """Replaces processes; what was asked of them, and in which folder, is noted."""
    begun: dict[str, dict] = {}

    def run_task(task, **_):
        folder = Path(task.folder)
        begun[folder.name] = task.config
        folder.mkdir(exist_ok=True)
        (folder / "log").write_text("a row\n")
        return [{"mode": "training", "status": "ok", "reason": "", "val_loss": 2.5}]

    monkeypatch.setattr(pool, "run_task", run_task)
    return begun


def folders(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()}


def test_every_cell_is_trained_as_planned_and_kept_under_its_key(trainings, tmp_path):
    records = list(run_cells(CELLS, CONFIG, done=(), place=tmp_path / "run"))

    assert [record.key for record in records] == list(CELLS)
    for record in records:
        cell = CELLS[record.key]
        assert (record.arm, record.base, record.setting, record.seed, record.final) == (
            cell.arm.name, cell.arm.base, cell.setting, cell.seed, False,
        )  # fmt: skip
        assert trainings[record.key] == plan.training_of(cell, CONFIG).model_dump(mode="json")
        assert (record.status, record.val_loss) == ("ok", 2.5)
        assert from_json(record.as_json()) == record


def test_what_is_done_is_not_trained_again_and_leaves_no_folder(trainings, monkeypatch, tmp_path):
    [first, second, *others] = CELLS
    (tmp_path / first / "checkpoint").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()

    records = list(run_cells(CELLS, CONFIG, done={first, second, "elsewhere"}, place=tmp_path))

    assert [record.key for record in records] == others
    assert set(trainings) == set(others)
    assert folders(tmp_path) == {"elsewhere"}
    monkeypatch.setattr(contest, "on_this_machine", None)
    assert list(run_cells(CELLS, CONFIG, done=CELLS, place=tmp_path / "run")) == []
    assert not (tmp_path / "run").exists()


def test_a_folder_stays_until_the_next_record_is_asked_for(trainings, tmp_path):
    records = run_cells(dict(itertools.islice(CELLS.items(), 2)), CONFIG, done=(), place=tmp_path)

    first = next(records).key
    assert (tmp_path / first / "log").exists()
    second = next(records).key
    assert not (tmp_path / first).exists()
    records.close()

    assert folders(tmp_path) == {second}


def test_a_failure_is_a_record_that_says_what_is_known_by_construction(monkeypatch, tmp_path):
    failed = {"mode": "training", "status": "failed", "reason": "out of memory: 3 GiB"}
    monkeypatch.setattr(pool, "run_task", lambda task, **_: [failed])

    records = list(run_cells(CELLS, CONFIG, done=(), place=tmp_path))

    assert {(record.status, record.reason) for record in records} == {
        ("failed", "out of memory: 3 GiB")
    }
    for record in records:
        network = plan.training_of(CELLS[record.key], CONFIG).network
        assert record.n_parameters == sum(p.numel() for p in build(network, seed=0).parameters())
        assert record.d_mlp == network.d_mlp
        assert record.val_loss is None
        assert "cores" in record.device
        assert from_json(record.as_json()) == record


def test_rows_come_back_as_what_they_are_with_the_flops_of_three_forward_passes():
    found = {"status": "ok", "reason": "", "started_at": "then", "curve": [[1, 1024, 0.5, 5.0]]}

    record = record_of("k", FINAL, CONFIG, found)

    assert record.curve == (Point(1, 1024, 0.5, 5.0),)
    assert (record.setting, record.started_at, record.final) == (FINAL.setting, "then", True)
    # By hand: layers of attention and two linear maps, then the head; T = 16, D = 16, V = 64.
    layer = 8 * 16 * 16 + 2 * 17 * 16 + 4 * 16 * record.d_mlp
    assert record.flops_per_token == 3 * (2 * layer + 2 * 16 * 64)
    lost = record_of("k", FINAL, CONFIG, found | {"device": "there", "test_loss": float("nan")})
    assert (lost.status, lost.reason) == ("failed", "a result of the training is not finite")
    assert (lost.test_loss, lost.device) == (None, "there")


@pytest.mark.parametrize(("final", "wanted"), [(True, True), (True, False), (False, True)])
def test_lm_eval_is_asked_of_what_is_compared_alone(final, wanted):
    config = shootout_config(with_lm_eval=wanted, lm_eval_folder="mine")

    task = task_of("k", dataclasses.replace(FINAL, final=final), config)

    asked = {"tasks": ("lambada_openai", "hellaswag"), "limit": 256, "folder": "mine"}
    assert task.lm_eval == (asked if final and wanted else {})
    assert task.final == final


def test_an_address_sends_the_cells_to_a_cluster(monkeypatch, tmp_path):
    def on_cluster(tasks, config, place):
        yield tasks[0].key, {"status": "ok", "reason": "", "device": f"of {config.scheduler}"}

    monkeypatch.setattr(cluster, "on_cluster", on_cluster)
    config = shootout_config(scheduler="tcp://there:1")

    [record] = run_cells({"k": FINAL}, config, done=(), place=tmp_path)

    assert record.device == "of tcp://there:1"


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="cannot be written"):
        list(run_cells(CELLS, CONFIG, done=(), place=tmp_path / "file" / "run"))


@pytest.fixture
def ready(monkeypatch):
    """A shootout that nothing keeps from training, but for what a test changes."""
    monkeypatch.setattr(contest, "read", lambda config: None)
    return shootout_config


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"base": ("respsan",)}, "unknown arm 'respsan'"),
        ({"scheduler": "tcp://there:1"}, "none at tcp://there:1"),
        ({}, "too few GPUs"),
    ],
)
def test_what_cannot_be_trained_is_refused_early(ready, monkeypatch, changes, problem):
    def refuse(config):
        raise ConfigError(f"none at {config.scheduler}" if config.scheduler else "too few GPUs")

    refuse_early(ready())
    monkeypatch.setattr(cluster, "refuse_unready", refuse)
    monkeypatch.setattr(contest, "slots", refuse)

    with pytest.raises(ConfigError, match=problem):
        refuse_early(ready(**changes))


def test_a_text_that_cannot_be_read_as_asked_is_refused_early():
    with pytest.raises(ConfigError, match="vocab_size must be at least 257"):
        refuse_early(shootout_config())  # byte pairs beside 256 bytes need more than 64 tokens


def test_tasks_of_lm_eval_are_looked_for_if_they_are_wanted(ready, monkeypatch):
    class Harness:
        @staticmethod
        def load_tasks(tasks, folder):
            raise ConfigError(f"no {tasks[0]} in {folder}")

    monkeypatch.setitem(sys.modules, "psannlm.pages.shootout.lm_eval", Harness)

    refuse_early(ready(lm_eval_folder="mine"))
    with pytest.raises(ConfigError, match="no lambada_openai in mine"):
        refuse_early(ready(with_lm_eval=True, lm_eval_folder="mine"))
