"""The page of downloads offers every file, says what it holds, and how the report is cited."""

import re

import pytest

from psannlm.evidence.runs import load
from psannlm.publish import build as book
from psannlm.publish.citation import citation
from psannlm.publish.data_archive import ZIP, data_files
from psannlm.publish.downloads import PAGE, size, staged
from tests.forging import forge
from tests.synthetic import throughput_run
from tests.trainings import training_run


def test_every_file_has_a_row_with_its_size_rows_and_what_it_holds(tmp_path):
    run = load(throughput_run(tmp_path))
    files = data_files({"throughput": run}, {})

    text = staged([run], {})[PAGE].decode()

    for path, content in files.items():
        name = path.removeprefix("throughput/")
        (row,) = (line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        assert f"| {size(len(content))} |" in row
        assert not row.endswith("| — |")
    steps = run.text("samples.csv").count("\n") - 1
    assert f"| {steps:,} | One row a timed step. |" in text


@pytest.mark.slow
def test_what_is_staged_is_linked_and_the_rest_is_in_the_zip(tmp_path):
    throughput_run(tmp_path)
    results = tmp_path / "book" / "results"

    book.stage(results, reports=tmp_path)

    text = (results / PAGE).read_text()
    links = re.findall(r"\{download\}`(?:[^`<]*<)?([^`>]+)>?`", text)
    assert ZIP in links
    assert "data/throughput/throughput.csv" in links
    assert all((results / link).is_file() for link in links)
    assert "| `README.md`, in the zip |" in text
    assert "| `throughput.ipynb`, in the zip |" in text, "the page of that name is a shorter one"


def test_a_staged_file_that_differs_is_not_offered_in_place_of_the_evidence(tmp_path):
    run = load(throughput_run(tmp_path))

    text = staged([run], {"throughput.ipynb": b"a shorter page"})[PAGE].decode()

    assert "| `throughput.ipynb`, in the zip |" in text


def test_a_history_is_offered_wherever_it_is_staged():
    text = staged([], {"data/history/rows.csv": b"base\n1\n"})[PAGE].decode()
    other = staged([], {"rows.csv": b"base\n1\n"})[PAGE].decode()

    assert "## History" in text
    assert "{download}`rows.csv <rows.csv>`" in other
    assert "{download}`rows.csv <data/history/rows.csv>`" in text


def test_columns_are_tables_that_sort(tmp_path):
    run = load(training_run(tmp_path))

    text = staged([run], {})[PAGE].decode()

    assert "Columns of tiny_corpus/loss.csv" in text
    assert "<td>grad_norm</td><td></td><td>Norm of the gradient before it is clipped.</td>" in text
    assert 'class="dataframe sortable"' in text
    assert text.count("```{dropdown}") == 1


def test_the_page_tells_which_run_it_offers_and_how_to_cite(tmp_path):
    run = load(throughput_run(tmp_path))

    text = staged([run], {})[PAGE].decode()

    assert f"Run {run.name}, preset" in text
    assert citation().bibtex in text


def test_without_a_run_the_page_says_how_to_make_one():
    made = staged([], {})

    assert "No complete run yet" in made[PAGE].decode()
    assert set(made) == {PAGE, ZIP}


def test_the_zip_changes_with_its_data_alone(tmp_path):
    folder = throughput_run(tmp_path)
    first = staged([load(folder)], {"answers.md": b"one"})[ZIP]
    again = staged([load(folder)], {"answers.md": b"another"})[ZIP]
    forge(folder, "throughput.csv", lambda text: text + "\n")

    changed = staged([load(folder)], {})[ZIP]

    assert (first == again, first == changed) == (True, False)


def test_sizes_are_said_in_kib_or_mib():
    assert [
        size(n).replace("\N{NO-BREAK SPACE}", " ") for n in (51, 2048, 1_023_999, 3 * 2**20)
    ] == [
        "0.0 KiB",
        "2.0 KiB",
        "1000.0 KiB",
        "3.0 MiB",
    ]
