"""Refused runs are named, and claims are asked only of the evidence that the project keeps."""

import pytest

from psannlm.evidence.runs import Refused
from psannlm.publish.claims import CLAIMS
from psannlm.publish.soundness import problems, problems_of
from tests.published import committed


@pytest.mark.slow
def test_a_refused_run_and_the_claims_that_it_no_longer_supports_are_named():
    throughput = next(r for r in committed() if r.manifest["notebook"] == "throughput")
    runs = [
        Refused(run.folder, "benchmarks/x: altered") if run is throughput else run
        for run in committed()
    ]

    found = problems_of(runs, CLAIMS)

    assert found[0] == "left out of the book: benchmarks/x: altered"
    assert len(found) == 4
    assert all("no complete run of throughput" in problem for problem in found[1:])


def test_evidence_that_lies_elsewhere_is_not_claimed_of(tmp_path):
    (tmp_path / "benchmarks" / "20260101_000000").mkdir(parents=True)

    assert problems(tmp_path) == [
        "left out of the book: benchmarks/20260101_000000: run.json is missing"
    ]
