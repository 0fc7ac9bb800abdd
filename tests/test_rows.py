"""Published rows are numbered from one, selected by a condition, and name what repeats them."""

import pytest

from psannlm.evidence.rows import TABLES, rows_of, table_of
from psannlm.evidence.runs import load
from tests.synthetic import throughput_run
from tests.synthetic_memory import memory_run
from tests.trainings import training_run
from tests.validations import made_up_checks, validation_run


def test_rows_of_a_csv_count_from_the_line_below_its_head(tmp_path):
    run = load(throughput_run(tmp_path))
    lines = run.text("throughput.csv").splitlines()

    for row in rows_of(run):
        assert lines[row.number].startswith(f"{run.folder.name},{row.values['base']},")


def test_a_list_of_entries_and_a_single_object_are_tables_too(tmp_path, monkeypatch):
    made_up_checks(monkeypatch)
    memory, training = load(memory_run(tmp_path)), load(training_run(tmp_path))
    validation = load(validation_run(tmp_path))

    assert list(table_of(memory).index) == list(range(1, len(table_of(memory)) + 1))
    assert [row.number for row in rows_of(training)] == [1]
    assert rows_of(validation)[0].values["check"].startswith("GPU-")


def test_a_condition_selects_rows_which_keep_their_numbers(tmp_path):
    run = load(throughput_run(tmp_path))
    known = {row.number: row for row in rows_of(run)}

    selected = rows_of(run, "verdict == 'baseline'")

    assert selected
    for row in selected:
        assert row.values == known[row.number].values
        assert row.values["ratio"] == 1


def test_what_is_unknown_is_none(tmp_path):
    run = load(throughput_run(tmp_path))

    [baseline, *_] = rows_of(run, "verdict == 'baseline'")

    assert baseline.values["ratio_low"] is None


def test_a_condition_that_names_no_column_is_refused(tmp_path):
    run = load(throughput_run(tmp_path))

    with pytest.raises(ValueError, match=r"cannot select by 'speed > 1'.*speed"):
        rows_of(run, "speed > 1")


def test_a_row_says_how_to_measure_it_again(tmp_path):
    run = load(throughput_run(tmp_path))

    row = rows_of(run)[1]

    assert row.command == f"python -m psannlm rerun reports/{run.name} --row 2"
    assert row.file == TABLES["throughput"]
    assert row.label == f"row-throughput-{run.folder.name}-2"
