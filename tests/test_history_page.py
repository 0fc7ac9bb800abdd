"""The history page shows every run, and says where there is nothing to compare."""

import io

import pandas as pd
import pytest

from psannlm.evidence.runs import Refused
from psannlm.publish import history as history_page
from psannlm.publish.history_files import OWN
from tests.histories import history_run


def test_the_history_of_nothing_says_so_under_each_heading():
    page = history_page.page([])

    assert page.startswith("# History\n\n**Question.** ")
    assert "no run yet, `make report` makes the first" in page
    assert "no complete run yet" in page
    assert "nothing to compare" in page
    assert "## What this does not show" in page


def test_files_are_the_same_whatever_there_is_and_each_is_linked(tmp_path):
    runs = [history_run(tmp_path, "memory", 1), Refused(tmp_path / "x", "benchmarks/x: broken")]

    empty, full = history_page.files([]), history_page.files(runs)

    names = {*(f"data/history/{page}.csv" for page in OWN), "data/history/runs.csv"}
    assert set(empty) == set(full) == names | {"history.md", "data/history/regressions.csv"}
    for name in sorted(set(full) - {"history.md"}):
        assert f"<{name}>`" in full["history.md"]
    assert "refused: benchmarks/x: broken" in full["history.md"]
    assert "**2 runs**: 1 complete, 1 refused" in full["history.md"]


def test_the_files_read_back_with_rows_and_runs(tmp_path):
    older, newer = (history_run(tmp_path, "throughput", i) for i in (1, 2))

    files = history_page.files([older, newer])

    rows = pd.read_csv(io.StringIO(files["data/history/throughput.csv"]))
    runs = pd.read_csv(io.StringIO(files["data/history/runs.csv"]))
    changes = pd.read_csv(io.StringIO(files["data/history/regressions.csv"]))
    assert list(rows["run"]) == [older.folder.name, newer.folder.name]
    assert list(runs["bases"]) == ["respsann", "respsann"]
    assert list(changes["verdict"]) == ["within the noise"]
    assert pd.read_csv(io.StringIO(files["data/history/peer.csv"])).empty


def test_every_table_can_be_chosen_from_by_page_base_and_machine(tmp_path):
    page = history_page.page([history_run(tmp_path, "throughput", i) for i in (1, 2, 3)])

    assert page.count("sortable filterable") == 3
    assert page.count('<th scope="col" data-filter="whole">page</th>') == 3
    assert page.count('<th scope="col" data-filter="whole">machine</th>') == 3
    assert page.count('<th scope="col" data-filter="whole">base</th>') == 2
    assert page.count('<th scope="col" data-filter="each">bases</th>') == 1


@pytest.mark.slow
def test_a_trend_stands_on_the_page_and_lone_runs_are_counted_beside_it(tmp_path):
    runs = [history_run(tmp_path, "throughput", i) for i in (1, 2)]
    runs.append(history_run(tmp_path, "memory", 3))

    page = history_page.page(runs)

    assert page.count("<figure>") == 1
    assert "- Memory on a machine: one complete run.\n" in page
    assert "- Throughput on" not in page
