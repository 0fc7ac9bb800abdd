"""Files that differ are told apart by place and value; rounding is no difference."""

import json
import re

import pytest

from psannlm.evidence.verify import differences, text_differences

TABLE = "base,seed,loss\ngelu,0,2.5\ngelu,1,2.25\n"


def test_equal_files_do_not_differ():
    assert list(differences("a.csv", TABLE, TABLE)) == []


def test_a_changed_number_of_a_table_is_named_with_its_row_and_both_values():
    stated = TABLE.replace("2.25", "2.2500001")

    assert list(differences("a.csv", stated, TABLE)) == [
        "a.csv: row 2, gelu 1: loss is '2.2500001', the records give '2.25'"
    ]


@pytest.mark.parametrize(
    ("stated", "n"),
    [
        ("2.2500000000000004", 0),  # a rounding
        ("2.250000001", 0),
        ("2.25000001", 1),
        ("inf", 1),
        ("", 1),
        ("two", 1),
    ],
)
def test_numbers_with_a_point_agree_but_for_rounding(stated, n):
    assert len(list(differences("a.csv", TABLE.replace("2.25", stated), TABLE))) == n


def test_whole_numbers_agree_to_the_last_digit():
    right = "base,flops\ngelu,12345678901234567\n"

    assert list(differences("a.csv", right.replace("567\n", "568\n"), right))


def test_a_row_too_few_and_a_field_too_many_are_named():
    [missing] = differences("a.csv", TABLE.rsplit("gelu", 1)[0], TABLE)
    [broken] = differences("a.csv", TABLE.replace("0,2.5", "0,2.5,7"), TABLE)

    assert missing == "a.csv: 1 rows, the records give 2"
    assert broken == "a.csv: row 1 has 4 fields for 3 columns"


def test_columns_that_only_one_file_has_are_passed_over_unless_they_are_fixed():
    more = "base,seed,loss,extra\ngelu,0,2.5,7\ngelu,1,2.25,8\n"
    fewer = "base,seed\ngelu,0\ngelu,1\n"

    assert list(differences("a.csv", more, TABLE)) == []
    assert list(differences("a.csv", TABLE, more, fixed=["loss"])) == []
    assert list(differences("a.csv", fewer, TABLE)) == []
    assert list(differences("a.csv", fewer, TABLE, fixed=["loss"])) == [
        "a.csv: column 'loss' is missing"
    ]


def test_beside_a_column_of_its_own_every_other_digit_of_a_table_counts():
    more = "extra,base,seed,loss\n7,gelu,0,2.5\n8,gelu,1,2.26\n"

    assert list(differences("a.csv", more, TABLE)) == [
        "a.csv: row 2, gelu 1: loss is '2.26', the records give '2.25'"
    ]


def test_no_column_hides_behind_another_and_no_table_behind_names_of_its_own():
    twice = "base,seed,loss,loss\ngelu,0,9,2.5\ngelu,1,9,2.25\n"

    assert "a.csv: two columns are called 'loss'" in list(differences("a.csv", twice, TABLE))
    assert "its columns are ['x']" in next(differences("a.csv", "x\n1\n2\n", TABLE))


def test_fields_of_json_are_named_by_their_path():
    right = json.dumps({"arms": [{"loss": 2.5, "n": 3, "is_edge": False}], "seed": 1})
    stated = json.dumps({"arms": [{"loss": 2.6, "n": 4, "is_edge": 0}], "seeds": 1})

    assert list(differences("a.json", stated, right, fixed=["seed"])) == [
        "a.json: arms[0].loss is 2.6, the records give 2.5",
        "a.json: arms[0].n is 4, the records give 3",
        "a.json: arms[0].is_edge is 0, the records give False",
        "a.json: seed is missing",
    ]


def test_fields_that_only_one_file_has_are_passed_over():
    assert list(differences("a.json", '{"a": 1, "b": 2}', '{"a": 1, "c": 3}')) == []


def test_rounding_is_no_difference_in_json_and_a_null_is_one():
    right = json.dumps({"loss": 2.5})

    assert list(differences("a.json", '{"loss": 2.5000000000000004}', right)) == []
    assert list(differences("a.json", '{"loss": null}', right))


def test_a_list_of_another_length_is_named():
    assert list(differences("a.json", '{"a": [1]}', '{"a": [1, 2]}')) == [
        "a.json: a has 1 entries, the records give 2"
    ]


def test_ends_of_lines_do_not_count():
    assert list(differences("a.md", "one 1\r\n", "one 1\n")) == []
    assert list(differences("a.csv", TABLE.replace("\n", "\r\n"), TABLE)) == []


# Texts

TEXT = """# Shootout, 20261122_174654

Every arm saw 835,584 tokens with 5 seeds; a difference is -0.0856 at best.

| place | base | loss (95% interval) | verdict | seeds |
| --- | :-- | --: | --- | --- |
| 1 | gelu | 3.7499 (3.7288 – 3.7710) | baseline | 5 |
| 2 | respsann | 3.7705 (3.5348 – 4.0062) | worse | 5 (1 failed) |
| 3 | a\\|b | — | — | 0 |

Made in 12 min 3 s.
"""
DIGITS = [match.start() for match in re.finditer(r"\d", TEXT)]


@pytest.mark.parametrize("place", DIGITS)
def test_any_changed_digit_is_seen(place):
    other = str((int(TEXT[place]) + 1) % 10)

    assert list(text_differences(TEXT[:place] + other + TEXT[place + 1 :], TEXT))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Every arm saw 835,584 tokens with 5 seeds", "Trained on 835,584 tokens, 5 seeds each"),
        ("# Shootout, ", "## The shootout of "),
        (" interval)", " range)"),
        ("3.7288 – 3.7710", "3.7288 to 3.7710"),
        ("(1 failed)", "(1 without an end)"),
        ("Made in 12 min 3 s.\n", ""),
    ],
)
def test_other_words_are_no_difference(old, new):
    assert old in TEXT

    assert list(text_differences(TEXT.replace(old, new), TEXT)) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("| gelu |", "| glu |", "row 1, 1 gelu: base is 'glu', the records give 'gelu'"),
        ("| worse |", "| better |", "verdict is 'better', the records give 'worse'"),
        ("| — | — | 0 |", "| 3.1 | — | 0 |", "is '3.1', the records give '—'"),
        ("-0.0856", "+0.0856", "is '+0.0856', the records give '-0.0856'"),
        ("12 min 3 s", "12 min 3 s and 7", "number 8 of its sentences is '7'"),
        ("| 3 | a\\|b | — | — | 0 |\n", "", "2 rows of a table, the records give 3"),
        ("| baseline | 5 |", "| baseline |", "row 1 of a table has 4 cells for 5 headings"),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_both_values(old, new, said):
    assert old in TEXT

    [problem] = text_differences(TEXT.replace(old, new), TEXT)

    assert said in problem


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
