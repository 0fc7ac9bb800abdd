"""Which code runs: the commit of this checkout, what differs from it, or why that is unknown."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Any

import psutil

from psannlm import ROOT
from psannlm.config.schema import ConfigError
from psannlm.files import texts_sha256

FOLDERS = ("psannlm", "notebooks", "params")  # what can change a number
BESIDE = {"run", "publish", "__main__.py"}  # no page imports these
PATIENCE = 20  # seconds after which git is stopped
NO_CHECKOUT = "not a git checkout"
DUBIOUS = (
    "git distrusts a checkout of another user; "
    "`git config --global --add safe.directory FOLDER` trusts it"
)


def refuse_other_checkout(*places: Path) -> None:
    """Raise ConfigError if the first of the places that lies in a checkout lies in another one.

    An installed package is that of one checkout, wherever a notebook or a command is started. The
    places are the folders of this process and of the one that started it, if none are given.
    """
    if not places:
        places = (Path.cwd(),)
        with contextlib.suppress(psutil.Error):
            places += (Path(psutil.Process(os.getppid()).cwd()),)
    folders = (folder for place in places for folder in (place, *place.parents))
    found = next((f for f in folders if (f / "psannlm/evidence/session.py").is_file()), ROOT)
    if not found.samefile(ROOT):
        raise ConfigError(
            f"the package must be that of {found}, where this was started, got that of {ROOT}; "
            f"set PYTHONPATH={found}, or start it from {ROOT}"
        )


class _GitError(Exception):
    """Why git did not answer, without the folders of this machine."""


def describe_git(root: Path = ROOT) -> dict[str, Any]:
    """The `commit` of the checkout `root`, and whether its code differs from it: `dirty`.

    What cannot be told is None, and `unknown` says why. A commit counts only if `root` is the top
    of its work tree: a folder inside another repository has none. Files are compared with those of
    the commit by their content, so neither the index nor filters have a say; line ends count for
    nothing.
    """
    commit = None
    try:
        commit = _commit(root)
        listed = _git(root, "ls-tree", "-r", "-z", "--full-tree", commit)
        return {"commit": commit, "dirty": _differs(root, _blobs(listed))}
    except (_GitError, OSError) as error:
        reason = str(error) if isinstance(error, _GitError) else f"{error.strerror}"
        return {"commit": commit, "dirty": None, "unknown": reason}


def committed(path: str, root: Path = ROOT) -> bytes | None:
    """What a file holds in the commit of the checkout `root`; None where that cannot be told."""
    try:
        return _git(root, "cat-file", "blob", f"{_commit(root)}:{path}")
    except (_GitError, OSError):
        return None


def sources_sha256(notebook: str, root: Path = ROOT) -> str:
    """Hash of the code that a run of a notebook can execute: the package's and its cells'.

    What only starts notebooks, or publishes what they left, is not in it.
    """
    package = root / FOLDERS[0]
    files = (p for p in package.rglob("*.py") if p.relative_to(package).parts[0] not in BESIDE)
    read = json.loads((root / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(c["source"]) for c in read["cells"] if c["cell_type"] == "code"]
    whole = [texts_sha256(root, files), *cells]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def code(git: Mapping[str, Any]) -> str:
    """The commit that ran, as people read it, and whether files had been changed."""
    if not git["commit"]:
        return "unknown"
    mark = {True: " (dirty)", None: " (changes unknown)"}.get(git["dirty"], "")
    return f"{git['commit'][:12]}{mark}"


def doubt(git: Mapping[str, Any]) -> str:
    """What a reader must know of the code that ran; empty if it was a commit, unchanged."""
    why = f": {git['unknown']}." if git.get("unknown") else "."
    if not git["commit"]:
        return f"Which code ran is unknown{why}"
    if git["dirty"] is None:
        return f"Whether the code that ran had been changed is unknown{why}"
    return "The code that ran was not a commit: files had been changed." if git["dirty"] else ""


def _commit(root: Path) -> str:
    if not Path(os.fsdecode(_git(root, "rev-parse", "--show-toplevel"))).samefile(root):
        raise _GitError(f"{NO_CHECKOUT}, but a folder in one")
    return _git(root, "rev-parse", "--verify", "HEAD^{commit}").decode()


def _git(root: Path, *arguments: str) -> bytes:
    """What git prints about the repository of `root`, whatever repository the caller works in."""
    kept = {n: v for n, v in os.environ.items() if n[:4] != "GIT_" or n[:11] == "GIT_CONFIG_"}
    own = {"LC_ALL": "C", "GIT_NO_REPLACE_OBJECTS": "1", "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, env=kept | own)
    except FileNotFoundError:
        raise _GitError("git is not installed") from None
    except subprocess.TimeoutExpired:
        raise _GitError(f"git {arguments[0]} took more than {PATIENCE} s") from None
    if done.returncode == 0:
        return done.stdout.removesuffix(b"\n")
    said = done.stderr.decode(errors="replace")
    known = {"dubious ownership": DUBIOUS, "not a git repository": NO_CHECKOUT}
    known |= {"work tree": NO_CHECKOUT, "Needed a single revision": "nothing is committed yet"}
    others = f"git {arguments[0]} failed with status {done.returncode}"
    raise _GitError(next((reason for words, reason in known.items() if words in said), others))


def _blobs(listed: bytes) -> dict[str, str]:
    """Hash of each file that `git ls-tree -z` lists, by its path."""
    entries = (entry.partition(b"\t") for entry in listed.split(b"\0") if entry)
    return {os.fsdecode(path): facts.split()[2].decode() for facts, _, path in entries}


def _differs(root: Path, blobs: Mapping[str, str]) -> bool:
    """Whether code of the commit is gone or has other content, or Python imports more than it."""
    if any(path not in blobs for path in _imported(root)):
        return True
    return not all(_is(root / path, blobs[path]) for path in blobs if _folder(path) in FOLDERS)


def _folder(path: str) -> str:
    return path.partition("/")[0]


def _imported(root: Path) -> Iterator[str]:
    """What lies where the package would import it, and what this process has imported here."""
    endings = tuple(all_suffixes())
    found = [p for p in (root / FOLDERS[0]).rglob("*") if p.name.endswith(endings)]
    yield from (p.relative_to(root).as_posix() for p in found if p.parent.name != "__pycache__")
    loaded = [vars(module) for module in [*sys.modules.values()] if hasattr(module, "__dict__")]
    named = (facts.get("__file__") for facts in loaded)
    installed = (Path(sys.prefix), Path(sys.base_prefix))
    for path in map(Path, filter(None, named)):
        if path.is_relative_to(root) and not any(path.is_relative_to(p) for p in installed):
            yield path.relative_to(root).as_posix()


def _is(path: Path, blob: str) -> bool:
    """Whether a file has the content that git calls `blob`, lines ended either way."""
    if not path.is_file():
        return False
    content = path.read_bytes()
    algorithm = "sha1" if len(blob) == 40 else "sha256"
    both = (content, content.replace(b"\r\n", b"\n"))
    return any(
        hashlib.new(algorithm, b"blob %d\0%s" % (len(text), text)).hexdigest() == blob
        for text in both
    )
