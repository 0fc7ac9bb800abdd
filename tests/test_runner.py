"""The runner refuses early, goes on when one notebook fails, and picks up what broke off."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from psannlm import ROOT
from psannlm.config.schema import ConfigError
from psannlm.evidence.notebook import default_parameters
from psannlm.evidence.runs import EvidenceError, Run, load
from psannlm.files import InUseError
from psannlm.pages.registry import pages
from psannlm.pages.throughput.records import STORE
from psannlm.run import check as identities
from psannlm.run import estimate
from psannlm.run import preset as runner
from tests.synthetic import throughput_run

FILES = ("samples.csv", "cells.csv")


@pytest.mark.parametrize(
    ("preset", "only", "message"),
    [
        ("gpuu", [], "unknown preset 'gpuu', did you mean 'gpu'"),
        ("corpora", [], r"unknown preset 'corpora'.* There are: cpu, gpu, smoke$"),
        ("smoke", ["troughput"], "unknown notebook 'troughput', did you mean 'through"),
    ],
)
def test_an_unknown_preset_or_notebook_is_refused_with_the_nearest(preset, only, message):
    with pytest.raises(ConfigError, match=message):
        estimate.chosen(preset, only)


def test_every_problem_of_a_file_is_reported_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "ROOT", tmp_path)
    monkeypatch.setattr(runner, "run_notebook", lambda *a, **k: pytest.fail("ran"))
    values = default_parameters("throughput") | {"base": "respsan", "n_heads": -1, "wrong": 1}
    del values["seed"]
    path = tmp_path / "params" / "smoke" / "throughput.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(values))

    with pytest.raises(ConfigError) as refused:
        runner.run_preset("smoke", ["throughput"])

    lines = str(refused.value).splitlines()
    assert lines[0] == "params/smoke/throughput.yaml:"
    for problem in ("wrong: unknown", "n_heads: must be at least 1", "'respsann'", "seed: missing"):
        assert problem in str(refused.value)


def test_a_report_runs_in_the_order_of_the_pre_flight_and_installs_nothing_unasked():
    order = ["validation", "throughput", "memory", "tiny_corpus", "shootout"]

    assert estimate.chosen("gpu") == order
    assert set(pages()) - set(order) == {"peer"}
    assert estimate.chosen("smoke", ["peer", "memory"]) == ["memory", "peer"]


@pytest.fixture
def ran(monkeypatch):
    """What would run: notebook, its arguments and variables."""
    calls = []

    def run_notebook(name, arguments, output, variables):
        calls.append((name, arguments, variables))
        return runner.Outcome(name, 0.0, "")

    monkeypatch.setattr(runner, "run_notebook", run_notebook)
    monkeypatch.setattr(runner, "build_missing_corpus", lambda parameters: None)
    return calls


def test_the_pre_flight_takes_folders_and_file_from_the_environment(ran, tmp_path, monkeypatch):
    mine = tmp_path / "mine.yaml"
    mine.write_text((ROOT / "params" / "cpu" / "tiny_corpus.yaml").read_text())
    monkeypatch.setenv("TINY_CONFIG", str(mine))
    monkeypatch.setenv("OUT_DIR", "validations")
    monkeypatch.setenv("BENCH_OUT", str(tmp_path / "others"))
    monkeypatch.chdir(tmp_path)

    runner.run_preset("gpu", ["throughput", "tiny_corpus"])

    moved = {"OUT_DIR": str(tmp_path / "validations"), "BENCH_OUT": str(tmp_path / "others")}
    assert ran == [
        ("throughput", ["-f", "params/gpu/throughput.yaml"], moved),
        ("tiny_corpus", ["-f", str(mine)], moved),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), ("bse: respsann", "bse: unknown, did you mean 'base'?")],
)
def test_a_tiny_config_that_cannot_be_used_is_refused_before_anything_runs(
    ran, tmp_path, monkeypatch, content, message
):
    mine = tmp_path / "mine.yaml"
    if content is not None:
        mine.write_text(content)
    monkeypatch.setenv("TINY_CONFIG", str(mine))

    with pytest.raises(ConfigError, match=r"^TINY_CONFIG: .*mine\.yaml") as refused:
        runner.run_preset("gpu")

    assert message in str(refused.value)
    assert ran == []


def test_a_run_outside_reports_is_resumed_as_any(tmp_path, monkeypatch):
    folder = throughput_run(tmp_path, status="failed")
    moved = folder.rename(tmp_path / "elsewhere")
    calls = []
    monkeypatch.setattr(runner, "run_notebook", lambda *given: calls.append(given))

    runner.resume(moved)

    [(name, _, _, variables)] = calls
    assert (name, variables) == ("throughput", {runner.RESUME: str(moved)})


def test_only_an_interrupted_run_can_be_resumed_and_those_that_are_so_are_named(tmp_path):
    complete, interrupted = throughput_run(tmp_path), throughput_run(tmp_path, status="failed")
    told = tmp_path / "progress.json"
    for run, is_open in ((complete, False), (interrupted, True)):
        told.write_text(json.dumps({"run": str(run)}))
        assert ("--resume" in runner._way_on(told)) == is_open == bool(runner._way_on(told))

    with pytest.raises(EvidenceError, match="nothing to resume"):
        runner.resume(complete)
    with pytest.raises(EvidenceError, match=f"can be resumed: benchmarks/{interrupted.name}"):
        runner.resume(tmp_path / "benchmarks" / "nothing")


def test_a_run_of_an_edited_notebook_fails_its_report_and_is_not_gone_on_with(tmp_path):
    progress = tmp_path / "progress.json"
    assert runner._edited(progress) == ""
    for facts, reason, goes_on in [
        ({}, "", True),
        (
            {"edited": ["another cell ran: f()"]},
            "not published, for other cells ran: another",
            False,
        ),
    ]:
        run = Run.start("benchmarks", {"preset": "smoke"}, reports=tmp_path)
        run.state(**facts)
        progress.write_text(json.dumps({"run": str(run.folder)}))

        assert runner._edited(progress).startswith(reason)
        assert ("--resume" in runner._way_on(progress)) == goes_on


@pytest.mark.slow
def test_a_killed_run_goes_on_without_measuring_anything_twice(tmp_path, monkeypatch):
    values = default_parameters("throughput") | {"base": ["transformer"], "d_model": 16}
    path = tmp_path / "parameters.yaml"
    path.write_text(yaml.safe_dump(values | {"min_seconds": 0.01, "n_repeats": 2}))
    reports = tmp_path / "reports"
    environment = os.environ | {"PSANNLM_REPORTS": str(reports)}
    command = [sys.executable, "-m", "papermill", "notebooks/throughput.ipynb"]
    command += [str(tmp_path / "out.ipynb"), "-f", str(path), "--no-progress-bar"]
    log = (tmp_path / "log").open("wb")
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=log, start_new_session=True
    ) as process:
        while not list(reports.glob("benchmarks/*/cells.csv")) and process.poll() is None:
            time.sleep(0.1)
        [folder] = (reports / "benchmarks").iterdir()
        monkeypatch.setattr(runner, "KERNEL_SECONDS", 0)
        with pytest.raises(InUseError, match=f"{folder.name} is being written by process"):
            runner.resume(folder)
        monkeypatch.undo()
        os.killpg(process.pid, signal.SIGKILL)  # its kernel is not in the group, and notices
    log.close()
    before = STORE.records({name: (folder / name).read_text() for name in FILES})
    assert before
    assert not load(folder).is_complete

    outcome = runner.resume(folder)

    assert outcome.reason == ""
    evidence = load(folder)
    identities.check(evidence)
    after = STORE.records({name: (folder / name).read_text() for name in FILES})
    assert evidence.is_complete
    assert after[: len(before)] == before
    assert len({record.key for record in after}) == len(after) == 2 * (2 * 2 + 1)


@pytest.mark.slow
def test_a_notebook_that_fails_says_why_and_writes_no_complete_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PSANNLM_REPORTS", str(tmp_path / "reports"))
    (tmp_path / "reports").write_text("a file where the folder should be")
    output = runner.EXECUTED / "test_failing.ipynb"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("left by an older run")

    outcome = runner.run_notebook("throughput", [], output)

    assert "cannot be written" in outcome.reason
    assert "PSANNLM_REPORTS" in outcome.reason


def test_a_report_goes_on_after_a_failure_and_ends_with_an_error(monkeypatch, capsys):
    from typer.testing import CliRunner

    from psannlm.__main__ import app

    outcomes = [runner.Outcome("throughput", 1.0, "it broke"), runner.Outcome("memory", 2.0, "")]
    monkeypatch.setattr(runner, "run_preset", lambda preset, only: outcomes)
    monkeypatch.setattr(runner, "build_book", lambda: True)

    result = CliRunner().invoke(app, ["report"])

    assert result.exit_code == 1
    assert "throughput: failed: it broke (1 s)" in result.output
    assert "memory: complete (2 s)" in result.output
    assert "1 of 2 notebooks failed: throughput" in result.output


def test_progress_that_was_told_is_shown(tmp_path, capsys, monkeypatch):
    progress = tmp_path / "progress.json"
    progress.write_text(json.dumps({"done": 3, "total": 4, "label": "respsann", "unit": "cell"}))
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.6)"]) as process:
        runner._follow(process, "throughput", progress)

    shown = capsys.readouterr().out
    assert "3/4" in shown
    assert "cell/s" in shown
