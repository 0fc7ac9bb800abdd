"""Published rows are numbered from one, selected by a condition, and name what repeats them."""

import pytest

from psannlm.evidence.rows import rows_of, table_of
from psannlm.evidence.runs import Evidence, load
from tests.synthetic import throughput_run

FILE = "throughput.csv"


@pytest.fixture
def run(tmp_path):
    return load(throughput_run(tmp_path))


def test_rows_of_a_csv_count_from_the_line_below_its_head(run):
    lines = run.text("throughput.csv").splitlines()

    for row in rows_of(run, FILE):
        assert lines[row.number].startswith(f"{run.folder.name},{row.values['base']},")


@pytest.mark.parametrize(
    ("content", "n"),
    [('[{"x": 1}, {"x": 2}]', 2), ('{"x": 1}', 1), ('{"findings": [{"x": 1}, {"x": 3}]}', 2)],
)
def test_a_list_of_entries_and_a_single_object_are_tables_too(tmp_path, content, n):
    (tmp_path / "a.json").write_text(content)
    run = Evidence(tmp_path, {"notebook": "x"})

    assert list(table_of(run, "a.json").index) == list(range(1, n + 1))
    assert rows_of(run, "a.json")[0].values == {"x": 1}


def test_a_condition_selects_rows_which_keep_their_numbers_and_must_name_columns(run):
    known = {row.number: row for row in rows_of(run, FILE)}

    selected = rows_of(run, FILE, "verdict == 'baseline'")

    assert selected
    for row in selected:
        assert row.values == known[row.number].values
        assert (row.values["ratio"], row.values["ratio_low"]) == (1, None)
    with pytest.raises(ValueError, match=r"cannot select by 'speed > 1'.*speed"):
        rows_of(run, FILE, "speed > 1")


def test_a_row_says_how_to_measure_it_again(run):
    row = rows_of(run, FILE)[1]

    assert row.command == f"python -m psannlm rerun reports/{run.name} --row 2"
    assert row.file == FILE
    assert row.label == f"row-throughput-{run.folder.name}-2"
