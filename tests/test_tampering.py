"""One changed digit in committed evidence is refused, and the message names run, file and rule."""

import csv
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from psannlm import REPORTS, ROOT
from psannlm.evidence.runs import EvidenceError, load
from psannlm.evidence.store import to_csv
from psannlm.run.check import check
from tests.forging import forge

RUNS = sorted(
    path.parent
    for path in REPORTS.glob("*/*/run.json")
    if json.loads(path.read_text())["status"] == "complete"
    and not (path.parent / ".gitignore").exists()  # a smoke run
)
KINDS = (".csv", ".json", ".ipynb", ".md", ".svg", ".yaml", ".log")


def one_digit_changed(content: bytes, draw: random.Random) -> bytes:
    place = draw.choice([found.start() for found in re.finditer(rb"\d", content)])
    other = draw.choice([d for d in b"0123456789" if d != content[place]])
    return content[:place] + bytes([other]) + content[place + 1 :]


def linked(run, tmp_path):
    """A copy of a run whose files are links, so that one of them can be changed at no cost."""
    folder = tmp_path / run.parent.name / run.name
    shutil.copytree(run, folder, copy_function=os.link)
    return folder


def files_of(run) -> list[str]:
    return sorted(p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file())


def refuses(folder, name: str, draw: random.Random) -> None:
    """Change a digit of one file, see the run refused by name, and put the file back."""
    path = folder / name
    whole = path.read_bytes()
    path.unlink()  # the other name of a linked file keeps its content
    path.write_bytes(one_digit_changed(whole, draw))
    message = rf"{folder.name}: {re.escape(name)} was altered|schema"
    with pytest.raises(EvidenceError, match=message):
        load(folder)
    path.write_bytes(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_digit_in_a_file_of_any_kind_is_refused_by_name(kind, tmp_path):
    draw = random.Random(kind)
    run = draw.choice([run for run in RUNS if any(run.glob(f"*{kind}"))])
    folder = linked(run, tmp_path)

    refuses(folder, draw.choice([n for n in files_of(run) if n.endswith(kind)]), draw)

    assert load(folder).is_complete


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_changed_digit_in_any_file_is_refused_by_name(run, tmp_path):
    draw = random.Random(run.name)
    folder = linked(run, tmp_path)
    names = files_of(run)
    assert {"run.json"} < set(names)

    for name in names:
        if re.search(rb"\d", (run / name).read_bytes()):
            refuses(folder, name, draw)

    assert load(folder).is_complete


RAW = {
    "throughput.csv": {"mfu_stated"},
    "savings.csv": {"time_ratio_low", "time_ratio_high"},
    "measures.csv": set(),
}  # fmt: skip
"""Columns held by hashes and bounds alone: a datasheet's, and ends of intervals drawn at random.

Sizes of a split's text and the facts beside a validation's measures are such numbers too.
"""


def nudged(text: str) -> str:
    return str(int(text) + 1) if text.lstrip("-").isdigit() else repr(float(text) * 1.001)


def is_number(text: str) -> bool:
    try:
        return float(text) != 0 and float(text) == float(text)
    except ValueError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RAW))
def test_a_number_that_follows_from_others_is_refused_though_every_hash_agrees(name, tmp_path):
    draw = random.Random(name)
    [run, *_] = [run for run in RUNS if (run / name).is_file()]
    folder = shutil.copytree(run, tmp_path / run.parent.name / run.name)
    text = (folder / name).read_text()
    head, *rows = csv.reader(io.StringIO(text))
    seen = set()

    for at, column in enumerate(head):
        places = [i for i, row in enumerate(rows) if is_number(row[at])]
        if not places or column in RAW[name]:
            continue
        changed = [list(row) for row in rows]
        place = draw.choice(places)
        changed[place][at] = nudged(changed[place][at])
        (folder / name).write_text(to_csv(head, changed))
        forge(folder, name, str)
        with pytest.raises(EvidenceError, match=rf"{folder.name}: {re.escape(name)}"):
            check(load(folder))
        seen.add(column)

    assert len(seen) > 2
    assert RAW[name] <= set(head)


@pytest.mark.slow
def test_the_book_is_not_built_over_a_changed_digit_and_says_where(tmp_path):
    run = min(RUNS, key=lambda run: len(files_of(run)))
    folder = linked(run, tmp_path)
    (folder / "run.json").unlink()
    altered = one_digit_changed((run / "run.json").read_bytes(), random.Random(0))
    (folder / "run.json").write_bytes(altered)
    ignored = shutil.ignore_patterns("results", ".*")
    shutil.copytree(ROOT / "book", tmp_path / "book", ignore=ignored)
    shutil.copy(ROOT / "_config.yml", tmp_path)

    command = [Path(sys.executable).with_name("jb"), "build", "book", "-W", "-n", "--keep-going"]
    known = os.environ | {"PSANNLM_REPORTS": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=known, capture_output=True, text=True)

    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert f"left out of the book: {folder.parent.name}/{folder.name}: run.json" in said
