"""What was begun with other code or software goes on only as a mixed run, which says so."""

import copy
import json
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
from tests.tiny_trainings import begun, data_for, trained, training_config, write_text

CONFIG = throughput_config()
THEN: dict[str, Any] = start_manifest("throughput", CONFIG) | {"sources_sha256": "a1" * 32}


def other(path: str, value: Any, of: dict[str, Any] = THEN) -> dict[str, Any]:
    """A manifest with another value at a path of names, or without it."""
    changed = copy.deepcopy(of)
    *way, last = path.split("/")
    place = changed
    for name in way:
        place = place[name]
    place[last] = value
    if value is None:
        del place[last]
    return changed


@pytest.fixture
def killed(tmp_path) -> Run:
    """A run that was killed after 5 records."""
    run = Run.start("benchmarks", THEN, reports=tmp_path)
    session = Session(PAGE, CONFIG, run, torch.device("cpu"))
    session.records = throughput_records(CONFIG, PUBLISHED)[:5]
    session.save()
    run.lock.release()
    return run


PACKAGES = "environment/software/packages"
OTHER_TORCH = other(f"{PACKAGES}/torch", "2.99.0")


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
    with pytest.raises(EvidenceError, match=rf"{killed.folder.name} was made with {shown}") as said:
        Run.resume(killed.folder, other(path, value))

    assert "start a new run, or go on with --mixed" in str(said.value)
    assert "parts" not in load(killed.folder).manifest


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
    resumed = Run.resume(killed.folder, other(path, value), mixed=True)

    assert "parts" not in resumed.manifest  # as nothing is mixed


def test_a_run_of_an_older_version_goes_on_at_its_commit_alone(tmp_path):
    old = other("sources_sha256", None)
    run = Run.start("benchmarks", old, reports=tmp_path)
    run.lock.release()

    with pytest.raises(EvidenceError, match="made with commit 000000000000 and not ffffffffffff"):
        Run.resume(run.folder, other("git/commit", "f" * 40))
    Run.resume(run.folder, THEN)


def test_a_checkout_is_no_way_back_to_code_that_was_no_commit(tmp_path):
    run = Run.start("benchmarks", other("git/dirty", True), reports=tmp_path)
    run.lock.release()

    with pytest.raises(EvidenceError, match="put that back, start a new run"):
        Run.resume(run.folder, other("sources_sha256", "b2" * 32))


def gone_on(folder: Path, now: dict[str, Any], n: int | None = None) -> Run:
    """The run with `n` records, after it went on with something else."""
    run = Run.resume(
        folder, now, mixed=True, keys=lambda run: [r.key for r in notebook._records(PAGE, run)]
    )
    session = Session(PAGE, CONFIG, run, torch.device("cpu"))
    session.records = throughput_records(CONFIG, PUBLISHED)[:n]
    session.save()
    session.tabulate()
    run.lock.release()
    return run


@pytest.fixture
def mixed(killed) -> Path:
    """A complete run: 5 records as THEN, 4 with another torch, the others as THEN again."""
    gone_on(killed.folder, OTHER_TORCH, 9)
    run = gone_on(killed.folder, THEN)
    run.write("throughput.ipynb", json.dumps(executed_notebook()))
    run.seal("complete")
    return run.folder


def test_a_mixed_run_says_what_made_which_record_and_is_published_with_that(mixed):
    run, records = load(mixed), throughput_records(CONFIG, PUBLISHED)
    here = torch.__version__
    said = f"Of its records it made 5 with torch {here}; 4 with torch 2.99.0; all others with torch"

    first, second, last = run.manifest["parts"]
    assert [tuple(key) for key in first["records"]] == [r.key for r in records[:5]]
    assert [tuple(key) for key in second["records"]] == [r.key for r in records[5:9]]
    assert "records" not in last
    sentence = parts.sentence(run.manifest)
    assert sentence.startswith(f"This run is mixed. {said} {here};")
    assert sentence in run.text("README.md")
    assert sentence in build.provenance(run, [])
    assert said in machine(run.manifest)
    assert ", mixed" in "".join(map(str, history.files([run]).values()))
    card = landing.files([run], {})
    assert "a mixed run" in "".join(map(str, card.values()))
    assert list(verify.problems(PAGE, run)) == []


