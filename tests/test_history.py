"""Every run stands in the history with what it found, and the best and the trends are of equals."""

import dataclasses
import io
import re

import pandas as pd
import pytest

from psannlm.evidence.rows import table_of
from psannlm.evidence.runs import Refused, all_runs, load
from psannlm.evidence.session import default_parameters
from psannlm.evidence.text import UNKNOWN
from psannlm.pages.registry import pages
from psannlm.publish import history, run_facts, trends
from psannlm.publish.history import best_numbers
from psannlm.run.check import machine_floor
from tests.histories import ROW, history_run
from tests.synthetic import throughput_run

# What runs are


def test_only_complete_runs_of_the_page_are_used(tmp_path):
    done = history_run(tmp_path, "throughput", 1)
    other = history_run(tmp_path, "validation", 2)
    failed = history_run(tmp_path, "throughput", 3, status="failed")
    runs = [done, other, failed, Refused(tmp_path, "broken")]

    assert run_facts.complete_runs(runs, "throughput") == [done]
    assert run_facts.complete_runs(runs) == [done, other]


def test_the_shape_names_network_and_training(tmp_path):
    speed = history_run(tmp_path, "throughput", 1)
    training = history_run(tmp_path, "tiny_corpus", 2, train_megabytes=0.0)

    short, long = run_facts.shape(speed), run_facts.shape(training)

    assert short == "d_model 64, 2 layers, vocabulary 1,024, context 128"
    assert re.search(r"context \d+, \w+\.txt, all of it, \d+ × read$", long)


def test_code_changed_since_its_commit_is_said(tmp_path):
    run = history_run(tmp_path, "throughput", 1)
    assert run_facts.code(run) == "0" * 12

    run.manifest["git"]["dirty"] = True
    assert run_facts.code(run) == f"{'0' * 12} (dirty)"

    run.manifest["git"]["commit"] = None
    assert run_facts.code(run).startswith("unknown")


def test_all_differences_of_two_runs_are_named(tmp_path):
    older = history_run(tmp_path, "tiny_corpus", 1, corpus="a", threads=2)
    newer = history_run(tmp_path, "tiny_corpus", 2, corpus="b", threads=1, seed=7)

    assert list(run_facts.differences(newer, older)) == [
        "threads: 1, before 2",
        "parameters differ (seed)",
        "the text differs",
    ]
    assert not list(run_facts.differences(older, older))


@pytest.mark.parametrize("name", ["mlp", "grad_checkpoint"])
def test_a_parameter_is_unequal_only_if_its_default_is_another_value(tmp_path, name):
    older, newer = history_run(tmp_path, "throughput", 1), history_run(tmp_path, "throughput", 2)
    before = older.manifest["parameters"].pop(name)

    assert not list(run_facts.unequal_parameters(newer, older))
    assert not list(run_facts.unequal_parameters(older, newer)), "whichever knows it"

    newer.manifest["parameters"][name] = [before]
    assert list(run_facts.unequal_parameters(newer, older)) == [name]


def test_every_run_is_a_row_newest_first(tmp_path):
    runs = [
        history_run(tmp_path, "throughput", 1),
        history_run(tmp_path, "validation", 2, status="failed"),
        history_run(tmp_path, "validation", 3, status="running"),
        Refused(tmp_path / "benchmarks" / "4", "benchmarks/4: samples.csv was altered"),
    ]

    table = run_facts.runs_table(runs)

    assert list(table["run"]) == ["4", *(run.folder.name for run in reversed(runs[:3]))]
    assert list(table["status"]) == [
        "refused: benchmarks/4: samples.csv was altered",
        "interrupted (or still running)",
        "failed",
        "complete",
    ]
    assert run_facts.runs_table([]).empty


def test_nothing_but_the_reason_is_told_of_a_refused_run_and_nothing_found_of_a_failed(tmp_path):
    failed = history_run(tmp_path, "validation", 1, status="failed")
    failed.manifest["reason"] = "ValueError: no"

    refused, row = run_facts.runs_table([failed, Refused(tmp_path, "broken")]).to_dict("records")

    known = {name for name, value in refused.items() if value != UNKNOWN}
    assert known == {"run", "status"}
    assert (row["status"], row["found"]) == ("failed: ValueError: no", UNKNOWN)
    assert row["bases"] == tuple(default_parameters("validation")["base"]), "those asked for"


def test_the_noise_floor_of_a_machine_is_the_widest_of_its_newest_throughput_run(tmp_path):
    row = ROW
    old = history_run(tmp_path, "throughput", 1, row | {"noise_floor": 0.9})
    floors = [row | {"noise_floor": floor, "batch_tokens": i} for i, floor in enumerate((0.1, 0.2))]
    new = history_run(tmp_path, "throughput", 2, *floors)
    training = history_run(tmp_path, "validation", 3)
    others = [
        history_run(tmp_path, "validation", 4 + at, **facts)
        for at, facts in enumerate(({"machine": "x"}, {"torch": "x"}, {"preset": "smoke"}))
    ]
    runs = [old, new, training, *others]

    assert machine_floor(runs, training) == 0.2
    assert [machine_floor(runs, other) for other in others] == [None] * 3


