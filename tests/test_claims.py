"""Claims hold on the committed evidence; whatever denies one is named, down to a single digit."""

import dataclasses
import functools
import json
import shutil

import pandas as pd
import pytest

from psannlm.evidence.runs import Refused, load
from psannlm.publish import claims
from psannlm.publish.claims import CLAIMS, ClaimChecker, Source, filled, loose_digits
from tests.forging import forge
from tests.published import best, committed, made_up_row, made_up_run


@pytest.fixture(scope="module")
def problems():
    """What is wrong with a text of claims on the committed evidence; each claim is checked once."""
    checker = ClaimChecker(committed())
    checker.check = functools.cache(checker.check)
    return lambda text: checker.read(text)[1]


def test_all_claims_hold_on_the_committed_evidence(problems):
    assert problems(CLAIMS.read_text()) == []


@pytest.mark.slow
def test_a_row_that_denies_a_claim_is_named_with_its_number_and_the_condition(tmp_path):
    def larger(text):
        rows = json.loads(text)
        rows[2] |= {"saved_verdict": "off by 30%"}
        return json.dumps(rows)

    folder = tmp_path / "benchmarks" / "20301231_000000"
    shutil.copytree(best()["memory"].folder, folder)
    manifest = json.loads((folder / "run.json").read_text())
    manifest["started_at"] = "2030-12-31T00:00:00+00:00"
    (folder / "run.json").write_text(json.dumps(manifest))
    forge(folder, "memory.json", larger)

    _, found = claims.checked([*committed(), load(folder)], CLAIMS)

    assert found[0] == (
        "claims.yaml: claim kept-as-predicted: benchmarks/20301231_000000, memory.json, row 3: "
        "saved_verdict 'off by 30%' does not satisfy \"saved_verdict == 'within 2%'\""
    )
    assert all("kept-as-predicted" in problem for problem in found)


@pytest.mark.slow
def test_a_refused_run_and_the_claims_that_it_no_longer_supports_are_named():
    gone = best()["throughput"]
    runs = [Refused(r.folder, "benchmarks/x: altered") if r == gone else r for r in committed()]

    _, found = claims.checked(runs, CLAIMS)

    assert found[0] == "left out of the book: benchmarks/x: altered"
    assert len(found) == 4
    said = "no complete run of throughput, preset cpu, on AMD EPYC, 2 cores"
    assert all(said in problem for problem in found[1:])
    assert claims.checked(runs, None) == ([], found[:1])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("plan: [BMRK-02]", "plan: [BMRK-03]", "BMRK-03 is answered by the page memory"),
        ("plan: [BMRK-02]", "plan: [BMRK-22]", "plan.0: Input should be"),
        ("GPU-07, GPU-08", "GPU-07", "no claim answers GPU-08 of the plan"),
        ("check != 'FAST'", "check == 'GPU-01'", "its rows are of GPU-01"),
        ("claim: sgrpsann-trains", "claim: waveresnet-trains", "trains-slower: is there twice"),
        ("label == 'sgrpsann'", "label == 'none'", "no row is selected by"),
        ("label == 'sgrpsann'", "labels == 'none'", "cannot select by"),
        ("file: peer.csv", "file: peers.csv", "has no file peers.csv"),
        ("condition: ", "conditions: ", "Extra inputs are not permitted"),
        ("{perplexity:tenths}", "82.9", "typed number"),
        ("{base=ratio:hundredths}.\n", "{base=ratio:hundredths}. It rests.\n", "from no row"),
        ("base == 'gelu_scaled'", "base != 'gelu'", "beside must select one row, not 6"),
        ("# What", "# 3 What", "line 1: a comment has a digit"),
    ],
)
def test_what_is_written_wrongly_is_named(problems, old, new, message):
    text = CLAIMS.read_text()
    assert old in text

    found = problems(text.replace(old, new, 1))

    assert any(message in problem for problem in found), found


def test_claims_are_a_list_that_must_be_there_about_the_evidence_of_the_project_alone(tmp_path):
    [found] = claims.checked([], tmp_path / "claims.yaml")[1]

    assert all(ClaimChecker([]).read(text)[1] for text in ("", "a: b", "- [", "- 3"))
    assert found.startswith("claims.yaml: cannot be read")
    assert claims.claims_about(CLAIMS.parents[1] / "reports") == CLAIMS
    assert claims.claims_about(tmp_path) is None


