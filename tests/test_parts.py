"""What was begun with other code or software goes on only as a mixed run, which says so."""

import copy
import functools
import json
import operator
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from psannlm import ROOT
from psannlm.__main__ import app
from psannlm.bench.provenance import sources_sha256
from psannlm.evidence import parts, verify
from psannlm.evidence import session as notebook
from psannlm.evidence.runs import EvidenceError, Run, load
from psannlm.evidence.session import Session
from psannlm.evidence.text import machine
from psannlm.pages.shootout import worker
from psannlm.pages.throughput.page import PAGE
from psannlm.publish import build, history, landing
from psannlm.run import preflight
from psannlm.run import preset as runner
from psannlm.train import trainer
from psannlm.train.checkpoint import OtherCodeError, checkpoints, read_about
from tests.synthetic import (
    PUBLISHED,
    executed_notebook,
    start_manifest,
    throughput_config,
    throughput_records,
)
from tests.test_training_worker import task_of
from tests.tiny_trainings import begun, data_for, training_config, write_text

CONFIG = throughput_config()
RECORDS = throughput_records(CONFIG, PUBLISHED)
THEN: dict[str, Any] = start_manifest("throughput", CONFIG) | {"sources_sha256": "a1" * 32}
PACKAGES = "environment/software/packages"


def other(path: str, value: Any) -> dict[str, Any]:
    """The manifest with another value at a path of names, or without it."""
    changed = copy.deepcopy(THEN)
    *way, last = path.split("/")
    place = functools.reduce(operator.getitem, way, changed)
    place[last] = value
    if value is None:
        del place[last]
    return changed


OTHER_TORCH = other(f"{PACKAGES}/torch", "2.99.0")


def written(run: Run, n: int | None = None) -> Path:
    """The folder of a run that was killed once it had `n` records."""
    session = Session(PAGE, CONFIG, run, torch.device("cpu"))
    session.records = RECORDS[:n]
    session.save()
    run.lock.release()
    return run.folder


def resumed(folder: Path, now: dict[str, Any], *, mixed: bool = False) -> Run:
    """The run, which goes on with what `now` was made with."""
    return Run.resume(
        folder, now, mixed=mixed, keys=lambda run: [r.key for r in notebook._records(PAGE, run)]
    )


@pytest.fixture
def killed(tmp_path) -> Path:
    """A run that was killed after 5 records."""
    return written(Run.start("benchmarks", THEN, reports=tmp_path), 5)


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("sources_sha256", "b2" * 32, r"code a1a1a1a1a1a1 and not b2b2b2b2b2b2.*git checkout 0000"),
        (f"{PACKAGES}/torch", "2.99.0", r"torch 2\.\S+ and not 2\.99\.0; put that back"),
        (f"{PACKAGES}/numpy", "9.9", r"numpy 2\.\S+ and not 9\.9"),
        ("environment/software/python", "3.99.0", r"python 3\S+ and not 3\.99\.0"),
        ("environment/software/compiler", "clang", "compiler .* and not clang"),
        ("environment/settings/threads", 77, r"threads \d+ and not 77"),
        ("environment/settings/variables", {"OMP_X": "1"}, "variables .* and not OMP_X=1"),
    ],
)
def test_what_numbers_rest_on_must_be_as_it_was(killed, path, value, shown):
    message = rf"{killed.name} was made with {shown}.*start a new run, or go on with --mixed"
    with pytest.raises(EvidenceError, match=message):
        resumed(killed, other(path, value))

    assert "parts" not in load(killed).manifest


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("git/commit", "f" * 40),  # of the same code
        ("git/dirty", True),
        (f"{PACKAGES}/matplotlib", "9.9"),
        (f"{PACKAGES}/scipy", None),  # was not looked at
    ],
)
def test_what_no_number_rests_on_may_change(killed, path, value):
    run = resumed(killed, other(path, value), mixed=True)

    assert "parts" not in run.manifest  # as nothing is mixed


@pytest.mark.parametrize(
    ("then", "now", "message"),
    [
        (
            other("sources_sha256", None),  # of an older version
            other("git/commit", "f" * 40),
            "commit 000000000000 and not ffffffffffff",
        ),
        (other("git/dirty", True), other("sources_sha256", "b2" * 32), "code .*; put that back, "),
    ],
)
def test_the_way_back_is_a_commit_if_the_code_was_that_of_one(tmp_path, then, now, message):
    folder = written(Run.start("benchmarks", then, reports=tmp_path), 0)

    with pytest.raises(EvidenceError, match=f"was made with {message}"):
        resumed(folder, now)
    resumed(folder, THEN)


@pytest.fixture
def mixed(killed) -> Path:
    """A complete run: 5 records as THEN, 4 with another torch, the others as THEN again."""
    written(resumed(killed, OTHER_TORCH, mixed=True), 9)
    run = resumed(killed, THEN, mixed=True)
    session = Session(PAGE, CONFIG, run, torch.device("cpu"))
    session.records = RECORDS
    session.save()
    session.tabulate()
    run.write("throughput.ipynb", json.dumps(executed_notebook()))
    run.seal("complete")
    return run.folder


def test_a_mixed_run_says_what_made_which_record_and_is_published_with_that(mixed):
    run, here = load(mixed), torch.__version__
    makers = f"it made 5 with torch {here}; 4 with torch 2.99.0; all others with torch {here};"
    sentence = parts.sentence(run.manifest)

    keys = [[tuple(key) for key in part.get("records", ())] for part in run.manifest["parts"]]
    assert keys == [[r.key for r in RECORDS[:5]], [r.key for r in RECORDS[5:9]], []]
    assert sentence.startswith(f"This run is mixed. Of its records {makers}")
    assert sentence in run.text("README.md")
    assert sentence in build.provenance(run, [])
    assert makers in machine(run.manifest)
    assert ", mixed" in "".join(map(str, history.files([run]).values()))
    assert "a mixed run" in "".join(map(str, landing.files([run], {}).values()))
    assert list(verify.problems(PAGE, run)) == []


