"""Which code runs: the commit of this checkout, what differs from it, or why that is unknown."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Any

from psannlm import ROOT
from psannlm.config.schema import ConfigError
from psannlm.files import texts_sha256

FOLDERS = ("psannlm", "notebooks", "params")  # what can change a number
BESIDE = {"run", "publish", "__main__.py"}  # no page imports these
PATIENCE = 20  # seconds after which git is stopped
REASONS = {  # words of git, and what they mean
    b"dubious ownership": "git distrusts a checkout of another user; "
    "`git config --global --add safe.directory FOLDER` trusts it",
    b"not a git repository": "not a git checkout",
    b"Needed a single revision": "nothing is committed yet",
}


def refuse_other_checkout() -> None:
    """Raise ConfigError in a folder of another checkout than that of this package."""
    folders = (Path.cwd(), *Path.cwd().parents)
    found = next((f for f in folders if (f / "psannlm/evidence/session.py").is_file()), ROOT)
    if not found.samefile(ROOT):
        raise ConfigError(
            f"the package must be that of {found}, where this was started, got that of {ROOT}; "
            f"set PYTHONPATH={found}, or start it from {ROOT}"
        )


def describe_git(root: Path = ROOT) -> dict[str, Any]:
    """The `commit` of the checkout `root`, and whether its code differs from it: `dirty`.

    What cannot be told is None, and `unknown` says why. Files are compared with those of the
    commit by content, so neither the index nor filters have a say; line ends count for nothing.
    """
    commit = None
    try:
        commit = _commit(root)
        return {"commit": commit, "dirty": _differs(root, commit)}
    except OSError as error:
        return {"commit": commit, "dirty": None, "unknown": str(error.strerror or error)}


def committed(path: str, root: Path = ROOT) -> bytes | None:
    """What a file holds in the commit of the checkout `root`; None where that cannot be told."""
    try:
        return _git(root, "cat-file", "blob", f"{_commit(root)}:{path}")
    except OSError:
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
    marks = {True: " (dirty)", False: "", None: " (changes unknown)"}
    return f"{git['commit'][:12]}{marks[git['dirty']]}" if git["commit"] else "unknown"


def doubt(git: Mapping[str, Any]) -> str:
    """What a reader must know of the code that ran; empty if it was a commit, unchanged."""
    if git["dirty"] is None:
        what = "Whether the code that ran had been changed" if git["commit"] else "Which code ran"
        why = f": {git['unknown']}" if "unknown" in git else ""
        return f"{what} is unknown{why}."
    return "The code that ran was not a commit: files had been changed." if git["dirty"] else ""


def _commit(root: Path) -> str:
    """The commit of `root`, which must be the top of its work tree, not a folder in another one."""
    if not Path(os.fsdecode(_git(root, "rev-parse", "--show-toplevel"))).samefile(root):
        raise OSError("not a git checkout, but a folder in one")
    return _git(root, "rev-parse", "--verify", "HEAD^{commit}").decode()


def _git(root: Path, *arguments: str) -> bytes:
    """What git prints about the repository of `root`, whatever repository the caller works in.

    OSError says why it did not answer, without the folders of this machine.
    """
    kept = {n: v for n, v in os.environ.items() if n[:4] != "GIT_" or n[:11] == "GIT_CONFIG_"}
    kept["LC_ALL"] = "C"
    command = ["git", "--no-optional-locks", "--no-replace-objects", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, env=kept)
    except FileNotFoundError:
        raise OSError("git is not installed") from None
    except subprocess.TimeoutExpired:
        raise OSError(f"git {arguments[0]} took more than {PATIENCE} s") from None
    if done.returncode:
        reasons = (why for words, why in REASONS.items() if words in done.stderr)
        raise OSError(next(reasons, f"git {arguments[0]} failed with status {done.returncode}"))
    return done.stdout.removesuffix(b"\n")


def _differs(root: Path, commit: str) -> bool:
    """Whether code of the commit is gone or has other content, or Python imports more than it."""
    listed = _git(root, "ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0")
    entries = (entry.partition(b"\t") for entry in listed if entry)  # mode type blob TAB path
    blobs = {root / os.fsdecode(path): facts.split()[2].decode() for facts, _, path in entries}
    ours = (path for path in blobs if path.relative_to(root).parts[0] in FOLDERS)
    same = all(path.is_file() and _is(path.read_bytes(), blobs[path]) for path in ours)
    return not same or any(path not in blobs for path in _imported(root))


def _imported(root: Path) -> Iterator[Path]:
    """What lies where the package would import it, and what this process has imported here."""
    here = (p for p in (root / FOLDERS[0]).rglob("*") if p.name.endswith((*all_suffixes(),)))
    yield from (path for path in here if path.parent.name != "__pycache__")
    loaded = [getattr(module, "__dict__", {}).get("__file__") for module in [*sys.modules.values()]]
    for path in map(Path, filter(None, loaded)):
        if path.is_relative_to(root) and not path.is_relative_to(sys.prefix):
            yield path


def _is(content: bytes, blob: str) -> bool:
    """Whether git calls a file's content `blob`, lines ended either way."""
    algorithm = "sha1" if len(blob) == 40 else "sha256"
    texts = (content, content.replace(b"\r\n", b"\n"))
    headed = (b"blob %d\0%s" % (len(text), text) for text in texts)
    return any(hashlib.new(algorithm, whole).hexdigest() == blob for whole in headed)
