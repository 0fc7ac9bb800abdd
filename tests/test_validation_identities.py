"""A validation that contradicts itself is refused even if every hash is right."""

import json
import shutil

import pytest

from psannlm.evidence.runs import EvidenceError, Refused, load
from psannlm.run.check import check, checked_runs
from tests.forging import forge
from tests.validations import made_up_checks, validation_run


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """An honest run in which everything happens."""
    with pytest.MonkeyPatch.context() as patch:
        made_up_checks(patch)
        return validation_run(tmp_path_factory.mktemp("honest"))


@pytest.fixture
def folder(honest, tmp_path, monkeypatch):
    """A copy of it to forge."""
    made_up_checks(monkeypatch)
    return shutil.copytree(honest, tmp_path / "gpu" / honest.name)


def change(folder, at=None, **changes):
    """Forge a finding of the summary, or the whole of it."""

    def changed(text):
        whole = json.loads(text)
        part = whole if at is None else whole["findings"][at]
        part |= changes
        return json.dumps(whole)

    forge(folder, "summary.json", changed)


def test_an_honest_run_passes_whatever_became_of_its_checks(folder):
    check(load(folder))


@pytest.mark.parametrize(
    ("at", "changes", "message"),
    [
        (0, {"status": "failed", "reason": "x"}, "its measures give 'passed'"),
        (2, {"status": "passed", "reason": ""}, "GPU-02, respsann: status is 'passed'"),
        (4, {"status": "passed", "reason": ""}, "yet nothing was measured"),
        (4, {"reason": ""}, "GPU-06, respsann: skipped, and its reason is ''"),
        (0, {"reason": "odd"}, "GPU-01, respsann: passed, and its reason is 'odd'"),
        (0, {"value": 400_000.0}, "value is 400000.0, the worst measure has 299512.25"),
        (0, {"bound": 1.0}, "bound is 1.0, the worst measure has 250000.0"),
        (0, {"measure": "relative error"}, "measure is 'relative error'"),
        (0, {"seconds": 0.0}, "seconds must be positive"),
        (0, {"device": ""}, "GPU-01, respsann: no device"),
        (0, {"base": "sgrpsann"}, "GPU-01 of sgrpsann was not asked for"),
        (0, {"base": "transformer"}, "GPU-01 of transformer .* stands there twice"),
        (None, {"status": "passed"}, "status is 'passed', its findings"),
        (None, {"counts": {"passed": 8, "failed": 0, "skipped": 0}}, "counts is"),
        (None, {"seconds": 1.0}, "seconds is 1.0"),
        (None, {"run": "20200101_000000"}, "run is '20200101_000000'"),
        (None, {"device": "a faster one"}, "device is 'a faster one'"),
        (None, {"findings": "none"}, "cannot be checked"),
    ],
)  # fmt: skip
def test_a_forged_summary_is_named(folder, at, changes, message):
    change(folder, at, **changes)

    with pytest.raises(EvidenceError, match=rf"summary\.json: .*{message}"):
        check(load(folder))


def test_a_measure_that_is_said_to_have_passed_is_named(folder):
    forge(folder, "summary.json", lambda text: text.replace('"passed": false', '"passed": true'))

    with pytest.raises(EvidenceError, match="loss: passed is True, its bound says otherwise"):
        check(load(folder))


@pytest.mark.parametrize(("old", "new"), [("299512.25", "399512.25"), (",0.25,", ",0.35,")])
def test_a_forged_table_of_measures_is_named(folder, old, new):
    forge(folder, "measures.csv", lambda text: text.replace(old, new))

    message = rf"measures\.csv: GPU-01, respsann, .*: value is '{new.strip(',')}'"
    with pytest.raises(EvidenceError, match=message):
        check(load(folder))


def test_a_row_that_was_dropped_from_the_table_is_missed(folder):
    forge(folder, "measures.csv", lambda text: "".join(text.splitlines(keepends=True)[:-1]))

    with pytest.raises(EvidenceError, match=r"measures\.csv: 5 rows, summary\.json has 6"):
        check(load(folder))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("| respsann | failed | loss", "| respsann | passed | loss", "status is 'passed'"),
        ("299,512", "399,512", "value is 399,512"),
        ("| inf |", "| nan |", "value is nan"),
        ("| GPU-06 FSDP | respsann", "| GPU-06 FSDP | sgrpsann", "its row is of GPU-06"),
        ("| GPU-06 FSDP | respsann | ", "GPU-06 | ", "7 rows"),
    ],
)
def test_a_forged_readme_is_named(folder, old, new, message):
    forge(folder, "README.md", lambda text: text.replace(old, new))

    with pytest.raises(EvidenceError, match=rf"README\.md: .*{message}"):
        check(load(folder))


def test_a_log_that_tells_another_story_is_named(folder):
    forge(folder, "stdout.log", lambda text: text.replace("respsann failed", "respsann passed"))

    with pytest.raises(EvidenceError, match=r"stdout\.log: no line of GPU-02, respsann, failed"):
        check(load(folder))


def test_a_file_that_is_gone_is_refused_not_a_crash(folder, tmp_path):
    forge(folder, "summary.json", lambda text: "")

    [refused] = checked_runs(tmp_path)

    assert isinstance(refused, Refused)
    assert "cannot be checked" in refused.reason
