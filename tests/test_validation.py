"""The validation page: findings saved one by one, told truly, refused where they contradict."""

import dataclasses
import json
import math
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest

from psannlm import ROOT
from psannlm.checks import suite
from psannlm.checks.findings import Finding
from psannlm.config.schema import ConfigError
from psannlm.evidence.runs import load
from psannlm.pages.validation import figures, prose, records
from psannlm.pages.validation.page import PAGE, CheckFailedError
from psannlm.run import check as identities
from psannlm.run import preset as runner
from tests.forging import forge
from tests.pages import info_of, numbers_of, open_session, problems
from tests.validations import (
    SOUND,
    made,
    made_up_checks,
    measure,
    validation_config,
    validation_run,
)

CONFIG = validation_config()


@pytest.fixture
def checks(monkeypatch):
    """A suite of made-up checks."""
    return made_up_checks(monkeypatch)


@pytest.fixture
def findings(checks):
    """Of a suite in which everything happens."""
    return made(CONFIG)


@pytest.fixture
def session(tmp_path, checks):
    return open_session(PAGE, CONFIG, tmp_path)


def stated(run):
    """Check and base of the findings in summary.json."""
    text = (run.folder / "summary.json").read_text()
    return [(f["check"], f["base"]) for f in json.loads(text)["findings"]]


def test_every_check_is_made_logged_and_stated(session):
    session.measure()

    assert [f.key for f in session.records] == suite.plan(CONFIG) == stated(session.run)
    assert session.run.manifest["corpus"]["path"] == "datasets/lm/sample.txt"
    lines = (session.run.folder / "stdout.log").read_text().splitlines()
    assert lines[2].startswith("[3/8] GPU-02 respsann failed in ")
    assert lines[2].endswith(": loss is inf, must be at most 0.5")
    assert lines[-1] == "3 passed, 3 failed, 2 skipped"


def test_a_killed_run_keeps_its_findings_and_goes_on_without_making_a_check_twice(session, checks):
    def killed(case):
        raise KeyboardInterrupt

    whole = checks["GPU-06"]
    checks["GPU-06"] = whole._replace(run=killed)
    with pytest.raises(KeyboardInterrupt):
        session.measure()
    before = list(session.records)
    assert stated(session.run) == [f.key for f in before] == suite.plan(CONFIG)[:4]
    checks["GPU-06"] = whole
    for name in ("GPU-01", "GPU-02"):
        checks[name] = checks[name]._replace(run=killed)

    session.measure()

    assert session.records[:4] == before
    assert [f.key for f in session.records] == suite.plan(CONFIG)


def test_a_text_that_is_not_there_is_refused(tmp_path, checks):
    config = validation_config(corpus="datasets/lm/no_such.txt")

    with pytest.raises(ConfigError, match=r"no_such\.txt does not exist"):
        open_session(PAGE, config, tmp_path).measure()


def test_a_failed_check_ends_in_an_error_that_says_all(checks):
    with pytest.raises(CheckFailedError) as failed:
        PAGE.judge(made(validation_config(only=("GPU-01", "GPU-02", "GPU-08"))))

    assert str(failed.value).splitlines() == [
        "GPU-02 failed on respsann: loss is inf, must be at most 0.5",
        "GPU-08 failed on respsann: ValueError: no such tensor",
        "GPU-08 failed on transformer: ValueError: no such tensor",
    ]
    checks.clear()
    checks.update(SOUND)
    PAGE.judge(made(CONFIG))


def test_findings_are_read_as_they_were_written_whatever_their_numbers(findings):
    strange = dataclasses.replace(
        findings[0], base="sgrpsann", measures=(measure(value=math.nan), measure(value=-math.inf))
    )
    texts = PAGE.texts([*findings, strange], info_of(PAGE, CONFIG, ()))

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    whole = json.loads(texts["summary.json"], parse_constant=refuse)
    assert whole["counts"] == {"passed": 4, "failed": 3, "skipped": 2}
    assert whole["findings"][2]["value"] == "inf"
    assert (whole["findings"][0]["value"], whole["findings"][0]["bound"]) == (299_512.25, 250_000.0)
    *same, again = records.from_texts(texts)
    assert same == findings
    assert math.isnan(again.measures[0].value)
    assert again.measures[1].value == -math.inf


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ("passed skipped", "passed"), ("skipped", "skipped"), ("", "skipped"),
        ("skipped failed passed", "failed"),
    ],
)  # fmt: skip
def test_a_run_in_which_nothing_was_checked_has_not_passed(statuses, expected):
    values = {"check": "GPU-01", "base": "b", "device": "d", "seconds": 1.5, "reason": ""}

    findings = [Finding(status=status, **values) for status in statuses.split()]
    summary = PAGE.texts(findings, info_of(PAGE, CONFIG, ()))["summary.json"]
    assert json.loads(summary)["status"] == expected


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


