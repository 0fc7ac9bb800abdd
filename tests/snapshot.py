"""What readers see, made from the committed runs alone: hashes of every published text.

`python tests/snapshot.py` compares with snapshot.json, `--write` stores it, and `--show DIR` writes
the texts themselves, so that `diff -r` explains a difference between two states of the code.
Covered are all files that a build of the book stages, and of every run the page that its notebook
gives today, with the files that state its result. Of drawings only the words are taken.
"""

import argparse
import ast
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import nbformat

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from psannlm.config.parse import parse
from psannlm.evidence import runs, session
from psannlm.evidence.page import run_info
from psannlm.pages.registry import pages
from psannlm.publish import build, claims, history

STORED = Path(__file__).with_name("snapshot.json")
SVG = re.compile(rb"<svg\b.*?</svg>", re.DOTALL)


class Replay(session.Session):
    """A session whose run is there already: it seals nothing, and keeps its files in memory."""

    device_name = property(lambda self: self.run.manifest["environment"]["device"])

    def __init__(self, run: Any) -> None:
        self.page, self.run, self.written = pages()[run.manifest["notebook"]], run, {}
        info = run_info(self.page, run)
        self.config, self.records = info.config, info.records
        self.write(self.page.texts(self.records, info))
        self.tables = self.page.tabulate(self.records, info)
        self.write(self.page.files(self.tables, info))

    def show(self, name: str, *, pixels: bool = False) -> Any:
        return SimpleNamespace(data=self.page.figures(self.tables, self.info)[name].html)

    def write(self, files: Any) -> None:
        self.written |= files

    def measure(self) -> None: ...

    finish = judge = measure


def replayed(name: str, page: Any) -> str:
    """The text of a page: the cells of its notebook as they are now, but for its parameters."""
    shown: list[str] = []
    space: dict[str, Any] = {}
    for cell in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells:
        if cell.cell_type != "code":
            shown.append(cell.source)
        elif "parameters" not in cell.metadata.get("tags", []):
            tree = ast.parse(cell.source)
            module = history if name == "results" else session
            with mock.patch.object(module, "start", return_value=page):
                exec(compile(ast.Module(tree.body[:-1], []), name, "exec"), space)
                found = eval(compile(ast.Expression(tree.body[-1].value), name, "eval"), space)
            shown.append(getattr(found, "data", ""))
    return "\n\n".join(text.strip() for text in shown if text.strip()) + "\n"


def staged(reports: Path, home: Path) -> Iterator[tuple[str, str | bytes]]:
    """What a build of the book is given, by path below book/, and what its build warns of."""
    home.mkdir()
    shutil.copyfile(ROOT / "book" / "_toc.yml", home / "_toc.yml")
    with mock.patch.object(claims, "claims_about", return_value=claims.CLAIMS):
        yield "warnings", "\n".join(build.stage(home / "results", reports=reports))
    yield "constants.json", json.dumps(build.constants(), indent=1)
    for path in sorted(path for path in home.rglob("*") if path.is_file()):
        name = path.relative_to(home).as_posix()
        if path.suffix == ".ipynb":
            yield name, "\n\n".join(_cell(cell) for cell in nbformat.read(path, 4).cells)
        elif path.suffix == ".zip":
            with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
                yield from ((f"{name}/{m}", archive.read(m)) for m in archive.namelist())
        else:
            yield name, path.read_bytes()
    for path in sorted((ROOT / "book").glob("*.md")):
        yield path.name, path.read_text(encoding="utf-8")


def _cell(cell: Any) -> str:
    """Source and outputs of a cell of a staged page."""
    data = [output.get("data", {}) for output in cell.get("outputs", [])]
    shown = [d.get("text/html") or d.get("text/markdown") or d.get("text/plain") for d in data]
    return "\n".join([cell.source, *(text or "" for text in shown)])


def texts() -> dict[str, bytes]:
    """All that is published, by path."""
    found: dict[str, str | bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        reports, home = Path(folder) / "reports", Path(folder) / "book"
        tracked = subprocess.check_output(["git", "ls-files", "-z", "reports"], cwd=ROOT, text=True)
        for name in filter(None, tracked.split("\0")):
            (reports.parent / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, reports.parent / name)
        found |= {f"book/{name}": text for name, text in staged(reports, home)}
        for run in runs.all_runs(reports):
            page = Replay(run)
            text = replayed(run.manifest["notebook"], page)
            written = {"page.md": text, **page.written}
            found |= {f"runs/{run.name}/{name}": text for name, text in written.items()}
        asked = dict.fromkeys(("page", "base", "machine", "preset"), "") | {"reports": str(reports)}
        chosen = history.results(parse(history.ResultsConfig, asked, source="snapshot"))
        found["runs/results.md"] = replayed("results", chosen)
    whole = {name: t.encode() if isinstance(t, str) else t for name, t in sorted(found.items())}
    return {name: SVG.sub(_words, text) for name, text in whole.items()}


def _words(drawing: re.Match[bytes]) -> bytes:
    """What is written in a drawing, but for the numbers of its axes."""
    said = re.findall(rb"<text\b[^>]*>([^<>]*[A-Za-z]{2}[^<>]*)<", drawing[0])
    return b"<svg>" + b" | ".join(text.strip() for text in said) + b"</svg>"


def main() -> int:
    """Compare, store or show."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"store the hashes in {STORED.name}")
    parser.add_argument("--show", metavar="DIR", type=Path, help="write the texts into a folder")
    asked = parser.parse_args()
    now = texts()
    for name, text in now.items() if asked.show else ():
        (asked.show / name).parent.mkdir(parents=True, exist_ok=True)
        (asked.show / name).write_bytes(text.replace(b"<tr>", b"\n<tr>"))
    hashes = {name: hashlib.sha256(text).hexdigest() for name, text in now.items()}
    if asked.write:
        STORED.write_text(json.dumps(hashes, indent=0) + "\n", encoding="utf-8")
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    differ = [name for name in sorted(stored | hashes) if stored.get(name) != hashes.get(name)]
    for name in differ:
        what = "gone" if name not in hashes else "changed" if name in stored else "new"
        print(f"{what}: {name}")
    print(f"{len(stored)} stored, {len(hashes)} made, {len(differ)} differ")
    return bool(differ)


if __name__ == "__main__":
    sys.exit(main())
