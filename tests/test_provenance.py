"""The commit of a run is that of the code that ran, or unknown with its reason; never a guess."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from psannlm import ROOT
from psannlm.__main__ import main
from psannlm.bench import provenance
from psannlm.bench.provenance import describe_git, refuse_other_checkout
from psannlm.config.schema import ConfigError
from psannlm.evidence import session

CODE = ("psannlm/model/sine.py", "notebooks/throughput.ipynb", "params/cpu/throughput.yaml")


def git(folder: Path, *arguments: str) -> str:
    """What git says in `folder`, under a name of its own and with no settings of this machine."""
    own = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "protocol.file.allow=always"]
    command = ["git", "-C", str(folder), *own, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def filled(folder: Path) -> Path:
    """A folder with code, parameters, evidence and a document of two lines each."""
    for name in (*CODE, "reports/gpu/a/run.json", "README.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name}\nline\n")
    return folder


def committed(folder: Path) -> Path:
    """A repository of such a folder, all of it committed."""
    filled(folder)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return folder


@pytest.fixture(autouse=True)
def _own_git(monkeypatch, tmp_path_factory):
    """Neither settings of this machine nor a repository around the temporary folder count."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path_factory.mktemp("home") / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def checkout(tmp_path) -> Path:
    return committed(tmp_path / "a project, größer")


@pytest.fixture
def clean(checkout) -> dict[str, object]:
    return {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}


def written(path: Path, content: str = "changed") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def hidden(checkout: Path, flag: str) -> None:
    git(checkout, "update-index", flag, CODE[0])
    written(checkout / CODE[0])


CHANGES = {
    "code": lambda c: written(c / CODE[0]),
    "a notebook": lambda c: written(c / CODE[1]),
    "parameters": lambda c: written(c / CODE[2]),
    "gone": lambda c: (c / CODE[0]).unlink(),
    "staged": lambda c: (written(c / CODE[0]), git(c, "add", ".")),
    "assumed unchanged": lambda c: hidden(c, "--assume-unchanged"),
    "skipped": lambda c: hidden(c, "--skip-worktree"),
    "a new module": lambda c: written(c / "psannlm/model/extra.py"),
    "an ignored module": lambda c: (
        written(c / ".git/info/exclude", "extra.so\n"),
        written(c / "psannlm/extra.so"),
    ),
}
NO_CHANGES = {
    "evidence": lambda c: written(c / "reports/gpu/a/run.json"),
    "a new run": lambda c: written(c / "reports/gpu/b/run.json"),
    "a document": lambda c: written(c / "README.md"),
    "compiled code": lambda c: written(c / "psannlm/model/__pycache__/sine.cpython-311.pyc"),
    "parameters of one's own": lambda c: written(c / "params/mine.yaml"),
    "line ends": lambda c: (c / CODE[0]).write_bytes(f"{CODE[0]}\r\nline\r\n".encode()),
    "a filter": lambda c: (
        git(c, "config", "filter.strip.clean", "sed s/line/other/"),
        written(c / ".git/info/attributes", "*.ipynb filter=strip\n"),
        (c / CODE[1]).touch(),
    ),
}


@pytest.mark.parametrize("change", [*CHANGES, *NO_CHANGES])
def test_only_what_can_change_a_number_makes_a_checkout_dirty(checkout, clean, change):
    assert describe_git(checkout) == clean

    {**CHANGES, **NO_CHANGES}[change](checkout)

    assert describe_git(checkout) == clean | {"dirty": change in CHANGES}


def test_a_module_that_stands_before_an_installed_one_makes_a_checkout_dirty(
    checkout, clean, monkeypatch
):
    written(checkout / "stands_before.py", "")
    monkeypatch.syspath_prepend(checkout)
    assert describe_git(checkout) == clean

    __import__("stands_before")

    assert describe_git(checkout)["dirty"]


@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"])
def test_the_repository_that_the_caller_works_in_is_not_asked(
    checkout, clean, tmp_path, monkeypatch, name
):
    other = committed(tmp_path / "other")
    written(other / "README.md")
    git(other, "commit", "-qam", "two")
    values = {"GIT_DIR": other / ".git", "GIT_WORK_TREE": other, "GIT_INDEX_FILE": "none"}
    monkeypatch.setenv(name, str(values[name]))

    assert describe_git(checkout) == clean


def in_a_submodule(checkout: Path, folder: Path) -> Path:
    committed(folder)
    git(folder, "submodule", "add", "-q", str(checkout), "sub")
    return folder / "sub"


def cloned(checkout: Path, folder: Path, *options: str) -> Path:
    git(checkout, "clone", "-q", *options, checkout.as_uri(), str(folder))
    return folder


CHECKOUTS = {
    "a shallow clone": lambda c, f: cloned(c, f, "--depth", "1"),
    "without blobs": lambda c, f: cloned(c, f, "--filter=blob:none"),
    "line ends of another system": lambda c, f: cloned(c, f, "-c", "core.autocrlf=true"),
    "a second worktree": lambda c, f: (git(c, "worktree", "add", "-q", "--detach", str(f)), f)[1],
    "a submodule": in_a_submodule,
    "by a link": lambda c, f: (f.symlink_to(c), f)[1],
}