def test_where_no_speed_was_measured_no_noise_is_known(tmp_path):
    training = history_run(tmp_path, "validation", 1)

    assert machine_floor([training], training) is None


# Files and page


def test_the_history_of_a_page_has_every_row_of_complete_runs_and_its_number(tmp_path):
    first, second = load(throughput_run(tmp_path)), load(throughput_run(tmp_path))
    throughput_run(tmp_path, status="failed")

    rows = history.history("throughput", list(all_runs(tmp_path)))

    assert list(rows.columns[:4]) == ["timestamp", "base", "batch_tokens", "tokens_per_s"]
    assert list(dict.fromkeys(rows["path"])) == [f"reports/{run.name}" for run in (first, second)]
    assert rows[["device", "machine", "preset", "commit", "torch"]].notna().all(axis=None)
    own = table_of(second, "throughput.csv")
    mine = rows[rows["run"] == second.folder.name]
    assert list(mine["row"]) == list(range(1, len(own) + 1))
    assert list(mine["tokens_per_s"]) == list(own["tokens_per_s"])


@pytest.mark.parametrize("page", pages())
def test_every_page_has_a_history_whose_head_stands_without_runs(page):
    table = history.table_of_page(page)

    assert {column.name for column in history.COMMON} <= set(table.names)
    assert list(history.history(page, []).columns) == table.names
    assert not [column.name for column in table.columns if column.nested]


def test_the_history_of_nothing_says_so_under_each_heading():
    page = history.page([])

    assert page.startswith("# History\n\n**Question.** ")
    assert "no run yet, `make report` makes the first" in page
    assert "no complete run yet" in page
    assert "nothing to compare" in page
    assert "## What this does not show" in page


def test_files_are_the_same_whatever_there_is_and_each_is_linked(tmp_path):
    runs = [history_run(tmp_path, "validation", 1), Refused(tmp_path / "x", "benchmarks/x: broken")]

    empty, full = history.files([]), history.files(runs)

    names = {*(f"data/history/{page}.csv" for page in pages()), "data/history/runs.csv"}
    assert set(empty) == set(full) == names | {"history.md", "data/history/regressions.csv"}
    for name in sorted(set(full) - {"history.md"}):
        assert f"<{name}>`" in full["history.md"]
    assert "refused: benchmarks/x: broken" in full["history.md"]
    assert "**2 runs**: 1 complete, 1 refused" in full["history.md"]


def test_the_files_read_back_with_rows_and_runs(tmp_path):
    older, newer = (history_run(tmp_path, "throughput", i) for i in (1, 2))

    files = history.files([older, newer])

    rows = pd.read_csv(io.StringIO(files["data/history/throughput.csv"]))
    runs = pd.read_csv(io.StringIO(files["data/history/runs.csv"]))
    changes = pd.read_csv(io.StringIO(files["data/history/regressions.csv"]))
    assert list(rows["run"]) == [older.folder.name, newer.folder.name]
    assert list(runs["bases"]) == ["respsann", "respsann"]
    assert list(changes["verdict"]) == ["within the noise"]
    assert pd.read_csv(io.StringIO(files["data/history/validation.csv"])).empty


def test_every_table_can_be_chosen_from_by_page_base_and_machine(tmp_path):
    page = history.page([history_run(tmp_path, "throughput", i) for i in (1, 2, 3)])

    assert page.count("sortable filterable") == 3
    assert page.count('<th scope="col" data-filter="whole">page</th>') == 3
    assert page.count('<th scope="col" data-filter="whole">machine</th>') == 3
    assert page.count('<th scope="col" data-filter="whole">base</th>') == 2
    assert page.count('<th scope="col" data-filter="each">bases</th>') == 1


@pytest.mark.slow
def test_a_trend_stands_on_the_page_and_lone_runs_are_counted_beside_it(tmp_path):
    runs = [history_run(tmp_path, "throughput", i) for i in (1, 2)]
    runs.append(history_run(tmp_path, "validation", 3))

    page = history.page(runs)

    assert page.count("<figure>") == 1
    assert "- Validation on a machine: one complete run.\n" in page
    assert "- Throughput on" not in page


# Best numbers


@pytest.mark.parametrize(
    ("better", "best"),
    [("higher", 1), ("lower", 0)],
)
def test_better_is_higher_or_lower_as_the_column_says(tmp_path, monkeypatch, better, best):
    [table] = pages()["throughput"].tables
    columns = (c.but(better=better) if c.name == "tokens_per_s" else c for c in table.columns)
    changed = dataclasses.replace(table, columns=tuple(columns))
    monkeypatch.setattr(pages()["throughput"], "tables", (changed,), raising=False)
    speeds = (900.0, 1100.0, 1000.0)
    runs = [
        history_run(tmp_path, "throughput", 1 + i, {"tokens_per_s": v})
        for i, v in enumerate(speeds)
    ]

    [row] = best_numbers(runs).to_dict("records")

    assert row["run"] == runs[best].folder.name
    assert row["runs"] == 3
    assert row["row"] == 1


