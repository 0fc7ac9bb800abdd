"""The worst finding of a check is a failed one, then the most strained, and counts say the rest."""

import json

from psannlm.evidence.runs import load
from psannlm.publish.headlines import headlines
from tests.published import best, best_headlines
from tests.validations import made_up_checks, validation_run


def test_a_failed_base_stands_for_its_check_and_skipped_ones_are_counted(tmp_path, monkeypatch):
    made_up_checks(monkeypatch)
    run = load(validation_run(tmp_path))

    found = {headline.name: headline for headline in headlines({"validation": run})}

    failed = found["validation.GPU-02.worst"]
    assert (failed.verdict, failed.row.values["base"]) == ("failed", "respsann")
    assert found["validation.GPU-02.failed"].value == 1
    assert found["validation.GPU-02.passed"].value == 1
    assert found["validation.GPU-06.worst"].verdict == "skipped"
    assert found["validation.GPU-06.skipped"].value == 2
    least = found["validation.GPU-01.worst"]
    assert (least.quantity, least.target) == ("tokens/s", "at least 250,000")


def test_a_check_is_told_by_the_measure_nearest_to_its_bound_over_all_bases():
    found = {headline.name: headline for headline in best_headlines()}
    findings = json.loads(best()["validation"].text("summary.json"))["findings"]

    for check in {finding["check"] for finding in findings}:
        ours = [finding for finding in findings if finding["check"] == check]
        worst = found[f"validation.{check}.worst"]
        counts = [found[f"validation.{check}.{s}"].value for s in ("passed", "failed", "skipped")]
        assert counts == [len(ours), 0, 0]
        assert worst.value in [finding["value"] for finding in ours]
        most = max(f["value"] / f["bound"] for f in ours if f["bound"]) if check == "GPU-01" else 0
        if most:
            assert worst.value / worst.row.values["bound"] == most