@pytest.mark.parametrize("claimed", ["a record of another part", "no record"])
def test_parts_that_claim_what_is_not_theirs_are_refused(mixed, claimed):
    run = load(mixed)
    first, second, _ = run.manifest["parts"]
    second["records"] = first["records"] if "another" in claimed else [[9, 9, "nobody"]]

    problem = next(verify.problems(PAGE, run))

    assert re.fullmatch(r"run\.json: \[.* of its parts is no record, or in two of them", problem)


def test_code_is_other_code_if_a_run_could_execute_it(tmp_path):
    shutil.copytree(ROOT / "psannlm", tmp_path / "psannlm")
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "memory.ipynb", tmp_path / "notebooks")
    sha256 = sources_sha256("memory", tmp_path)
    for file, old, new, is_other in [
        ("psannlm/model/sine.py", b"torch.exp(", b"torch.exp2(", True),
        ("psannlm/pages/memory/plan.py", b"\n", b"\n\n", True),
        ("notebooks/memory.ipynb", b".measure()", b".measure(1)", True),
        ("notebooks/memory.ipynb", b'"outputs": []', b'"outputs": [ ]', False),
        ("psannlm/model/sine.py", b"\n", b"\r\n", False),
        ("psannlm/publish/landing.py", b"\n", b"\n\n", False),
        ("psannlm/run/preset.py", b"\n", b"\n\n", False),
    ]:
        content = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(content.replace(old, new))

        assert old in content
        assert (sources_sha256("memory", tmp_path) != sha256) == is_other, (file, new)
        (tmp_path / file).write_bytes(content)


def test_a_notebook_records_the_code_that_runs_and_is_told_to_mix(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_OUT", str(tmp_path / "benchmarks"))
    run = notebook._open_run(PAGE, CONFIG, torch.device("cpu"))
    assert run.manifest["sources_sha256"] == sources_sha256("throughput")
    run.lock.release()
    monkeypatch.setenv(notebook.RESUME, str(run.folder))
    monkeypatch.setattr(notebook, "sources_sha256", lambda name: "c3" * 32)

    with pytest.raises(EvidenceError, match="and not c3c3c3c3c3c3"):
        notebook._open_run(PAGE, CONFIG, torch.device("cpu"))
    monkeypatch.setenv(notebook.MIXED, "1")
    run = notebook._open_run(PAGE, CONFIG, torch.device("cpu"))

    assert [part.get("records") for part in run.manifest["parts"]] == [[], None]


def test_nothing_is_in_the_way_of_a_run_that_was_killed_before_it_was_sealed(killed):
    problems = preflight.of_run(killed, book=False)

    assert [problem for problem in problems if problem.is_error] == []


def test_the_command_line_mixes_only_what_it_resumes(monkeypatch, killed):
    variables = []
    outcome = runner.Outcome("throughput", 1.0, "")
    monkeypatch.setattr(runner, "run_notebook", lambda *a: variables.append(a[3]) or outcome)
    monkeypatch.setattr(preflight, "of_run", lambda *_: [])

    for words in (["--mixed"], ["--resume", str(killed)], ["--mixed", "--resume", str(killed)]):
        CliRunner().invoke(app, ["report", "--no-book", *words])

    resume = {notebook.RESUME: str(killed)}
    assert variables == [resume, resume | {notebook.MIXED: "1"}]


SHORT = {"n_layers": 1, "batch_tokens": 256, "pass_tokens": 128, "checkpoint_steps": 2, "epochs": 1}


def cut_short(folder: Path) -> None:
    """Have a training end after its first checkpoint."""
    for later in checkpoints(folder)[1:]:
        shutil.rmtree(later)


def test_a_training_goes_on_from_other_code_only_as_a_mixed_one(tmp_path, monkeypatch):
    config, folder = training_config(corpus=str(write_text(tmp_path)), **SHORT), tmp_path / "a"
    begin = functools.partial(begun, folder, data_for(config, tmp_path), config)
    begin().run()
    cut_short(folder)
    [first] = begin().made_by
    monkeypatch.setattr(torch, "__version__", "2.99.0+cpu")

    message = r"made with torch '2\.\S+' and not '2\.99\.0'; .*--mixed"
    with pytest.raises(OtherCodeError, match=message):
        begin()
    later = begin(mixed=True)
    later.run()

    assert later.made_by == [first, first | {"from_step": 3, "torch": "2.99.0"}]
    assert read_about(checkpoints(folder)[-1])["parts"] == later.made_by
    assert begin().made_by == later.made_by  # no further change
    assert trainer.summarise(later, later.last_evaluation, None, None)["parts"] == later.made_by


def test_a_training_of_a_shootout_is_begun_anew_by_other_code(tmp_path, monkeypatch):
    task = task_of(tmp_path)
    whole = worker.measure(task, "training")
    cut_short(Path(task.folder))
    monkeypatch.setattr(torch, "__version__", "2.99.0")

    again = worker.measure(task, "training")

    assert again["val_loss"] == whole["val_loss"]
    about = read_about(checkpoints(Path(task.folder))[-1])
    assert [part["torch"] for part in about["parts"]] == ["2.99.0"]
