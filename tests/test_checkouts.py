"""However a checkout was made and wherever it lies, its evidence is sound and its commit true."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from psannlm import ROOT
from tests.test_provenance import committed, git

pytestmark = pytest.mark.slow
ASKS = "from psannlm.bench.provenance import describe_git; print(describe_git())"
# The owner of read-only files, who is held to their permissions even where that is root.
CAPABILITIES = "-dac_override,-dac_read_search"
OWNER = ["setpriv", f"--bounding-set={CAPABILITIES}", f"--inh-caps={CAPABILITIES}"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Settings of a user whose git ends lines otherwise and strips notebooks of their outputs."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "attributes").write_text("*.ipynb filter=strip\n* ident\n")
    (folder / "config").write_text(
        f"[core]\n\tautocrlf = true\n\tattributesFile = {folder}/attributes\n"
        '[filter "strip"]\n\tclean = sed s/output_type/gone/\n\tsmudge = sed s/output_type/gone/\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", str(folder / "config"))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory, settings) -> Path:
    """A repository of the files of this project as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("project")
    for name in filter(lambda name: (ROOT / name).is_file(), listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return folder


@pytest.fixture(scope="module")
def clone(project, tmp_path_factory) -> Path:
    """A clone by that user, in a folder with spaces and umlauts inside another repository."""
    folder = committed(tmp_path_factory.mktemp("outer") / "other") / "größere Texte" / "ein Bericht"
    git(project, "clone", "-q", str(project), str(folder))
    return folder


def said(folder: Path, *command: str, before: tuple[str, ...] = (), **variables: str) -> str:
    """What a command says in a folder, with no package but the one installed on its path."""
    known = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*before, *command], cwd=folder, capture_output=True, text=True, env=known | variables
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_evidence_and_texts_are_the_same_bytes_whatever_git_converts_or_filters(project, clone):
    kept = [path for top in ("reports", "datasets") for path in (project / top).rglob("*.*")]
    names = [path.relative_to(project) for path in kept if path.is_file()]

    assert len(names) > 100
    assert [n for n in names if (clone / n).read_bytes() != (ROOT / n).read_bytes()] == []
    assert git(clone, "status", "--porcelain") == ""


def test_the_commit_is_true_in_a_clone_and_unknown_in_an_archive(project, clone, tmp_path):
    commit = git(project, "rev-parse", "HEAD")
    git(project, "archive", "--output", str(tmp_path / "a.tar"), "HEAD")
    shutil.unpack_archive(tmp_path / "a.tar", clone.parent / "unpacked")

    here, there = (said(f, sys.executable, "-c", ASKS) for f in (clone, clone.parent / "unpacked"))

    assert here == f"{{'commit': '{commit}', 'dirty': False}}\n"
    assert "'commit': None, 'dirty': None, 'unknown': 'not a git checkout, but" in there


def test_the_book_of_a_read_only_checkout_shows_its_own_evidence(clone, tmp_path):
    shutil.rmtree(clone / "reports" / "gpu")
    jb = str(Path(sys.executable).with_name("jb"))
    command = (jb, "build", "book/", "-n", "--keep-going", "--path-output", str(tmp_path))
    owner = tuple(OWNER) if os.geteuid() == 0 else ()
    before = {path for path in clone.rglob("*") if "__pycache__" not in path.parts}
    said(clone, "chmod", "-R", "a-w", ".")
    try:
        told = said(clone, *command, before=owner, PYTHONDONTWRITEBYTECODE="1")
        assert {path for path in clone.rglob("*") if "__pycache__" not in path.parts} == before
    finally:
        said(clone, "chmod", "-R", "u+w", ".")

    assert "left out of the book" not in told
    pages = tmp_path / "_build" / "html" / "results"
    assert "No complete run of this notebook yet" in (pages / "validation.html").read_text()
    assert "No complete run of this notebook yet" not in (pages / "throughput.html").read_text()