@pytest.mark.parametrize("make", CHECKOUTS.values(), ids=CHECKOUTS)
def test_every_kind_of_checkout_has_its_commit(checkout, clean, tmp_path, make):
    place = make(checkout, tmp_path / "second")

    assert describe_git(place) == clean
    written(place / CODE[2])
    assert describe_git(place) == clean | {"dirty": True}


def git_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, spared: str = "rev-parse"
) -> None:
    """Put a git on the path that does something before all questions but one."""
    real = shutil.which("git")
    script = f'#!/bin/sh\ncase "$*" in *{spared}*) ;; *) {does};; esac\nexec {real} "$@"\n'
    (tmp_path / "git").write_text(script)
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(provenance, "PATIENCE", 0.5)


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("exit 128", "git ls-tree failed with status 128"),
        ("kill -9 $$", "git ls-tree failed with status -9"),
        ("exec sleep 9", "git ls-tree took more than 0.5 s"),
    ],
    ids=["fails", "is killed", "hangs"],
)
def test_a_git_that_does_not_answer_leaves_the_changes_unknown(
    checkout, clean, tmp_path, monkeypatch, does, reason
):
    git_that(tmp_path, monkeypatch, does)

    found = describe_git(checkout)

    assert found == {"commit": clean["commit"], "dirty": None, "unknown": reason}
    assert provenance.code(found) == f"{str(clean['commit'])[:12]} (changes unknown)"
    assert provenance.doubt(found).endswith(f"is unknown: {reason}.")


def inside_another(checkout: Path) -> Path:
    return filled(checkout / "vendor" / "report")


def of_the_future(checkout: Path) -> Path:
    git(checkout, "config", "core.repositoryformatversion", "99")
    return checkout


def bare(checkout: Path) -> Path:
    return cloned(checkout, checkout.parent / "bare", "--bare")


def unborn(checkout: Path) -> Path:
    folder = filled(checkout.parent / "unborn")
    git(folder, "init", "-q")
    return folder


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda c: filled(c.parent / "unpacked"), "not a git checkout"),
        (inside_another, "not a git checkout, but a folder in one"),
        (bare, "not a git checkout"),
        (unborn, "nothing is committed yet"),
        (of_the_future, "git rev-parse failed with status 128"),
    ],
    ids=["a zip", "inside another repository", "bare", "unborn", "a format git does not know"],
)
def test_without_a_commit_of_its_own_a_folder_has_none(checkout, make, reason):
    found = describe_git(make(checkout))

    assert found == {"commit": None, "dirty": None, "unknown": reason}
    assert provenance.code(found) == "unknown"
    assert provenance.doubt(found) == f"Which code ran is unknown: {reason}."


def test_a_checkout_that_git_distrusts_names_the_setting_and_no_folder(
    checkout, tmp_path, monkeypatch
):
    git_that(tmp_path, monkeypatch, "export GIT_TEST_ASSUME_DIFFERENT_OWNER=1", spared="--version")
    found = describe_git(checkout)

    assert found["commit"] is None
    assert "safe.directory" in found["unknown"]
    assert str(checkout) not in found["unknown"]


def test_without_git_the_reason_says_so(checkout, monkeypatch):
    monkeypatch.setenv("PATH", str(checkout))

    assert describe_git(checkout)["unknown"] == "git is not installed"


def test_old_manifests_have_no_reason_and_are_described_as_before():
    commit = "0123456789abcdef"

    assert provenance.code({"commit": commit, "dirty": True}) == "0123456789ab (dirty)"
    assert provenance.doubt({"commit": commit, "dirty": False}) == ""
    assert provenance.doubt({"commit": None, "dirty": None}) == "Which code ran is unknown."


@pytest.fixture
def other(tmp_path) -> Path:
    """Another checkout of this project."""
    written(tmp_path / "other/psannlm/evidence/session.py", "")
    written(tmp_path / "other/notebooks/throughput.ipynb", "{}")
    return tmp_path / "other"


@pytest.mark.parametrize(
    "places",
    [("other",), ("other/notebooks",), ("", "other"), ("other", "ours")],
    ids=["there", "below it", "where its parent was started", "the nearest first"],
)
def test_the_package_of_another_checkout_is_refused_by_name(tmp_path, other, places):
    found = [ROOT if place == "ours" else tmp_path / place for place in places]

    with pytest.raises(ConfigError, match="PYTHONPATH") as refused:
        refuse_other_checkout(*found)

    assert f"{other}, where" in str(refused.value)
    assert f"got that of {ROOT};" in str(refused.value)


@pytest.mark.parametrize("places", [[ROOT / "notebooks"], [ROOT, Path("/other")], [Path("/")]])
def test_the_package_of_this_checkout_and_work_in_none_is_not(places):
    refuse_other_checkout(*places)


def test_neither_a_notebook_nor_a_command_uses_the_package_of_another_checkout(
    other, monkeypatch, capsys
):
    monkeypatch.chdir(other / "notebooks")
    monkeypatch.setattr(session, "get_ipython", lambda: "a shell")
    monkeypatch.setattr(sys, "argv", ["psannlm", "check"])

    with pytest.raises(ConfigError, match="the package must be that of"):
        session.running_notebook("throughput")
    with pytest.raises(SystemExit, match="2"):
        main()
    assert f"error: the package must be that of {other}" in capsys.readouterr().err
