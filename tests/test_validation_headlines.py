"""The worst finding of a check is a failed one, then the most strained, and counts say the rest."""

from psannlm.publication.headlines import headlines
from psannlm.report.runs import load
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