def test_an_honest_run_passes_whatever_became_of_its_checks(folder):
    assert problems(PAGE, folder) == []


@pytest.mark.parametrize(
    ("at", "changes", "message"),
    [
        (0, {"status": "failed", "reason": "x"}, "its measures give 'passed'"),
        (2, {"status": "passed", "reason": ""}, "GPU-02, respsann: status is 'passed'"),
        (4, {"status": "passed", "reason": ""}, "yet nothing was measured"),
        (4, {"reason": ""}, "GPU-06, respsann: skipped, and its reason is ''"),
        (0, {"reason": "odd"}, "GPU-01, respsann: passed, and its reason is 'odd'"),
        (0, {"value": 400_000.0}, "value is 400000.0, the records give 299512.25"),
        (0, {"measure": "relative error"}, "measure is 'relative error'"),
        (0, {"seconds": 0.0}, "seconds must be positive"),
        (0, {"device": ""}, "GPU-01, respsann: no device"),
        (0, {"base": "sgrpsann"}, "GPU-01 of sgrpsann was not asked for"),
        (0, {"base": "transformer"}, "two of its records have one key"),
        (None, {"status": "passed"}, "status is 'passed', the records give 'failed'"),
        (None, {"counts": {"passed": 8, "failed": 0, "skipped": 0}}, "counts.passed is 8"),
        (None, {"run": "20200101_000000"}, "run is '20200101_000000'"),
        (None, {"findings": "none"}, "cannot be computed"),
    ],
)
def test_a_forged_summary_is_named(folder, at, changes, message):
    def changed(text):
        whole = json.loads(text)
        part = whole if at is None else whole["findings"][at]
        part |= changes
        return json.dumps(whole)

    forge(folder, "summary.json", changed)

    assert any(message in problem for problem in problems(PAGE, folder))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("summary.json", '"passed": false', '"passed": true'),
        ("measures.csv", "299512.25", "399512.25"),
        ("measures.csv", ",0.25,", ",0.35,"),
        ("README.md", "| respsann | failed | loss", "| respsann | passed | loss"),
        ("README.md", "299,512", "399,512"),
        ("README.md", "| GPU-06 FSDP | respsann", "| GPU-06 FSDP | sgrpsann"),
        ("stdout.log", "respsann failed", "respsann passed"),
    ],
)
def test_a_forged_file_is_named(folder, name, old, new):
    assert old in (folder / name).read_text()
    forge(folder, name, lambda text: text.replace(old, new))

    assert any(problem.startswith(name) for problem in problems(PAGE, folder))


def test_a_failed_base_stands_for_its_check_and_skipped_ones_are_counted(folder):
    found = numbers_of(PAGE, folder)

    failed = found["validation.GPU-02.worst"]
    assert (failed.verdict, failed.row.values["base"]) == ("failed", "respsann")
    counts = {name: n.value for name, n in found.items() if name.endswith((".failed", ".passed"))}
    assert counts["validation.GPU-02.failed"] == counts["validation.GPU-02.passed"] == 1
    assert found["validation.GPU-06.worst"].verdict == "skipped"
    assert found["validation.GPU-06.skipped"].value == 2
    least = found["validation.GPU-01.worst"]
    assert (least.quantity, least.target) == ("tokens/s", "at least 250,000")
    said = PAGE.summary([n for n in found.values() if n.column.headline])
    assert said.startswith("**3 of 6 checks failed** (GPU-02 on 1, GPU-08 on 2 of its bases); 2")


