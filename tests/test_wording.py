"""A text may say the same in other words; its numbers and the names in its tables must be right."""

import re

import pytest
from psannlm.evidence.wording import differences

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

    assert list(differences(TEXT[:place] + other + TEXT[place + 1 :], TEXT))


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

    assert list(differences(TEXT.replace(old, new), TEXT)) == []


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

    [problem] = differences(TEXT.replace(old, new), TEXT)

    assert said in problem


def test_a_column_that_only_one_table_has_is_passed_over_and_the_others_count():
    longer = re.sub(r"(?m)^\|.*\|$", r"\g<0> 7 |", TEXT).replace("--- | 7 |", "--- | --- |")

    assert list(differences(longer, TEXT)) == []
    assert list(differences(TEXT, longer)) == []
    assert list(differences(longer.replace("3.7499", "3.7498"), TEXT))
    assert list(differences(TEXT.replace("3.7499", "3.7498"), longer))


def test_a_table_too_few_and_a_table_of_others_are_named():
    words = "\n".join(line for line in TEXT.splitlines() if not line.startswith("|"))
    others = words + "\n| x |\n| - |\n" + "| 1 |\n" * 3

    assert list(differences(words, TEXT)) == ["0 tables, the records give 1"]
    assert "none of its columns ['x'] is one of" in next(differences(others, TEXT))
