"""Committed texts held to the sums of their files, so that no digit of them changes unseen."""

from collections.abc import Iterator
from pathlib import Path

from psannlm.corpora.corpus import CORPORA
from psannlm.files import sha256_of

SUMS = CORPORA / "sample.sha256"
"""A line a file, as `sha256sum` writes and checks them."""


def problems(sums: Path = SUMS) -> Iterator[str]:
    """What the files that lie beside a list of sums are otherwise than it says, file first."""
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        yield f"{sums.name}: cannot be read: {error}; restore it from git"
        return
    if not lines:
        yield f"{sums.name}: names no file; restore it from git"
    for line in lines:
        expected, _, name = line.partition("  ")
        path = sums.parent / name
        if not name or not path.is_file():
            yield f"{name or line}: is missing, {sums.name} names it; restore it from git"
        elif sha256_of(path) != expected:
            yield f"{name}: was altered, its sha256 is not that of {sums.name}; restore it from git"