def test_the_answer_says_what_failed_and_why(findings):
    said = prose.answer(findings)

    assert said.startswith("- **3 of 6 checks failed**, 3 passed; 2 could not be made here.")
    assert "**GPU-02 Precision**, respsann: *failed*: loss is inf, must be at most 0.5." in said
    assert "GPU-06 FSDP, respsann, transformer: *skipped*: there is one GPU, two are" in said
    some = prose.answer(findings[:2])
    assert "Not asked for: GPU-02 Precision, GPU-06 FSDP, GPU-08 Saving." in some


def test_a_run_that_checked_nothing_does_not_say_passed(findings):
    said = prose.answer([finding for finding in findings if finding.check == "GPU-06"])

    assert "**No check could be made**" in said
    assert "passed" not in said


def test_a_measure_that_has_to_be_its_bound_is_not_called_near_to_it(findings):
    exact = measure(name="bits that differ", value=1.0, bound=1.0)
    near = measure(name="loss", value=0.9, bound=1.0)

    said = prose.answer([dataclasses.replace(findings[0], measures=(exact, near))])

    assert "nearest to a bound: loss 0.9, bound at most 1." in said


def test_the_matrix_has_a_word_for_every_check_and_base_and_only_failures_are_red(findings):
    table = prose.matrix(findings)

    assert re.findall(r"<td[^>]*>([^<]*)</td>", table) == [
        "✓ passed", "✓ passed", "✗ failed", "✓ passed", "– skipped", "– skipped",
        "✗ failed", "✗ failed",
    ]  # fmt: skip
    assert re.findall(r'<td style="[^"]*"[^>]*>([^<]*)<', table) == ["✗ failed"] * 3
    assert "<td>—</td>" in prose.matrix(findings[:3])


def test_every_measure_is_a_row_and_what_was_not_measured_has_its_reason(findings):
    rows = prose.rows(findings)

    assert len(rows) == 2 * 2 + 2 + 2 + 2
    skipped = rows[rows["status"] == "skipped"]
    assert set(skipped["reason"]) == {"there is one GPU, two are needed"}
    least = rows[rows["measure"] == "tokens/s"].iloc[0]
    assert (least["value"], least["bound"]) == ("299,512", "≥ 250,000")


@pytest.mark.parametrize(
    ("fact", "shown"),
    [(True, "yes"), ([1, 0.5], "1, 0.5"), (None, "—"), ("a\nb", "a⏎b"),
     ("x" * 500, "x" * 159 + "…"), ("\x00", "�"), ({"plain": 0.5}, "0.5")],
)  # fmt: skip
def test_a_fact_of_any_kind_fits_a_line(findings, fact, shown):
    one = dataclasses.replace(findings[0], facts={"fact": fact})

    assert list(prose.facts([one])["value"]) == [shown]


@pytest.mark.parametrize("facts", [{"not tried": {"fp16": "no"}}, {"fp16, skipped": "no"}])
def test_what_ran_elsewhere_and_what_was_left_out_is_said_once(findings, facts):
    left_out = [dataclasses.replace(finding, facts=facts) for finding in findings[:3]]

    said = prose.limits(left_out, findings[0].device)

    assert said.count("- GPU-01 did not try fp16: no\n") == 1
    assert "GPU-02 ran on two processes, gloo, not on " in said


def test_highlights_put_the_numbers_of_all_bases_into_a_line(findings, monkeypatch):
    parts = {"GPU-01": "sample|tokens/s", "GPU-02": "^loss$", "GPU-08": "no"}
    monkeypatch.setattr(prose, "HIGHLIGHTS", parts)

    assert prose.highlights(findings).splitlines() == [
        "- GPU-01, tokens/s: 299,512 for all bases",
        r"- GPU-01, sample: It was \| so for all bases",
        "- GPU-02, loss: respsann inf; transformer 0.125",
    ]


def test_the_figure_has_a_point_a_measure_within_its_axis(findings):
    words = set(re.findall(r">([^<>]+)</text>", figures.bound_ratios(findings).html))
    skipped = [finding for finding in findings if not finding.measures]

    assert {"GPU-01", "GPU-02", "respsann", "transformer", "bound"} <= words
    assert "<svg" not in figures.bound_ratios(skipped).html