@pytest.mark.parametrize(
    "facts", [{"machine": "another"}, {"preset": "gpu"}, {"d_model": 8}, {"n_layers": 9}]
)
def test_machines_presets_and_shapes_have_a_best_of_their_own(tmp_path, facts):
    slow = history_run(tmp_path, "throughput", 1)
    fast = history_run(tmp_path, "throughput", 2, {"tokens_per_s": 5000.0}, **facts)

    assert list(best_numbers([slow, fast])["run"]) == [slow.folder.name, fast.folder.name]


def test_settings_of_one_run_are_told_apart_and_failures_left_out(tmp_path):
    rows = {}, {"batch_tokens": 512}, {"mode": "forward"}, {"precision": "bf16", "status": "failed"}

    table = best_numbers([history_run(tmp_path, "throughput", 1, *rows)])

    assert len(set(table["setting"])) == len(table) == 3


def test_a_run_that_is_refused_or_did_not_end_is_never_the_best(tmp_path):
    failed = history_run(tmp_path, "throughput", 1, status="failed")

    assert best_numbers([failed, Refused(tmp_path, "altered")]).empty


# Trends


def test_runs_that_were_asked_the_same_make_a_trend_in_their_order(tmp_path):
    runs = [
        history_run(tmp_path, "throughput", 1 + i, {"tokens_per_s": 100.0 * i}) for i in range(3)
    ]

    [trend] = trends.trends(runs)

    [(key, lines)] = trend.series().items()
    assert key == ("speed", "1,024 tokens a step, training step, fp32")
    assert [number.value for number in lines["respsann"]] == [0.0, 100.0, 200.0]
    assert trend.moments == [f"2026-01-0{day} 10:20" for day in (1, 2, 3)]
    assert not list(trends.sentences([trend]))


@pytest.mark.parametrize("facts", [{"machine": "b"}, {"seed": 5}, {"corpus": "x"}, {"d_mlp": 8}])
def test_runs_that_were_asked_something_else_are_no_trend(tmp_path, facts):
    runs = [
        history_run(tmp_path, "validation", 1),
        history_run(tmp_path, "validation", 2, **facts),
    ]

    found = trends.trends(runs)

    assert [len(trend.runs) for trend in found] == [1, 1]
    said = list(trends.sentences(found))
    if "machine" in facts:
        assert said == [
            "Validation on a machine: one complete run.",
            "Validation on b: one complete run.",
        ]
    else:
        assert said == ["Validation on a machine: 2 complete runs, no two of equal parameters."]


def test_a_base_that_one_run_lacks_leaves_a_gap_in_its_line(tmp_path):
    both = {}, {"base": "transformer", "label": "transformer"}
    runs = [history_run(tmp_path, "throughput", 1), history_run(tmp_path, "throughput", 2, *both)]

    [trend] = trends.trends(runs)

    [lines] = trend.series().values()
    assert lines["transformer"][0] is None
    assert lines["transformer"][1].value == 1000.0
    assert list(trend.series("respsann").values()) == [{"respsann": lines["respsann"]}]
    assert not trend.series("sgrpsann")


def test_another_torch_goes_on_with_the_trend_and_runs_that_failed_do_not(tmp_path):
    runs = [
        history_run(tmp_path, "validation", 1),
        history_run(tmp_path, "validation", 2, torch="9.9"),
        history_run(tmp_path, "validation", 3, status="failed"),
    ]

    [trend] = trends.trends(runs)

    assert len(trend.runs) == trends.FEWEST


def test_a_lone_run_draws_nothing(tmp_path):
    assert not list(trends.figures(trends.trends([history_run(tmp_path, "throughput", 1)])))


@pytest.mark.slow
def test_two_runs_draw_each_base_with_its_interval_and_say_from_when_to_when(tmp_path):
    failed = {"status": "failed", "tokens_per_s": None}
    rows = {}, {"base": "transformer", "label": "transformer"} | failed
    runs = [history_run(tmp_path, "throughput", 1 + i, *rows) for i in range(2)]

    [figure] = trends.figures(trends.trends(runs))

    panel = figure.panels["speed, 1,024 tokens a step, training step, fp32"]
    assert 'aria-label="Throughput on a machine, run after run' in panel
    assert ">respsann<" in panel
    assert ">transformer<" not in panel, "it was never measured"
    assert ">tokens/s<" in panel
    assert "2 complete runs of equal parameters, from 2026-01-01 10:20 to" in figure.caption
    assert not list(trends.figures(trends.trends(runs), "sgrpsann"))


@pytest.mark.slow
def test_many_runs_and_many_settings_stay_legible(tmp_path):
    rows = [{"batch_tokens": 2**i} for i in range(trends.MOST_PANELS + 2)]
    runs = [history_run(tmp_path, "throughput", 1 + i, *rows) for i in range(9)]

    [figure] = trends.figures(trends.trends(runs))

    assert len(figure.panels) == trends.MOST_PANELS
    assert len(re.findall(r">2026-01-\d\d<", next(iter(figure.panels.values())))) <= 4
