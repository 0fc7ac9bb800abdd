"""Files that differ are told apart by place and value; rounding is no difference."""

import re

import pytest

from psannlm.evidence.verify import differences, text_differences

TABLE = "base,seed,loss\ngelu,0,2.5\ngelu,1,2.25\n"
MORE = "extra,base,seed,loss\n7,gelu,0,2.5\n8,gelu,1,2.25\n"
FEWER = "base,seed\ngelu,0\ngelu,1\n"
FLOPS = "base,flops\ngelu,1234567890123456"
LOSS = '{"loss": 2.5}'


@pytest.mark.parametrize(
    ("name", "stated", "right", "fixed"),
    [
        ("a.csv", TABLE, TABLE, []),
        ("a.csv", TABLE.replace("\n", "\r\n"), TABLE, []),
        ("a.csv", MORE, TABLE, []),
        ("a.csv", FEWER, TABLE, []),
        ("a.csv", TABLE, MORE, ["loss"]),
        ("a.csv", TABLE.replace("2.25", "2.2500000000000004"), TABLE, []),
        ("a.csv", TABLE.replace("2.25", "2.250000001"), TABLE, []),
        ("a.json", '{"a": 1, "b": 2}', '{"a": 1, "c": 3}', []),
        ("a.json", '{"loss": 2.5000000000000004}', LOSS, []),
        ("a.md", "one 1\r\n", "one 1\n", []),
    ],
)
def test_rounding_ends_of_lines_and_columns_of_one_file_are_no_difference(
    name, stated, right, fixed
):
    assert list(differences(name, stated, right, fixed=fixed)) == []


@pytest.mark.parametrize("stated", ["2.25000001", "inf", "", "two"])
def test_another_number_is_one_difference(stated):
    assert len(list(differences("a.csv", TABLE.replace("2.25", stated), TABLE))) == 1


@pytest.mark.parametrize(
    ("stated", "right", "problem"),
    [
        (TABLE.replace("2.25", "2.26"), TABLE, "row 2, gelu 1: loss is '2.26', {}'2.25'"),
        (MORE.replace("2.25", "2.26"), TABLE, "row 2, gelu 1: loss is '2.26', {}'2.25'"),
        (FLOPS + "8\n", FLOPS + "7\n", "row 1, gelu: flops is '12345678901234568', {}'{flops}'"),
        (TABLE[:-12], TABLE, "1 rows, {}2"),
        (TABLE.replace("0,2.5", "0,2.5,7"), TABLE, "row 1 has 4 fields for 3 columns"),
        (FEWER, MORE, "column 'loss' is missing"),
        ("x\n1\n2\n", FEWER, "its columns are ['x'], they should be ['base', 'seed']"),
        ('{"loss": null}', LOSS, "loss is None, {}2.5"),
        ('{"loss": [1]}', '{"loss": [1, 2]}', "loss has 1 entries, {}2"),
        ('{"arms": [{"loss": 2.6}]}', '{"arms": [{"loss": 2.5}]}', "arms[0].loss is 2.6, {}2.5"),
        ('{"n": 3}', '{"n": 4}', "n is 3, {}4"),
        ('{"is_edge": 0}', '{"is_edge": false}', "is_edge is 0, {}False"),
        ('{"losses": 1}', LOSS, "loss is missing"),
    ],
)
def test_what_differs_is_named_with_its_place_and_both_values(stated, right, problem):
    name = "a.json" if right.startswith("{") else "a.csv"
    said = problem.format("the records give ", flops=12345678901234567)

    assert list(differences(name, stated, right, fixed=["loss"])) == [f"{name}: {said}"]


def test_no_column_hides_behind_another():
    twice = "base,seed,loss,loss\ngelu,0,9,2.5\ngelu,1,9,2.25\n"

    assert "a.csv: two columns are called 'loss'" in list(differences("a.csv", twice, TABLE))


TEXT = """# Shootout, 20261122_174654

Every arm saw 835,584 tokens with 5 seeds; a difference is -0.0856 at best.

| place | base | loss (95% interval) | verdict | seeds |
| --- | :-- | --: | --- | --- |
| 1 | gelu | 3.7499 (3.7288 – 3.7710) | baseline | 5 |
| 2 | respsann | 3.7705 (3.5348 – 4.0062) | worse | 5 (1 failed) |
| 3 | a\\|b | — | — | 0 |

Made in 12 min 3 s.
"""


@pytest.mark.parametrize("place", [match.start() for match in re.finditer(r"\d", TEXT)])
def test_any_changed_digit_of_a_text_is_seen(place):
    other = str((int(TEXT[place]) + 1) % 10)

    assert list(text_differences(TEXT[:place] + other + TEXT[place + 1 :], TEXT))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Every arm saw 835,584 tokens with 5 seeds", "Trained on 835,584 tokens, 5 seeds", None),
        ("# Shootout, ", "## The shootout of ", None),
        (" interval)", " range)", None),
        ("3.7288 – 3.7710", "3.7288 to 3.7710", None),
        ("(1 failed)", "(1 without an end)", None),
        ("Made in 12 min 3 s.\n", "", None),
        ("| gelu |", "| glu |", "row 1, 1 gelu: base is 'glu', the records give 'gelu'"),
        ("| worse |", "| better |", "verdict is 'better', the records give 'worse'"),
        ("| — | — | 0 |", "| 3.1 | — | 0 |", "is '3.1', the records give '—'"),
        ("-0.0856", "+0.0856", "is '+0.0856', the records give '-0.0856'"),
        ("12 min 3 s", "12 min 3 s and 7", "number 8 of its sentences is '7'"),
        ("| 3 | a\\|b | — | — | 0 |\n", "", "2 rows of a table, the records give 3"),
        ("| baseline | 5 |", "| baseline |", "row 1 of a table has 4 cells for 5 headings"),
    ],
)
def test_other_words_are_no_difference_and_other_numbers_and_names_are_told(old, new, said):
    assert old in TEXT

    problems = list(text_differences(TEXT.replace(old, new), TEXT))

    assert len(problems) == (said is not None)
    assert all(said in problem for problem in problems)


def test_a_column_that_only_one_table_has_is_passed_over_and_the_others_count():
    longer = re.sub(r"(?m)^\|.*\|$", r"\g<0> 7 |", TEXT).replace("--- | 7 |", "--- | --- |")

    assert list(text_differences(longer, TEXT)) == []
    assert list(text_differences(TEXT, longer)) == []
    assert list(text_differences(longer.replace("3.7499", "3.7498"), TEXT))
    assert list(text_differences(TEXT.replace("3.7499", "3.7498"), longer))


def test_a_table_too_few_and_a_table_of_others_are_named():
    words = "\n".join(line for line in TEXT.splitlines() if not line.startswith("|"))
    others = words + "\n| x |\n| - |\n" + "| 1 |\n" * 3

    assert list(text_differences(words, TEXT)) == ["0 tables, the records give 1"]
    assert "none of its columns ['x'] is one of" in next(text_differences(others, TEXT))
