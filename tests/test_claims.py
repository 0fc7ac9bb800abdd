"""Claims hold on the committed evidence; whatever denies one is named, down to a single digit."""

import json
import shutil

import pytest

from psannlm.evidence.runs import Evidence, Refused, load
from psannlm.publish.claims import CLAIMS, ClaimChecker, claims_about, held, problems
from psannlm.publish.headline import PLAN
from tests.forging import forge
from tests.published import best, committed


@pytest.fixture(scope="module")
def checker():
    return ClaimChecker(committed())


def newer(tmp_path, page, name, change):
    """A copy of the best run of a page, begun a day later, with an artifact changed."""
    folder = tmp_path / "benchmarks" / "20301231_000000"
    shutil.copytree(best()[page].folder, folder)
    path = folder / "run.json"
    manifest = json.loads(path.read_text()) | {"started_at": "2030-12-31T00:00:00+00:00"}
    path.write_text(json.dumps(manifest))
    forge(folder, name, change)
    return load(folder)


def with_manifest(run, **changes):
    return Evidence(run.folder, {**run.manifest, **changes})


def test_all_claims_hold_on_the_committed_evidence(checker):
    assert checker.problems(CLAIMS.read_text(), "claims.yaml") == []


@pytest.mark.slow
def test_every_item_of_the_plan_is_claimed_and_every_sentence_filled_in():
    found = held(CLAIMS, committed())

    assert {item for one in found for item in one.claim.plan} == set(PLAN)
    assert all(one.sentence and "{" not in one.sentence and one.rows for one in found)


@pytest.mark.slow
def test_a_row_that_denies_a_claim_is_named_with_its_number_and_the_condition(tmp_path):
    def larger(text):
        rows = json.loads(text)
        rows[2] |= {"saved_verdict": "off by 30%"}
        return json.dumps(rows)

    run = newer(tmp_path, "memory", "memory.json", larger)

    found = problems(CLAIMS, [*committed(), run])

    assert found[0] == (
        "claims.yaml: claim kept-as-predicted: benchmarks/20301231_000000, memory.json, row 3: "
        "saved_verdict 'off by 30%' does not satisfy \"saved_verdict == 'within 2%'\""
    )
    assert all("kept-as-predicted" in problem for problem in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"preset": "gpu"},
        {"environment": {"device": "NVIDIA H200"}},
        {"status": "failed"},
        {"parameters": {"only": ["GPU-02"]}},
    ],
)
def test_a_run_of_another_kind_breaks_no_claim(tmp_path, changes):
    run = newer(tmp_path, "memory", "memory.json", lambda text: "[]")

    assert problems(CLAIMS, [*committed(), run]) != []
    assert problems(CLAIMS, [*committed(), with_manifest(run, **changes)]) == []


@pytest.mark.slow
def test_a_refused_run_supports_nothing():
    runs = [
        Refused(run.folder, "altered") if run == best()["tiny_corpus"] else run
        for run in committed()
    ]

    found = problems(CLAIMS, runs)

    assert len(found) == 2
    assert "no complete run of tiny_corpus, preset cpu, on AMD EPYC, 2 cores" in found[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("plan: [BMRK-02]", "plan: [BMRK-03]", "BMRK-03 is answered by the page memory"),
        ("plan: [BMRK-02]", "plan: [BMRK-22]", "plan.0: Input should be"),
        ("GPU-07, GPU-08", "GPU-07", "no claim answers GPU-08 of the plan"),
        ("check != 'FAST'", "check == 'GPU-01'", "its rows are of GPU-01"),
        (
            "claim: sgrpsann-trains",
            "claim: waveresnet-trains",
            "waveresnet-trains-slower: is there",
        ),
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
def test_what_is_written_wrongly_is_named(checker, old, new, message):
    text = CLAIMS.read_text()
    assert old in text

    found = checker.problems(text.replace(old, new, 1), "claims.yaml")

    assert any(message in problem for problem in found), found
    assert all(problem.startswith("claims.yaml: ") for problem in found)


@pytest.mark.parametrize("text", ["", "a: b", "- [", "- 3"])
def test_a_file_that_is_no_list_of_claims_is_refused(text):
    assert ClaimChecker([]).problems(text, "claims.yaml")


def test_a_file_that_is_not_there_is_a_problem(tmp_path):
    assert "cannot be read" in problems(tmp_path / "claims.yaml", [])[0]


def test_claims_are_about_the_evidence_of_the_project_alone(tmp_path):
    assert claims_about(CLAIMS.parents[1] / "reports") == CLAIMS
    assert claims_about(tmp_path) is None


@pytest.mark.slow
def test_no_digit_of_the_claims_can_be_changed_unnoticed(checker):
    text = CLAIMS.read_text()
    assert checker.problems(text, "claims.yaml") == []

    digits = [i for i, character in enumerate(text) if character.isdigit()]

    assert len(digits) > 50
    for i in digits:
        for step in (1, 7):
            other = str((int(text[i]) + step) % 10)
            altered = text[:i] + other + text[i + 1 :]
            assert checker.problems(altered, "claims.yaml"), altered[i - 60 : i + 20]
