"""Places of sentences are filled in by name, and digits that nothing would hold are refused."""

import pandas as pd
import pytest

from psannlm.publish.claim_sentences import filled, loose_digits, unmeasured

TABLE = pd.DataFrame({"base": ["a", "a"], "loss": [1.25, 2.5], "seeds": [5, 5]})


def test_a_place_has_the_value_that_all_rows_share_and_ends_of_a_range_their_own():
    said = filled("{base}: {loss_least:tenths} to {loss_most:hundredths}, {seeds} x {rows}", TABLE)

    assert said == "a: 1.2 to 2.50, 5 x 2"


PAIR = pd.DataFrame({"base": ["b", "a"], "ratio": [1.53, 1.26]})


def test_names_are_listed_with_the_values_of_their_own_rows():
    assert filled("{base=ratio:hundredths} times", PAIR) == "b 1.53, a 1.26 times"


@pytest.mark.parametrize(
    "sentence",
    [
        "b and a run at {ratio_least:hundredths} and {ratio_most:hundredths}",
        "of a and b the fastest runs at {ratio_most:hundredths}",
    ],
)
def test_names_of_rows_beside_sorted_values_are_refused(sentence):
    with pytest.raises(ValueError, match="a, b of the column base stand beside the ends"):
        filled(sentence, PAIR)


def test_one_name_beside_a_range_is_read_as_its_own():
    assert filled("a: {ratio_least:tenths} to {ratio_most:tenths}", PAIR) == "a: 1.3 to 1.5"


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ("{loss:tenths}", "differs between rows; say loss_least or loss_most"),
        ("{speed:tenths}", "{speed} names no column"),
        ("{loss_least}", "needs a format: whole"),
        ("{seeds:nice}", "names no format"),
        ("{base:tenths}", "is no number here, but 'a'"),
        ("{base=loss:tenths}", "names several rows alike"),
        ("{base=speed:tenths}", "{speed} names no column"),
        ("{name=loss:tenths}", "{name} names no column"),
        ("{loss", "opens or closes no place"),
    ],
)
def test_a_place_that_cannot_be_filled_is_refused(sentence, message):
    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        filled(sentence, TABLE)


@pytest.mark.parametrize("condition", ["tokens == 1024", "top1 > top5", "a == 'bf16' and b < c"])
def test_digits_of_names_and_of_equalities_are_free_to_stand(condition):
    assert not list(loose_digits("{top1:percent}", condition))


@pytest.mark.parametrize(
    "condition", ["loss < 4", "tokens == 1024 or base == 'a'", "base != 'bf16'", "a in ['b1']"]
)
def test_digits_that_could_be_others_unnoticed_are_refused(condition):
    assert "has a typed number" in "".join(loose_digits("fine", condition))


def test_a_reason_that_no_row_holds_is_refused():
    [problem] = unmeasured("It is slower: {ratio:tenths}. It computes again what it does not keep.")

    assert problem.startswith("'It computes again what it does not keep.' is filled in from no row")
    assert not list(unmeasured("It is {ratio:tenths} and {base}. So is {other_base}."))


def test_a_number_typed_into_a_sentence_is_refused():
    assert list(loose_digits("it needs 3 days", "")) == [
        "its sentence has a typed number; name a column instead"
    ]
