"""The commit of a run is that of the code that ran, or unknown with its reason; never a guess."""

import shutil
import sys
from pathlib import Path

import pytest

from psannlm import ROOT
from psannlm.__main__ import main
from psannlm.bench import provenance
from psannlm.bench.provenance import describe_git
from psannlm.config.schema import ConfigError
from psannlm.evidence import session
from tests.repositories import CODE, committed, git, unpacked, write


@pytest.fixture(autouse=True)
def _own_git(monkeypatch):
    """Settings of this machine count for nothing."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def checkout(tmp_path) -> Path:
    folder = committed(tmp_path / "a project, größer")
    write(folder / ".git" / "info" / "exclude", "*.so\n")
    return folder


@pytest.fixture
def clean(checkout) -> dict[str, object]:
    return {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}


@pytest.mark.parametrize(
    ("file", "content", "dirty"),
    [
        *((name, "changed", True) for name in CODE),
        (CODE[0], None, True),
        (CODE[0], f"{CODE[0]}\r\nline\r\n", False),
        ("psannlm/model/extra.py", "", True),
        ("psannlm/ignored.so", "", True),
        ("psannlm/model/__pycache__/sine.cpython-311.pyc", "", False),
        ("params/mine.yaml", "", False),
        ("reports/gpu/a/run.json", "changed", False),
        ("README.md", "changed", False),
    ],
)
def test_only_what_can_change_a_number_makes_a_checkout_dirty(
    checkout, clean, file, content, dirty
):
    assert describe_git(checkout) == clean

    if content is None:
        (checkout / file).unlink()
    else:
        write(checkout / file, content)

    assert describe_git(checkout) == clean | {"dirty": dirty}


@pytest.mark.parametrize("flag", ["--add", "--assume-unchanged", "--skip-worktree"])
def test_what_the_index_says_of_a_change_counts_for_nothing(checkout, clean, flag):
    write(checkout / CODE[0])
    git(checkout, "update-index", flag, CODE[0])

    assert describe_git(checkout) == clean | {"dirty": True}


def test_a_module_that_stands_before_an_installed_one_makes_a_checkout_dirty(
    checkout, clean, monkeypatch
):
    write(checkout / "stands_before.py", "")
    monkeypatch.syspath_prepend(checkout)
    assert describe_git(checkout) == clean

    __import__("stands_before")

    assert describe_git(checkout)["dirty"]


@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"])
def test_the_repository_that_the_caller_works_in_is_not_asked(
    checkout, clean, tmp_path, monkeypatch, name
):
    monkeypatch.setenv(name, str(committed(tmp_path / "other") / ".git"))

    assert describe_git(checkout) == clean


@pytest.mark.parametrize(
    "command",
    ["clone --depth=1 --filter=blob:none {} ../second", "worktree add --detach ../second"],
)
def test_every_kind_of_checkout_has_its_commit_and_by_a_link_too(
    checkout, clean, tmp_path, command
):
    git(checkout, *command.format(checkout.as_uri()).split())
    (tmp_path / "link").symlink_to(tmp_path / "second")

    assert describe_git(tmp_path / "second") == describe_git(tmp_path / "link") == clean
    write(tmp_path / "second" / CODE[2])
    assert describe_git(tmp_path / "link") == clean | {"dirty": True}


def put_before_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, questions: str, does: str):
    """Put a git on the path that does something else before it answers such questions."""
    real = shutil.which("git")
    script = f'#!/bin/sh\ncase "$*" in *{questions}*) {does};; esac\nexec {real} "$@"\n'
    write(tmp_path / "git", script).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(provenance, "PATIENCE", 0.5)


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("exit 128", "git ls-tree failed with status 128"),
        ("exec sleep 9", "git ls-tree took more than 0.5 s"),
    ],
)
def test_a_git_that_does_not_answer_leaves_the_changes_unknown(
    checkout, clean, tmp_path, monkeypatch, does, reason
):
    put_before_git(tmp_path, monkeypatch, "ls-tree", does)

    described = describe_git(checkout)

    assert described == {"commit": clean["commit"], "dirty": None, "unknown": reason}
    assert provenance.code(described) == f"{str(clean['commit'])[:12]} (changes unknown)"
    assert provenance.doubt(described).endswith(f"is unknown: {reason}.")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("../zip", "not a git checkout"),
        ("inside", "not a git checkout, but a folder in one"),
        ("../unborn", "nothing is committed yet"),
    ],
)
def test_without_a_commit_of_its_own_a_folder_has_none(checkout, place, reason):
    folder = unpacked(checkout / place)
    if "unborn" in place:
        git(folder, "init", "-q")
    described = describe_git(folder)

    assert described == {"commit": None, "dirty": None, "unknown": reason}
    assert provenance.code(described) == "unknown"
    assert provenance.doubt(described) == f"Which code ran is unknown: {reason}."


def test_without_git_or_its_trust_the_reason_says_so_and_names_no_folder(
    checkout, tmp_path, monkeypatch
):
    foreign = "export GIT_TEST_ASSUME_DIFFERENT_OWNER=1"
    put_before_git(tmp_path, monkeypatch, "rev-parse", foreign)
    distrusted = describe_git(checkout)
    monkeypatch.setenv("PATH", str(checkout))

    assert (distrusted["commit"], distrusted["dirty"]) == (None, None)
    assert "safe.directory FOLDER` trusts it" in distrusted["unknown"]
    assert describe_git(checkout)["unknown"] == "git is not installed"


def test_old_manifests_have_no_reason_and_are_described_as_before():
    commit = "0123456789abcdef"

    assert provenance.code({"commit": commit, "dirty": True}) == "0123456789ab (dirty)"
    assert provenance.doubt({"commit": commit, "dirty": False}) == ""
    assert provenance.doubt({"commit": None, "dirty": None}) == "Which code ran is unknown."


def test_neither_a_notebook_nor_a_command_uses_the_package_of_another_checkout(
    tmp_path, monkeypatch, capsys
):
    write(tmp_path / "psannlm/evidence/session.py")
    monkeypatch.chdir(write(tmp_path / "notebooks/throughput.ipynb").parent)
    monkeypatch.setattr(session, "get_ipython", lambda: "a shell")
    monkeypatch.setattr(sys, "argv", ["psannlm", "check"])
    rule = f"the package must be that of {tmp_path}, where this was started, got that of {ROOT};"

    with pytest.raises(ConfigError, match=f"{rule} set PYTHONPATH={tmp_path}"):
        session.running_notebook("throughput")
    with pytest.raises(SystemExit, match="2"):
        main()
    assert f"error: {rule}" in capsys.readouterr().err
    for place in (ROOT / "notebooks", "/"):
        monkeypatch.chdir(place)
        assert session.running_notebook("throughput") == "a shell"
