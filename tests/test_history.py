"""The history as files has every row of every complete run, and says which run it came from."""

import pandas as pd
import pytest

from psannlm.evidence.rows import TABLES, table_of
from psannlm.evidence.runs import all_runs, load
from psannlm.pages.peer.tables import PEER
from psannlm.publish.history_files import COMMON, OWN, history
from tests.synthetic import throughput_run
from tests.synthetic_memory import memory_run
from tests.synthetic_peer import peer_run
from tests.synthetic_shootout import shootout_run
from tests.trainings import training_run
from tests.validations import made_up_checks, validation_run


@pytest.mark.slow
def test_the_throughput_history_opens_as_the_plan_orders_it_and_names_device_and_run(tmp_path):
    first, second = throughput_run(tmp_path), throughput_run(tmp_path)
    throughput_run(tmp_path, status="failed")

    rows = history("throughput", list(all_runs(tmp_path)))

    assert list(rows.columns[:4]) == ["timestamp", "base", "batch_tokens", "tokens_per_s"]
    assert list(dict.fromkeys(rows["path"])) == [
        f"reports/benchmarks/{run.name}" for run in (first, second)
    ]
    assert rows[["device", "machine", "preset", "commit", "torch"]].notna().all(axis=None)


def test_a_row_of_the_history_has_the_number_of_its_row_in_its_run(tmp_path):
    throughput_run(tmp_path)
    run = load(throughput_run(tmp_path))

    rows = history("throughput", list(all_runs(tmp_path)))

    own = table_of(run)
    mine = rows[rows["run"] == run.folder.name]
    assert list(mine["row"]) == list(range(1, len(own) + 1))
    for row in mine.to_dict("records"):
        assert row["tokens_per_s"] == own.loc[row["row"], "tokens_per_s"]


def test_the_memory_history_has_every_row_of_complete_runs_with_its_code(tmp_path):
    memory_run(tmp_path / "a", n_repeats=1)
    memory_run(tmp_path / "b", n_repeats=1, base=("sgrpsann",))
    memory_run(tmp_path / "c", n_repeats=1, status="failed")

    rows = history("memory", [run for name in "abc" for run in all_runs(tmp_path / name)])

    assert list(rows["base"].value_counts()) == [4, 4, 4], "off, on, and two plain paths"
    assert set(rows["base"]) == {"respsann", "transformer", "sgrpsann"}
    assert set(rows["commit"]) == {"0" * 40}
    assert set(rows["grad_checkpoint"]) == {True, False}


def test_the_validation_history_has_a_row_a_finding(tmp_path, monkeypatch):
    made_up_checks(monkeypatch)
    first = load(validation_run(tmp_path / "1", only="GPU-01"))
    second = load(validation_run(tmp_path / "2", only="GPU-06"))
    failed = load(validation_run(tmp_path / "3", status="failed"))

    rows = history("validation", [first, second, failed])

    assert list(rows["run"]) == [first.folder.name] * 2 + [second.folder.name] * 2
    assert list(rows["status"]) == ["passed"] * 2 + ["skipped"] * 2
    assert list(rows["row"]) == [1, 2, 1, 2]


@pytest.mark.slow
def test_the_training_history_has_a_row_a_complete_training(tmp_path):
    first, second = training_run(tmp_path), training_run(tmp_path, base="transformer")
    training_run(tmp_path, status="failed")

    rows = history("tiny_corpus", list(all_runs(tmp_path)))

    assert list(rows["run"]) == [first.name, second.name]
    assert list(rows["base"]) == ["respsann", "transformer"]
    assert rows.drop(columns="peak_allocated_mib").notna().all(axis=None)


def test_the_history_of_comparisons_has_every_row_of_complete_runs_with_its_code(tmp_path):
    one = {"base": ("respsann",), "setting": ("best",), "n_repeats": 1}
    first = peer_run(tmp_path / "a", **one)
    peer_run(tmp_path / "b", **one, status="failed")

    rows = history("peer", [run for name in "ab" for run in all_runs(tmp_path / name)])

    assert list(rows["side"]) == ["ours", "ours (again)", "published"] * 2
    assert set(rows["timestamp"]) == {first.name}
    assert set(rows["commit"]) == {"0" * 40}
    assert set(rows["preset"]) == {"cpu"}


@pytest.mark.slow
def test_the_shootout_history_has_a_row_an_arm_with_its_run_and_code(tmp_path):
    few = {"base": ("respsann",), "ablation": (), "scale_arms": ()}
    first, second = shootout_run(tmp_path, **few), shootout_run(tmp_path, **few)
    shootout_run(tmp_path, status="failed", **few)

    rows = history("shootout", list(all_runs(tmp_path)))

    assert list(rows["run"]) == [first.name] * 2 + [second.name] * 2
    assert list(rows["base"]) == ["respsann", "gelu"] * 2
    assert set(rows["commit"]) == {"0" * 40}
    assert set(rows["preset"]) == {"cpu"}


def test_every_page_with_rows_has_a_history_and_its_head_stands_without_runs():
    assert set(OWN) == set(TABLES)
    for page in OWN:
        assert set(COMMON) < set(history(page, []).columns)
        assert history(page, []).empty
    assert tuple(history("peer", []).columns[: len(PEER)]) == PEER


@pytest.mark.parametrize(
    ("page", "made"),
    [
        ("throughput", throughput_run),
        ("memory", memory_run),
        ("tiny_corpus", training_run),
        ("validation", validation_run),
        ("peer", peer_run),
        pytest.param("shootout", shootout_run, marks=pytest.mark.slow),
    ],
)
def test_each_history_has_only_runs_of_its_own_and_one_head(tmp_path, page, made, monkeypatch):
    made_up_checks(monkeypatch)
    made(tmp_path)
    runs = list(all_runs(tmp_path))

    found = {name: history(name, runs) for name in OWN}

    assert [name for name, rows in found.items() if len(rows)] == [page]
    pd.testing.assert_index_equal(found[page].columns, history(page, []).columns)
