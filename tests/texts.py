"""Texts made up for tests, and the folders that hold them."""

import io
import json
import random
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from psannlm.corpora.corpus import beside

RNG = random.Random(0)
WORDS = ["the", "sea", "and", "hill", "of", "é", "moon", "rise", "by", "night", "old", "ship"]
WORDS += [f"w{i}" for i in range(500)]


def peak_while(work: Callable[[], object]) -> int:
    """Bytes of memory that it takes."""
    tracemalloc.start()
    work()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def prose(n_words: int = 40) -> str:
    return " ".join(RNG.choice(WORDS) for _ in range(n_words)).capitalize() + "."


def written(folder: Path, texts: dict[str, list[str]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, paragraphs in texts.items():
        (folder / f"{name}.txt").write_text("\n\n".join(paragraphs))
    return folder


def packed(name: str, files: dict[str, str | bytes], link: str = "") -> bytes:
    """An archive of the form that its name says; a tar with a symbolic link, if it is named."""
    content = io.BytesIO()
    texts = {n: text.encode() if isinstance(text, str) else text for n, text in files.items()}
    if name.endswith(("zip", "whl")):
        with zipfile.ZipFile(content, "w") as archive:
            for path, text in texts.items():
                archive.writestr(path, text)
        return content.getvalue()
    with tarfile.open(fileobj=content, mode=f"w:{name[-2:].replace('ar', '')}") as archive:
        for path, text in texts.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
        if link:
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(entry)
    return content.getvalue()


def facts_of(path: Path) -> dict:
    return json.loads(beside(path)[1].read_text())


def dataset(folder: Path, texts: dict[str, list[str]]) -> Path:
    """A dataset for the client of the hub, its rows by split; skips where there is no client."""
    pytest.importorskip("datasets.load", reason="the client of the hub is an extra")
    folder.mkdir()
    for split, rows in texts.items():
        lines = [json.dumps({"text": text, "n": i}) + "\n" for i, text in enumerate(rows)]
        (folder / f"{split}.jsonl").write_text("".join(lines))
    return folder
