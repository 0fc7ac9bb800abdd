"""The history shows every run, whatever became of it."""

import pytest

from psannlm.publication.history import (
    SHOOTOUT,
    TRAINING,
    VALIDATION,
    memory_history,
    peer_history,
    runs_table,
    shootout_history,
    throughput_history,
    training_history,
    validation_history,
)
from psannlm.report.runs import all_runs, load
from tests.synthetic import throughput_run
from tests.synthetic_memory import memory_run
from tests.synthetic_peer import peer_run
from tests.synthetic_shootout import shootout_run
from tests.trainings import training_run
from tests.validations import made_up_checks, validation_run


def test_every_run_is_a_row_newest_first(tmp_path):
    done = throughput_run(tmp_path)
    failed = throughput_run(tmp_path, status="failed")
    altered = throughput_run(tmp_path)
    (altered / "samples.csv").write_text("")

    table = runs_table(list(all_runs(tmp_path)))

    assert list(table["run"]) == [altered.name, failed.name, done.name]
    assert list(table["status"].str.partition(":")[0]) == ["refused", "failed", "complete"]


def test_the_throughput_history_has_the_rows_of_complete_runs_with_their_device(tmp_path):
    first, second = throughput_run(tmp_path), throughput_run(tmp_path)
    throughput_run(tmp_path, status="failed")

    history = throughput_history(list(all_runs(tmp_path)))

    assert set(history["timestamp"]) == {first.name, second.name}
    assert history["device"].notna().all()


def test_the_memory_history_has_every_row_of_complete_runs_with_its_code(tmp_path):
    memory_run(tmp_path / "a", n_repeats=1)
    memory_run(tmp_path / "b", n_repeats=1, base=("sgrpsann",))
    memory_run(tmp_path / "c", n_repeats=1, status="failed")

    history = memory_history([run for name in "abc" for run in all_runs(tmp_path / name)])

    assert list(history["base"].value_counts()) == [4, 4, 4], "off, on, and two plain paths"
    assert set(history["base"]) == {"respsann", "transformer", "sgrpsann"}
    assert set(history["commit"]) == {"0" * 40}
    assert set(history["grad_checkpoint"]) == {True, False}


def test_no_run_makes_an_empty_table_not_a_crash():
    assert runs_table([]).empty
    assert throughput_history([]).empty
    assert memory_history([]).empty
    assert training_history([]).empty
    assert validation_history([]).empty
    assert peer_history([]).empty


def test_the_validation_history_has_a_row_a_finding(tmp_path, monkeypatch):
    made_up_checks(monkeypatch)
    first = load(validation_run(tmp_path / "1", only="GPU-01"))
    second = load(validation_run(tmp_path / "2", only="GPU-06"))
    failed = load(validation_run(tmp_path / "3", status="failed"))

    history = validation_history([first, second, failed])

    assert list(history["run"]) == [first.folder.name] * 2 + [second.folder.name] * 2
    assert list(history["status"]) == ["passed"] * 2 + ["skipped"] * 2
    assert list(history.columns) == list(VALIDATION)
    assert history["device"].notna().all()


def test_the_training_history_has_a_row_a_complete_training(tmp_path):
    first, second = training_run(tmp_path), training_run(tmp_path, base="transformer")
    training_run(tmp_path, status="failed")
    throughput_run(tmp_path)

    history = training_history(list(all_runs(tmp_path)))

    assert list(history["run"]) == [first.name, second.name]
    assert list(history["base"]) == ["respsann", "transformer"]
    assert list(history.columns) == list(TRAINING)
    others = history.drop(columns="peak_allocated_mib")
    assert others.notna().all(axis=None)


def test_the_history_of_comparisons_has_every_row_of_complete_runs_with_its_code(tmp_path):
    one = {"base": ("respsann",), "setting": ("best",), "n_repeats": 1}
    first = peer_run(tmp_path / "a", **one)
    peer_run(tmp_path / "b", **one, status="failed")

    history = peer_history([run for name in "ab" for run in all_runs(tmp_path / name)])

    assert list(history["side"]) == ["ours", "ours (again)", "published"] * 2
    assert set(history["timestamp"]) == {first.name}
    assert set(history["commit"]) == {"0" * 40}
    assert set(history["preset"]) == {"cpu"}


@pytest.mark.slow
def test_the_shootout_history_has_a_row_an_arm_with_its_run_and_code(tmp_path):
    few = {"base": ("respsann",), "ablation": (), "scale_arms": ()}
    first, second = shootout_run(tmp_path, **few), shootout_run(tmp_path, **few)
    shootout_run(tmp_path, status="failed", **few)

    found = shootout_history(list(all_runs(tmp_path)))

    assert tuple(found.columns) == SHOOTOUT
    assert list(found["run"]) == [first.name] * 2 + [second.name] * 2
    assert list(found["base"]) == ["respsann", "gelu"] * 2
    assert set(found["commit"]) == {"0" * 40}
    assert set(found["preset"]) == {"cpu"}
    assert found["device"].notna().all()
    assert tuple(shootout_history(()).columns) == SHOOTOUT


@pytest.mark.parametrize(
    "made",
    [
        throughput_run,
        memory_run,
        training_run,
        validation_run,
        peer_run,
        pytest.param(shootout_run, marks=pytest.mark.slow),
    ],
)
def test_each_history_has_only_runs_of_its_own(tmp_path, made, monkeypatch):
    made_up_checks(monkeypatch)
    made(tmp_path)
    runs = list(all_runs(tmp_path))

    found = {
        throughput_run: throughput_history(runs),
        memory_run: memory_history(runs),
        training_run: training_history(runs),
        validation_run: validation_history(runs),
        peer_run: peer_history(runs),
        shootout_run: shootout_history(runs),
    }

    assert [f for f, table in found.items() if len(table)] == [made]
