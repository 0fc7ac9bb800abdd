"""The page of raw rows has a target for each row, its file, its hash and what repeats it."""

import dataclasses
from pathlib import Path

from psannlm.publish.raw_rows import about, files_beside, location, rows_page, shown
from tests.published import made_up_row

VALUES = {
    "base": "one",
    "batch_tokens": 32,
    "tokens_per_s": 1234.5678901234,
    "reason": "",
    "x": None,
}


def test_a_row_has_its_target_its_place_and_every_digit():
    row = made_up_row("throughput", VALUES, 4)

    page = rows_page([row, row], {"throughput": row.run})

    assert page.count(f"({row.label})=\n") == 1
    assert "<td>throughput.csv, row 4</td>" in page
    assert "a" * 64 in page
    assert row.command in page
    assert "<td>1234.5678901234</td>" in page
    assert "reason" not in page
    assert '<th scope="row">x</th>' not in page


def test_rows_of_a_file_stand_in_order_whenever_they_were_read():
    rows = [made_up_row("throughput", VALUES, number) for number in (12, 2)]

    page = rows_page(rows, {})

    assert page.index("**Row 2**") < page.index("**Row 12**")
    assert page.count("## Throughput: throughput.csv") == 1


def test_files_lie_beside_the_page_of_the_best_run_and_others_by_their_run(tmp_path):
    shown_run, other = (made_up_row("throughput", VALUES) for _ in range(2))
    folder = tmp_path / "20250101_000000"
    folder.mkdir()
    (folder / "throughput.csv").write_text("base\n")
    other = dataclasses.replace(other, run=dataclasses.replace(other.run, folder=folder))
    best = {"throughput": shown_run.run}

    assert location(shown_run, best) == "data/throughput/throughput.csv"
    assert files_beside([shown_run, other], best) == {
        "data/throughput/20250101_000000/throughput.csv": b"base\n"
    }


def test_what_is_long_is_cut_and_says_how_long_it_is():
    assert shown(["x" * 100]).endswith("… (104 characters)")
    assert shown(0.1) == "0.1"


def test_a_row_is_named_by_what_tells_it_from_others():
    assert about(made_up_row("throughput", VALUES | {"label": "one"})) == "one, batch_tokens 32"


def test_no_row_is_a_page_too():
    assert "No complete run yet" in rows_page([], {})
    assert not files_beside([], {})
    assert Path(location(made_up_row("memory", {}, 1, "savings.csv"), {})).name == "savings.csv"
