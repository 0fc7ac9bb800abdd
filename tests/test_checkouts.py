"""However a checkout was made and wherever it lies, its evidence is sound and its commit true."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from psannlm import ROOT
from tests.mutate import copied
from tests.repositories import committed, git, write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout"),
]
# The owner of read-only files, who is held to their permissions even where that is root.
LOST = "-dac_override,-dac_read_search"
OWNER = ["setpriv", f"--bounding-set={LOST}", f"--inh-caps={LOST}"] if os.geteuid() == 0 else []


@pytest.fixture(scope="module", autouse=True)
def _settings(tmp_path_factory):
    """Settings of a user whose git ends lines otherwise and strips notebooks of their outputs."""
    folder = tmp_path_factory.mktemp("home")
    write(folder / "attributes", "*.ipynb filter=strip\n* ident\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", str(folder / "config"))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        git(folder, "config", "--global", "core.autocrlf", "true")
        git(folder, "config", "--global", "core.attributesFile", str(folder / "attributes"))
        for way in ("clean", "smudge"):
            git(folder, "config", "--global", f"filter.strip.{way}", "sed s/output_type/gone/")
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A repository of the files of this project as they are now."""
    folder = tmp_path_factory.mktemp("project")
    copied(folder)
    return committed(folder)


@pytest.fixture(scope="module")
def clone(project, tmp_path_factory) -> Path:
    """A clone by that user, in a folder with spaces and umlauts inside another repository."""
    folder = committed(tmp_path_factory.mktemp("outer") / "other") / "größere Texte" / "ein Bericht"
    git(project, "clone", "-q", str(project), str(folder))
    return folder


def output(folder: Path, *command: str) -> str:
    """What a command prints in a folder, with no package but the one that is installed."""
    variables = os.environ | {"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_evidence_and_texts_are_the_same_bytes_whatever_git_converts_or_filters(project, clone):
    files = [f for name in ("reports", "datasets") for f in (project / name).rglob("*.*")]
    files = [file.relative_to(project) for file in files if file.is_file()]

    assert len(files) > 100
    assert [f for f in files if (clone / f).read_bytes() != (ROOT / f).read_bytes()] == []
    assert git(clone, "status", "--porcelain") == ""


def test_the_commit_is_true_in_a_clone_and_unknown_in_an_archive(project, clone, tmp_path):
    asks = "from psannlm.bench.provenance import describe_git; print(describe_git())"
    commit = git(project, "rev-parse", "HEAD")
    git(project, "archive", "--output", str(tmp_path / "a.tar"), "HEAD")
    shutil.unpack_archive(tmp_path / "a.tar", clone.parent / "archive")
    unknown = "'commit': None, 'dirty': None, 'unknown': 'not a git checkout, but"

    assert (
        output(clone, sys.executable, "-c", asks) == f"{{'commit': '{commit}', 'dirty': False}}\n"
    )
    assert unknown in output(clone.parent / "archive", sys.executable, "-c", asks)


def test_the_book_of_a_read_only_checkout_shows_its_own_evidence(clone, tmp_path):
    shutil.rmtree(clone / "reports" / "gpu")
    command = (str(Path(sys.executable).with_name("jb")), "build", "book/", "-n", "--keep-going")
    before = {*clone.rglob("*")}
    output(clone, "chmod", "-R", "a-w", ".")
    try:
        printed = output(clone, *OWNER, *command, "--path-output", str(tmp_path))
        assert {*clone.rglob("*")} == before
    finally:
        output(clone, "chmod", "-R", "u+w", ".")

    assert "left out of the book" not in printed
    pages = tmp_path / "_build" / "html" / "results"
    assert "No complete run of this notebook yet" in (pages / "validation.html").read_text()
    assert "No complete run of this notebook yet" not in (pages / "throughput.html").read_text()
