"""What is shown says the same as what is known, and cannot break the page."""

import pandas as pd
import pytest

from psannlm.evidence import text as views


def test_text_in_a_table_is_escaped():
    frame = pd.DataFrame({"<th>": ["<script>"]})

    shown = views.sortable(frame, 'a "caption"')

    assert "<script>" not in shown
    assert "<th>" not in shown
    assert 'aria-label="a &quot;caption&quot;"' in shown


def test_a_table_of_facts_is_escaped():
    assert "<script>" not in views.facts_table({"<script>": "<script>"})


@pytest.mark.parametrize("unknown", [None, float("nan")])
def test_what_is_unknown_is_a_dash(unknown):
    assert views.number(unknown, ".1f") == "—"
    assert views.interval(unknown, 1.0, 2.0, ".1f") == "—"
    assert views.interval(1.5, unknown, unknown, ".1f") == "1.5"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (59.97, "1 min 0 s"),
        (60, "1 min 0 s"),
        (723.4, "12 min 3 s"),
        (3599.7, "1 h 0 min"),
        (12_000, "3 h 20 min"),
    ],
)
def test_a_time_is_said_in_two_units(seconds, said):
    assert views.duration(seconds) == said


def test_characters_that_a_page_cannot_hold_leave_a_mark():
    assert views.printable("a\x00b\x1b[0m\ud800\nc\t“é”") == "a\ufffdb\ufffd[0m\ufffd\nc\t“é”"


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 FLOP"), (950, "950 FLOP"), (5.51e9, "5.51 GFLOP"), (1.2345e15, "1.23 PFLOP")],
)
def test_operations_are_said_with_a_prefix(number, said):
    assert views.flops(number) == said


def test_columns_to_filter_by_are_marked_and_say_whether_cells_have_several_values():
    frame = pd.DataFrame({"page": ["a"], "bases": [("x", "y")], "speed": [1]})

    shown = views.sortable(frame, "runs", filters=("page", "bases"))

    assert '<th scope="col" data-filter="whole">page</th>' in shown
    assert '<th scope="col" data-filter="each">bases</th>' in shown
    assert '<th scope="col">speed</th>' in shown
    assert "<td>x, y</td>" in shown
    assert 'class="dataframe sortable filterable"' in shown
    assert "filter" not in views.sortable(frame, "runs")


def test_only_a_long_cell_may_break_into_lines():
    frame = pd.DataFrame({"why": ["x" * views.LONG, "x" * (views.LONG + 1)]})

    shown = views.sortable(frame, "reasons")

    assert f"<td>{'x' * views.LONG}</td>" in shown
    assert f'<td class="long">{"x" * (views.LONG + 1)}</td>' in shown
