"""The book shows the best evidence, names what it refuses, and builds whatever there is."""

import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest

from psannlm import REPORTS, ROOT
from psannlm.evidence.runs import Refused, all_runs
from psannlm.pages.registry import pages
from psannlm.publish import build as book
from tests.forging import forge, writable
from tests.synthetic import throughput_run


def staged(tmp_path):
    """Stages into a book of its own; returns results/ and what was warned of."""
    results = tmp_path / "book" / "results"
    return results, book.stage(results, reports=tmp_path)


def test_committed_evidence_is_sound():
    refused = [run.reason for run in all_runs(REPORTS) if isinstance(run, Refused)]

    assert refused == []


def test_without_evidence_every_page_says_what_is_missing(tmp_path):
    results, warnings = staged(tmp_path)

    assert not warnings
    for name in pages():
        way = "report --preset gpu --only peer" if name == "peer" else "make report PRESET=gpu"
        assert way in (results / f"{name}.md").read_text()


def test_the_best_run_is_the_page_and_its_raw_files_lie_beside(tmp_path):
    folder = throughput_run(tmp_path)
    (folder / "cells").mkdir()
    (folder / "cells" / "0a.json").write_text("")
    forge(folder, "cells/0a.json", lambda _: "{}")

    results, warnings = staged(tmp_path)

    assert not warnings
    text = (results / "throughput.ipynb").read_text()
    assert folder.name in text
    assert "0a.json" not in text
    beside = results / "data" / "throughput"
    assert not (beside / "cells").exists()
    for name in ("throughput.csv", "samples.csv", "cells.csv", "run.json"):
        assert (beside / name).read_bytes() == (folder / name).read_bytes()
    cells = nbformat.reads(text, as_version=4).cells
    assert "preset = 1" not in [cell.source for cell in cells], "no parameters cell"
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert [list(output.data) for output in outputs] == [["text/html"]], "no progress, no pixels"


def test_a_smoke_run_is_shown_with_a_warning(tmp_path):
    throughput_run(tmp_path, preset="smoke")
    results, _ = staged(tmp_path)

    assert "A smoke run" in (results / "throughput.ipynb").read_text()


def test_an_altered_run_is_named_and_left_out(tmp_path):
    good, altered = throughput_run(tmp_path), throughput_run(tmp_path)
    writable(altered)
    path = altered / "throughput.csv"
    path.write_text(path.read_text().replace("1", "2", 1))

    results, warnings = staged(tmp_path)

    assert len(warnings) == 1
    assert f"{altered.name}: throughput.csv was altered" in warnings[0]
    assert good.name in (results / "throughput.ipynb").read_text()
    assert f"refused: benchmarks/{altered.name}" in (results / "history.md").read_text()


@pytest.mark.slow
def test_a_second_staging_touches_nothing_but_the_page_of_a_run_that_is_gone(tmp_path):
    folder = throughput_run(tmp_path)
    results, _ = staged(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in results.rglob("*")}

    staged(tmp_path)

    assert {p: p.stat().st_mtime_ns for p in results.rglob("*")} == before

    (folder / "run.json").unlink()
    staged(tmp_path)

    assert not (results / "throughput.ipynb").exists()
    assert (results / "throughput.md").exists()


def test_every_page_of_the_table_of_contents_is_written_or_staged(tmp_path):
    results, _ = staged(tmp_path)
    lines = (results / "_toc.yml").read_text().splitlines()
    pages = [line.split("file: ")[1] for line in lines if "file: " in line]

    for page in pages:
        written = ROOT / "book" / f"{page}.md"
        assert written.exists() or (results.parent / f"{page}.md").exists(), page


def test_prose_uses_only_constants_that_there_are():
    text = "".join(p.read_text() for p in (ROOT / "book").glob("*.md"))
    used = {part.split("}}")[0].strip() for part in text.split("{{")[1:]}

    assert used <= set(book.constants())


@pytest.fixture
def built(tmp_path):
    """Runs `jb build book/ -W -n --keep-going` in a copy of its sources on the evidence there."""
    site = tmp_path / "site"
    ignored = shutil.ignore_patterns("results", ".staged.json")
    shutil.copytree(ROOT / "book", site / "book", ignore=ignored)
    shutil.copy(ROOT / "_config.yml", site / "_config.yml")

    def built():
        script = "from jupyter_book.cli.main import main; main()"
        command = [sys.executable, "-c", script, "build", "book/", "-W", "-n", "--keep-going"]
        named = {"PSANNLM_REPORTS": str(tmp_path / "reports"), "PYTHONPATH": str(ROOT)}
        known = os.environ | named
        done = subprocess.run(command, cwd=site, capture_output=True, text=True, env=known)
        page = site / "_build" / "html" / "results" / "throughput.html"
        return done.returncode, done.stdout + done.stderr, page.read_text()

    return built


@pytest.mark.slow
def test_a_book_without_evidence_builds_without_a_warning(built):
    code, said, page = built()

    assert code == 0, said
    assert "No complete run of this notebook yet" in re.sub("<[^>]*>", "", page)


@pytest.mark.slow
def test_a_book_with_an_altered_run_is_built_without_it_and_fails_by_name(built, tmp_path):
    good, altered = (throughput_run(tmp_path / "reports") for _ in range(2))
    (altered / "samples.csv").write_text("")

    code, said, page = built()

    assert code != 0
    assert f"{altered.name}: samples.csv was altered" in said
    assert good.name in page