@pytest.mark.parametrize("claimed", ["a record of another part", "no record"])
def test_parts_that_claim_what_is_not_theirs_are_refused(mixed, claimed):
    run = load(mixed)
    first, second, _ = run.manifest["parts"]
    second["records"] = first["records"] if "another" in claimed else [[9, 9, "nobody"]]

    [problem, *_] = verify.problems(PAGE, run)

    assert problem.startswith("run.json: [")
    assert problem.endswith("of its parts is no record, or in two of them")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the code, and of one notebook."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "psannlm", root / "psannlm", ignore=shutil.ignore_patterns("__py*"))
    (root / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "memory.ipynb", root / "notebooks")
    return root


def edited(path: Path, old: bytes, new: bytes) -> bytes:
    before = path.read_bytes()
    assert old in before
    path.write_bytes(before.replace(old, new))
    return before


@pytest.mark.parametrize(
    ("file", "old", "new", "is_other"),
    [
        ("psannlm/model/sine.py", b"torch.exp(", b"torch.exp2(", True),
        ("psannlm/pages/memory/plan.py", b"\n", b"\n\n", True),
        ("notebooks/memory.ipynb", b".measure()", b".measure(1)", True),
        ("notebooks/memory.ipynb", b'"outputs": []', b'"outputs": [ ]', False),
        ("psannlm/model/sine.py", b"\n", b"\r\n", False),
        ("psannlm/publish/landing.py", b"\n", b"\n\n", False),
        ("psannlm/run/preset.py", b"\n", b"\n\n", False),
    ],
)
def test_code_is_other_code_if_a_run_could_execute_it(project, file, old, new, is_other):
    before = sources_sha256("memory", project)

    original = edited(project / file, old, new)

    assert (sources_sha256("memory", project) != before) == is_other
    (project / file).write_bytes(original)
    assert sources_sha256("memory", project) == before


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
    resumed = notebook._open_run(PAGE, CONFIG, torch.device("cpu"))

    assert [part.get("records") for part in resumed.manifest["parts"]] == [[], None]


def test_nothing_is_in_the_way_of_a_run_that_was_killed_before_it_was_sealed(killed):
    found = preflight.of_run(killed.folder, book=False)

    assert [one for one in found if one.is_error] == []


def test_the_command_line_mixes_only_what_it_resumes(monkeypatch, killed):
    calls = []
    outcome = runner.Outcome("throughput", 1.0, "")
    monkeypatch.setattr(runner, "run_notebook", lambda *given: calls.append(given[3]) or outcome)
    monkeypatch.setattr(preflight, "of_run", lambda *_: [])

    for words in (["--mixed"], ["--resume", str(killed.folder)]):
        CliRunner().invoke(app, ["report", "--no-book", *words])
    CliRunner().invoke(app, ["report", "--no-book", "--mixed", *words])

    resumed = {notebook.RESUME: str(killed.folder)}
    assert calls == [resumed, resumed | {notebook.MIXED: "1"}]


SHORT = {"n_layers": 1, "batch_tokens": 256, "pass_tokens": 128, "checkpoint_steps": 2, "epochs": 1}


def test_a_training_goes_on_from_other_code_only_as_a_mixed_one(tmp_path, monkeypatch):
    config = training_config(corpus=str(write_text(tmp_path)), **SHORT)
    data = data_for(config, tmp_path)
    trained(tmp_path / "a", data, config)
    for later in checkpoints(tmp_path / "a")[1:]:
        shutil.rmtree(later)
    [first] = begun(tmp_path / "a", data, config).made_by
    monkeypatch.setattr(torch, "__version__", "2.99.0+cpu")

    with pytest.raises(
        OtherCodeError, match=r"made with torch '2\.\S+' and not '2\.99\.0'; .*--mixed"
    ):
        begun(tmp_path / "a", data, config)
    later = trained(tmp_path / "a", data, config, mixed=True)

    assert later.made_by == [first, first | {"from_step": 3, "torch": "2.99.0"}]
    assert read_about(checkpoints(tmp_path / "a")[-1])["parts"] == later.made_by
    assert begun(tmp_path / "a", data, config).made_by == later.made_by  # no further change
    again = trainer.summarise(later, later.last_evaluation, None, None)
    assert again["parts"] == later.made_by


def test_a_training_of_a_shootout_is_begun_anew_by_other_code(tmp_path, monkeypatch):
    task = task_of(tmp_path)
    whole = worker.measure(task, "training")
    for later in checkpoints(Path(task.folder))[1:]:
        shutil.rmtree(later)
    monkeypatch.setattr(torch, "__version__", "2.99.0")

    again = worker.measure(task, "training")

    assert again["val_loss"] == whole["val_loss"]
    about = read_about(checkpoints(Path(task.folder))[-1])
    assert [part["torch"] for part in about["parts"]] == ["2.99.0"]