def test_a_repeat_is_inside_where_status_and_bounds_are_as_they_were(findings):
    by_key = {finding.key: finding for finding in findings}
    fine, broken = by_key["GPU-01", "respsann"], by_key["GPU-02", "respsann"]
    worse = dataclasses.replace(fine, measures=(measure(value=0.6), fine.measures[1]))
    fewer = dataclasses.replace(fine, measures=fine.measures[:1])

    def verdicts(old, new):
        repeat = PAGE.compare_again(SimpleNamespace(number=1), None, [old], [new])
        return [quantity.inside for quantity in repeat.quantities]

    assert verdicts(fine, fine) == [True, True, True, None]
    assert verdicts(fine, worse) == [True, False, True, None]
    assert verdicts(fine, fewer) == [True, True, False, None]
    assert verdicts(fine, broken)[0] is False
    assert verdicts(broken, broken) == [True, True, None]


# The notebook by papermill.

FILES = {
    "README.md", "config_used.yaml", "measures.csv", "stdout.log", "strain_measures.svg",
    "summary.json", "system.json", "validation.ipynb",
}  # fmt: skip
PATCH = """
import sys

if any("ipykernel_launcher" in word for word in sys.orig_argv):
    from psannlm.checks import suite
    from tests.validations import ENTRIES

    suite.CHECKS = dict(ENTRIES)
"""
"""Runs when an interpreter starts: the kernel of a notebook gets made-up checks."""


@pytest.fixture
def surroundings(tmp_path, monkeypatch):
    """Runs go to tmp_path; the fixture's value is where they go."""
    for name in ("OUT_DIR", "BENCH_OUT", "TINY_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PSANNLM_REPORTS", str(tmp_path / "reports"))
    return tmp_path / "reports" / "gpu"


@pytest.fixture
def made_up(tmp_path, monkeypatch, surroundings):
    """The checks of notebooks, and of this process, are made up."""
    made_up_checks(monkeypatch)
    site = tmp_path / "site" / "sitecustomize.py"
    site.parent.mkdir()
    site.write_text(PATCH)
    monkeypatch.setenv("PYTHONPATH", f"{site.parent}{os.pathsep}{ROOT}")


def sound(folder):
    """The evidence of a complete run."""
    evidence = load(folder)
    identities.check(evidence)
    assert evidence.is_complete
    return evidence


@pytest.mark.slow
def test_one_check_of_the_suite_leaves_every_file_with_its_hash(tmp_path, surroundings):
    command = [sys.executable, "-m", "papermill", "--no-progress-bar"]
    command += ["notebooks/validation.ipynb", str(tmp_path / "out.ipynb")]
    command += ["-p", "only", "GPU-08", "-p", "base", "transformer"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    [folder] = surroundings.iterdir()
    evidence = sound(folder)
    assert set(evidence.manifest["artifacts"]) == FILES
    findings = json.loads(evidence.text("summary.json"))["findings"]
    assert [finding["check"] for finding in findings] == ["GPU-08"]
    assert str(ROOT) not in "".join(evidence.text(name) for name in FILES)


@pytest.mark.slow
@pytest.mark.usefixtures("made_up")
def test_a_failed_check_is_sound_evidence_and_a_failed_command(tmp_path, monkeypatch):
    monkeypatch.setenv("OUT_DIR", str(tmp_path / "mine"))
    output = runner.EXECUTED / "test_validation.ipynb"

    outcome = runner.run_notebook("validation", [], output)

    reason = "CheckFailedError: GPU-02 failed on respsann: loss is inf, must be at most 0.5"
    assert outcome.reason.splitlines()[0] == reason
    assert "--resume" not in outcome.reason
    [folder] = (tmp_path / "mine").iterdir()
    sound(folder)
    kept = nbformat.read(folder / "validation.ipynb", as_version=4)
    assert kept.cells[-1].id == "finish"
    outputs = [out for cell in kept.cells for out in cell.get("outputs", ())]
    shown = "".join(out.get("data", {}).get("text/html", "") for out in outputs)
    assert "✗ failed" in shown
    assert "#b3261e" in shown
    assert "<svg" in shown
    last = nbformat.read(output, as_version=4).cells[-1].outputs[0]
    assert (last.ename, len(last.traceback)) == ("CheckFailedError", 1)
