"""Every run stands in the history with what it found, and the best and the trends are of equals."""

import dataclasses
import io
import re

import pandas as pd
import pytest

from psannlm.evidence.notebook import default_parameters
from psannlm.evidence.runs import Refused, all_runs, load
from psannlm.evidence.table import table_of
from psannlm.evidence.text import UNKNOWN
from psannlm.pages.registry import pages
from psannlm.publish import history, run_facts, trends
from psannlm.publish.history import best_numbers
from psannlm.run.check import machine_floor
from tests.histories import ROW, history_run
from tests.synthetic import throughput_run

OTHER = {"base": "transformer", "label": "transformer"}


def speeds(reports, n=2, *rows):
    """Runs of one speed each, all asked the same."""
    return [history_run(reports, "throughput", *rows) for _ in range(n)]


# What runs are


def test_only_complete_runs_of_the_page_are_used(tmp_path):
    done = history_run(tmp_path, "throughput")
    other = history_run(tmp_path, "validation")
    failed = history_run(tmp_path, "throughput", status="failed")
    runs = [done, other, failed, Refused(tmp_path, "broken")]

    assert run_facts.complete_runs(runs, "throughput") == [done]
    assert run_facts.complete_runs(runs) == [done, other]
    assert best_numbers(runs[2:]).empty


def test_the_shape_names_network_and_training(tmp_path):
    short = run_facts.shape(history_run(tmp_path, "throughput"))
    long = run_facts.shape(history_run(tmp_path, "tiny_corpus", train_megabytes=0.0))

    assert short == "d_model 64, 2 layers, vocabulary 1,024, context 128"
    assert re.search(r"context \d+, \w+\.txt, all of it, \d+ × read$", long)


def test_code_is_a_commit_and_whether_it_was_changed(tmp_path):
    run = history_run(tmp_path, "throughput")
    for commit, dirty, code in (("0" * 40, True, f"{'0' * 12} (dirty)"), (None, None, "unknown")):
        run.manifest["git"] |= {"commit": commit, "dirty": dirty}

        assert run_facts.code(run) == code


def test_all_differences_of_two_runs_are_named(tmp_path):
    older = history_run(tmp_path, "tiny_corpus", corpus="a", threads=2)
    newer = history_run(tmp_path, "tiny_corpus", corpus="b", threads=1, seed=7)

    assert list(run_facts.differences(newer, older)) == [
        "threads: 1, before 2",
        "parameters differ (seed)",
        "the text differs",
    ]
    assert not list(run_facts.differences(older, older))


@pytest.mark.parametrize("name", ["mlp", "grad_checkpoint"])
def test_a_parameter_is_unequal_only_if_its_default_is_another_value(tmp_path, name):
    older, newer = speeds(tmp_path)
    before = older.manifest["parameters"].pop(name)

    assert not list(run_facts.unequal_parameters(newer, older))
    assert not list(run_facts.unequal_parameters(older, newer)), "whichever knows it"

    newer.manifest["parameters"][name] = [before]
    assert list(run_facts.unequal_parameters(newer, older)) == [name]


def test_every_run_is_a_row_newest_first_and_of_a_refused_one_nothing_but_the_reason(tmp_path):
    runs = [
        history_run(tmp_path, "throughput"),
        history_run(tmp_path, "validation", status="failed"),
        history_run(tmp_path, "validation", status="running"),
        Refused(tmp_path / "benchmarks" / "4", "samples.csv was altered"),
    ]
    runs[1].manifest["reason"] = "ValueError: no"

    table = run_facts.runs_table(runs)

    refused, running, failed, complete = table.to_dict("records")
    assert list(table["run"]) == ["4", *(run.folder.name for run in reversed(runs[:3]))]
    known = {name: value for name, value in refused.items() if value != UNKNOWN}
    assert known == {"run": "4", "status": "refused: samples.csv was altered"}
    assert running["status"] == "interrupted (or still running)"
    assert (failed["status"], failed["found"]) == ("failed: ValueError: no", UNKNOWN)
    assert failed["bases"] == tuple(default_parameters("validation")["base"]), "those asked for"
    assert complete["status"] == "complete"
    assert run_facts.runs_table([]).empty


def test_the_noise_floor_of_a_machine_is_the_widest_of_its_newest_throughput_run(tmp_path):
    old = history_run(tmp_path, "throughput", {"noise_floor": 0.9})
    floors = [ROW | {"noise_floor": floor, "batch_tokens": i} for i, floor in enumerate((0.1, 0.2))]
    new = history_run(tmp_path, "throughput", *floors)
    training = history_run(tmp_path, "validation")
    others = [
        history_run(tmp_path, "validation", **facts)
        for facts in ({"machine": "x"}, {"torch": "x"}, {"preset": "smoke"})
    ]
    runs = [old, new, training, *others]

    assert machine_floor(runs, training) == 0.2
    assert [machine_floor(runs, other) for other in others] == [None] * 3
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


def test_files_are_the_same_whatever_there_is_and_each_is_linked(tmp_path):
    runs = [history_run(tmp_path, "validation"), Refused(tmp_path / "x", "benchmarks/x: broken")]

    empty, full = history.files([]), history.files(runs)

    names = {f"data/history/{name}.csv" for name in (*pages(), "runs", "regressions")}
    assert set(empty) == set(full) == names | {"history.md"}
    for name in names:
        assert f"<{name}>`" in full["history.md"]
    assert "refused: benchmarks/x: broken" in full["history.md"]
    assert "**2 runs**: 1 complete, 1 refused" in full["history.md"]


