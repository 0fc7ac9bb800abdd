"""When the book's copy of the evidence is made anew, decided without loading torch.

A build asks for the staged pages. They are made again only if the evidence, the code or the
parameters have changed since, or if a staged file is no longer as it was written.
"""

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from psannlm import REPORTS, ROOT
from psannlm.files import sha256_of

STAMP = ".staged.json"
CONTENTS = "results/_toc.yml"  # the table of contents with all measured pages, below the book


class Staged(NamedTuple):
    """What is staged, and what a build needs to know of it."""

    inputs: str  # hash of everything that the pages were made from
    files: dict[str, str]  # hash of every staged file, by its path below the book
    warnings: list[str]  # of refused runs, by name; a build repeats them
    constants: dict[str, str]  # numbers of the method, for the prose that explains it


def prepare(source: Path) -> Staged:
    """Bring the folder results/ of the book `source` up to date; quick if nothing is new."""
    stamp, target = source / STAMP, source / "results"
    inputs = fingerprint(_inputs())
    before = _read(stamp)
    if before and before.inputs == inputs and before.files == _hashes(target):
        return before
    from psannlm.publish import build as book

    warnings = book.stage(target)
    staged = Staged(inputs, _hashes(target), warnings, book.constants())
    stamp.write_text(json.dumps(staged._asdict()), encoding="utf-8")
    return staged


def fingerprint(files: Iterable[Path]) -> str:
    """One hash of the paths and contents of files."""
    whole = hashlib.sha256()
    for path in files:
        whole.update(f"{path}\0{sha256_of(path)}".encode())
    return whole.hexdigest()


def copy_mathjax(output: Path) -> bool:
    """Put MathJax beside the pages, from the installed package; False if it is not installed."""
    try:
        package = importlib.metadata.distribution("sphinx-mathjax-offline")
    except importlib.metadata.PackageNotFoundError:
        return False
    source = Path(str(package.locate_file("sphinx-mathjax-offline/static/mathjax/tex-svg.js")))
    target = output / "_static" / source.name
    if not target.exists() or target.stat().st_size != source.stat().st_size:
        shutil.copyfile(source, target)
    return True


def _inputs() -> list[Path]:
    """The evidence, the code, the parameters, the book's own data, and what downloads cite."""
    found = [
        *REPORTS.rglob("*"),
        *(ROOT / "psannlm").rglob("*.py"),
        *(ROOT / "params").rglob("*.yaml"),
        *(ROOT / "book").glob("*.y*ml"),
        ROOT / "CITATION.cff",
        ROOT / "LICENSE",
    ]
    return sorted(path for path in found if path.is_file())


def _hashes(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def _read(stamp: Path) -> Staged | None:
    try:
        return Staged(**json.loads(stamp.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # never staged, or by another version
