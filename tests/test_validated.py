"""A validation saves each finding before the next, and ends in an error if one failed."""

import json

import pytest
import torch
from psannlm.pages.validation.measure import CheckFailedError

from psannlm.checks import suite
from psannlm.config.schema import ConfigError
from psannlm.evidence.runs import Run
from psannlm.evidence.session import Page
from psannlm.pages.validation import measure as validated
from tests.synthetic import start_manifest
from tests.validations import SOUND, made, made_up_checks, validation_config


@pytest.fixture
def checks(monkeypatch):
    """A suite of made-up checks."""
    return made_up_checks(monkeypatch)


@pytest.fixture
def page(tmp_path, checks):
    return page_of(tmp_path)


def page_of(reports, **changes):
    config = validation_config(**changes)
    run = Run.start("gpu", start_manifest("validation", config), reports=reports)
    return Page("validation", config, run, torch.device("cpu"))


def stated(run):
    """Check and base of the findings in summary.json."""
    text = (run.folder / "summary.json").read_text()
    return [(f["check"], f["base"]) for f in json.loads(text)["findings"]]


def test_every_check_is_made_and_stated(page):
    findings = validated.validate(page)

    assert [(f.check, f.base) for f in findings] == suite.plan(page.config) == stated(page.run)
    assert page.run.manifest["corpus"]["path"] == "datasets/lm/sample.txt"


def test_what_was_printed_is_kept(page, capsys):
    validated.validate(page)

    log = (page.run.folder / "stdout.log").read_text()
    assert log == capsys.readouterr().out
    lines = log.splitlines()
    assert "preset cpu" in lines[0]
    assert "8 of 8 checks to make" in lines[0]
    assert lines[3].startswith("[3/8] GPU-02 respsann failed in ")
    assert lines[3].endswith(": loss is inf, must be at most 0.5")
    assert lines[-1] == "3 passed, 3 failed, 2 skipped"


def test_a_finding_is_saved_before_the_next_check_begins(page, checks):
    seen = []

    def looking(case):
        seen.append(stated(page.run))
        return checks["GPU-01"].run(case)

    checks["GPU-02"] = checks["GPU-02"]._replace(run=looking)
    validated.validate(page)

    assert [len(before) for before in seen] == [2, 3]


def test_a_killed_run_goes_on_without_making_a_check_twice(page, checks):
    def killed(case):
        raise KeyboardInterrupt

    whole = checks["GPU-06"]
    checks["GPU-06"] = whole._replace(run=killed)
    with pytest.raises(KeyboardInterrupt):
        validated.validate(page)
    before = validated.recorded(page.run)
    checks["GPU-06"] = whole
    for name in ("GPU-01", "GPU-02"):
        checks[name] = checks[name]._replace(run=killed)

    findings = validated.validate(page)

    assert findings[:4] == before
    assert [(f.check, f.base) for f in findings] == suite.plan(page.config)
    log = (page.run.folder / "stdout.log").read_text()
    assert "4 of 8 checks to make" in log
    assert log.count("GPU-01 respsann") == 1


def test_a_text_that_is_not_there_is_refused(tmp_path, checks):
    with pytest.raises(ConfigError, match=r"no_such\.txt does not exist"):
        validated.validate(page_of(tmp_path, corpus="datasets/lm/no_such.txt"))


def test_a_failed_check_ends_in_an_error_that_says_all(checks):
    with pytest.raises(CheckFailedError) as failed:
        validated.judge(made(validation_config(only=("GPU-01", "GPU-02", "GPU-08"))))

    assert str(failed.value).splitlines() == [
        "GPU-02 failed on respsann: loss is inf, must be at most 0.5",
        "GPU-08 failed on respsann: ValueError: no such tensor",
        "GPU-08 failed on transformer: ValueError: no such tensor",
    ]
    assert failed.value._render_traceback_() == [f"CheckFailedError: {failed.value}"]


def test_what_passed_or_was_skipped_ends_well(checks):
    checks.clear()
    checks.update(SOUND)

    validated.judge(made(validation_config()))