def test_the_files_read_back_with_rows_and_runs(tmp_path):
    runs = speeds(tmp_path)

    files = history.files(runs)
    speed, all_runs, compared, validation = (
        pd.read_csv(io.StringIO(files[f"data/history/{name}.csv"]))
        for name in ("throughput", "runs", "regressions", "validation")
    )

    assert list(speed["run"]) == [run.folder.name for run in runs]
    assert list(all_runs["bases"]) == ["respsann", "respsann"]
    assert list(compared["verdict"]) == ["within the noise"]
    assert validation.empty


def test_every_table_can_be_chosen_from_by_page_base_and_machine(tmp_path):
    page = history.page(speeds(tmp_path, 3))

    assert page.count("sortable filterable") == 3
    for name, kind, n in (
        ("page", "whole", 3), ("machine", "whole", 3), ("base", "whole", 2), ("bases", "each", 1),
    ):  # fmt: skip
        assert page.count(f'<th scope="col" data-filter="{kind}">{name}</th>') == n


@pytest.mark.slow
def test_a_trend_stands_on_the_page_and_lone_runs_are_counted_beside_it(tmp_path):
    page = history.page([*speeds(tmp_path), history_run(tmp_path, "validation")])

    assert page.count("<figure>") == 1
    assert "- Validation on a machine: one complete run.\n" in page
    assert "- Throughput on" not in page


# Best numbers


@pytest.mark.parametrize(("better", "best"), [("higher", 1), ("lower", 0)])
def test_better_is_higher_or_lower_as_the_column_says(tmp_path, monkeypatch, better, best):
    [table] = pages()["throughput"].tables
    columns = (c.but(better=better) if c.name == "tokens_per_s" else c for c in table.columns)
    changed = dataclasses.replace(table, columns=tuple(columns))
    monkeypatch.setattr(pages()["throughput"], "tables", (changed,), raising=False)
    found = (900.0, 1100.0, 1000.0)
    runs = [history_run(tmp_path, "throughput", {"tokens_per_s": speed}) for speed in found]

    [row] = best_numbers(runs).to_dict("records")

    assert (row["run"], row["runs"], row["row"]) == (runs[best].folder.name, 3, 1)


@pytest.mark.parametrize(
    "facts", [{"machine": "another"}, {"preset": "gpu"}, {"d_model": 8}, {"n_layers": 9}]
)
def test_machines_presets_and_shapes_have_a_best_of_their_own(tmp_path, facts):
    slow = history_run(tmp_path, "throughput")
    fast = history_run(tmp_path, "throughput", {"tokens_per_s": 5000.0}, **facts)

    assert list(best_numbers([slow, fast])["run"]) == [slow.folder.name, fast.folder.name]


def test_settings_of_one_run_are_told_apart_and_failures_left_out(tmp_path):
    rows = {}, {"batch_tokens": 512}, {"mode": "forward"}, {"precision": "bf16", "status": "failed"}

    table = best_numbers([history_run(tmp_path, "throughput", *rows)])

    assert len(set(table["setting"])) == len(table) == 3


# Trends


def test_runs_that_were_asked_the_same_make_a_trend_in_their_order(tmp_path):
    runs = [
        history_run(tmp_path, "throughput", {"tokens_per_s": 100.0 * i}, torch=torch)
        for i, torch in enumerate(("2.0", "2.0", "9.9"))
    ]
    runs.append(history_run(tmp_path, "throughput", status="failed"))

    [trend] = trends.trends(runs)

    [(key, lines)] = trend.series().items()
    assert key == ("speed", "1,024 tokens a step, training step, fp32")
    assert [number.value for number in lines["respsann"]] == [0.0, 100.0, 200.0]
    assert trend.moments == [f"2026-01-0{day} 10:20" for day in (1, 2, 3)]
    assert not list(trends.sentences([trend]))


@pytest.mark.parametrize("facts", [{"machine": "b"}, {"seed": 5}, {"corpus": "x"}, {"d_mlp": 8}])
def test_runs_that_were_asked_something_else_are_no_trend_and_draw_nothing(tmp_path, facts):
    runs = [history_run(tmp_path, "validation"), history_run(tmp_path, "validation", **facts)]

    found = trends.trends(runs)

    assert [len(trend.runs) for trend in found] == [1, 1]
    assert not list(trends.figures(found))
    said = ["Validation on a machine: 2 complete runs, no two of equal parameters."]
    if "machine" in facts:
        said = [f"Validation on {name}: one complete run." for name in ("a machine", "b")]
    assert list(trends.sentences(found)) == said


def test_a_base_that_one_run_lacks_leaves_a_gap_in_its_line(tmp_path):
    runs = [history_run(tmp_path, "throughput"), history_run(tmp_path, "throughput", {}, OTHER)]

    [trend] = trends.trends(runs)

    [lines] = trend.series().values()
    assert lines["transformer"][0] is None
    assert lines["transformer"][1].value == 1000.0
    assert list(trend.series("respsann").values()) == [{"respsann": lines["respsann"]}]
    assert not trend.series("sgrpsann")


@pytest.mark.slow
def test_two_runs_draw_each_base_with_its_interval_and_say_from_when_to_when(tmp_path):
    runs = speeds(tmp_path, 2, {}, OTHER | {"status": "failed", "tokens_per_s": None})

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

    [figure] = trends.figures(trends.trends(speeds(tmp_path, 9, *rows)))

    assert len(figure.panels) == trends.MOST_PANELS
    assert len(re.findall(r">2026-01-\d\d<", next(iter(figure.panels.values())))) <= 4
