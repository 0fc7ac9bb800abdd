"""One changed digit in committed evidence is refused, and the message names run, file and rule."""

import os
import random
import re
import shutil

import pytest

from psannlm import REPORTS
from psannlm.report.runs import EvidenceError, load

RUNS = sorted(path.parent for path in REPORTS.glob("*/*/run.json"))
KINDS = (".csv", ".json", ".ipynb", ".md", ".svg", ".yaml", ".log")


def digits(text: bytes) -> list[int]:
    return [found.start() for found in re.finditer(rb"\d", text)]


def one_digit_changed(content: bytes, draw: random.Random) -> bytes:
    place = draw.choice(digits(content))
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
    with pytest.raises(
        EvidenceError, match=rf"{folder.name}: {re.escape(name)} was altered|schema"
    ):
        load(folder)
    path.write_bytes(whole)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_changed_digit_in_a_file_of_each_kind_is_refused_by_name(run, tmp_path):
    draw = random.Random(run.name)
    names = files_of(run)
    folder = linked(run, tmp_path)

    for kind in KINDS:
        with_digits = [n for n in names if n.endswith(kind) and digits((run / n).read_bytes())]
        if with_digits:
            refuses(folder, draw.choice(with_digits), draw)

    assert load(folder).is_complete


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_changed_digit_in_any_file_is_refused_by_name(run, tmp_path):
    draw = random.Random(run.name)
    folder = linked(run, tmp_path)
    names = files_of(run)
    assert {"run.json"} < set(names)

    for name in names:
        if digits((run / name).read_bytes()):
            refuses(folder, name, draw)

    assert load(folder).is_complete