@pytest.mark.slow
def test_no_digit_of_the_claims_can_be_changed_unnoticed(problems):
    text = CLAIMS.read_text()

    digits = [i for i, character in enumerate(text) if character.isdigit()]

    assert len(digits) > 50
    for i in digits:
        for step in (1, 7):
            other = str((int(text[i]) + step) % 10)
            altered = text[:i] + other + text[i + 1 :]
            assert problems(altered), altered[i - 60 : i + 20]


SOURCE = Source(page="throughput", preset="cpu", device="a device")


def begun(at, **parameters):
    run = made_up_run("throughput", **parameters)
    return dataclasses.replace(run, manifest=run.manifest | {"started_at": at})


def test_the_newest_run_of_the_kind_is_taken_and_one_that_left_checks_out_is_not():
    old, new, partial = begun("2026-01-01"), begun("2026-02-01"), begun("2026-03-01", only=["x"])

    checker = ClaimChecker([new, old, partial])

    assert checker.run(SOURCE) == new
    for change in ({"device": "another"}, {"preset": "gpu"}, {"page": "memory"}):
        with pytest.raises(ValueError, match="no complete run of"):
            checker.run(SOURCE.model_copy(update=change))


def test_rows_of_another_file_than_the_published_one_keep_its_name():
    device = best()["memory"].manifest["environment"]["device"]
    source = Source(
        page="memory", preset="cpu", device=device, file="savings.csv", where="saver == 'fast_sine'"
    )

    rows = ClaimChecker(committed()).rows(source)

    assert {row.file for row in rows} == {"savings.csv"}
    assert {row.values["saver"] for row in rows} == {"fast_sine"}
    assert all("-savings-" in row.label and "papermill" in row.command for row in rows)


def test_the_row_beside_stands_in_every_row_under_names_of_its_own():
    rows = [made_up_row("throughput", {"base": "a", "n": n}, n) for n in (3, 7)]

    table = claims.joined(rows, made_up_row("throughput", {"base": "b", "n": 1}))

    assert list(table.index) == [3, 7]
    assert list(table["other_base"]) == ["b", "b"]
    assert list(table["n"]) == [3, 7]


TABLE = pd.DataFrame({"base": ["a", "a"], "loss": [1.25, 2.5], "seeds": [5, 5]})
PAIR = pd.DataFrame({"base": ["b", "a"], "ratio": [1.53, 1.26]})


def test_a_place_has_the_value_of_all_rows_the_ends_of_a_range_or_each_row_by_name():
    said = filled("{base}: {loss_least:tenths} to {loss_most:hundredths}, {seeds} x {rows}", TABLE)

    assert said == "a: 1.2 to 2.50, 5 x 2"
    assert filled("{base=ratio:hundredths} times", PAIR) == "b 1.53, a 1.26 times"


@pytest.mark.parametrize("text", ["b and a run at {ratio_least:short}", "a and b {ratio_most:g}"])
def test_names_of_rows_beside_sorted_values_are_refused_but_for_one_name(text):
    with pytest.raises(ValueError, match="a, b of the column base stand beside the ends"):
        filled(text, PAIR)
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


def test_a_number_or_a_reason_that_no_row_holds_is_refused():
    [problem] = claims.unmeasured("It is {ratio:tenths} and {base}. It computes again what is not.")

    assert problem.startswith("'It computes again what is not.' is filled in from no row")
    assert list(loose_digits("it needs 3 days", "")) == [
        "its sentence has a typed number; name a column instead"
    ]


@pytest.mark.slow
def test_a_claim_that_fails_is_shown_as_one_that_does_not_hold(tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text(CLAIMS.read_text().replace("'slower'", "'faster'", 1))

    page = claims.claims_page(claims.checked(committed(), path)[0])

    assert page.count("✗ does not hold") == 1
    assert "row 7: verdict 'slower' does not satisfy" in page
    assert "Nothing is claimed" in claims.claims_page([])
