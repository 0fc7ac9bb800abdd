"""Pages are staged again when something changed, and only then."""

import subprocess
import sys

import pytest

from psannlm import ROOT
from psannlm.publish import build as book
from psannlm.publish import staging
from tests.forging import writable
from tests.synthetic import throughput_run


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A book folder whose evidence is a run of its own."""
    monkeypatch.setattr(staging, "REPORTS", tmp_path / "reports")
    throughput_run(tmp_path / "reports")
    return tmp_path / "book"


@pytest.fixture
def made_again(source, monkeypatch):
    """Whether the next build stages anew."""
    calls, stage = [], book.stage

    def counting(target):
        calls.append(target)
        return stage(target, reports=staging.REPORTS)

    monkeypatch.setattr(book, "stage", counting)

    def made_again() -> bool:
        calls.clear()
        staging.prepare(source)
        return bool(calls)

    return made_again


def test_a_second_build_with_nothing_new_stages_nothing_unless_its_stamp_is_broken(
    source, made_again
):
    assert made_again()
    assert not made_again()

    (source / staging.STAMP).write_text("{")
    assert made_again()


def test_an_altered_run_is_named_again_in_every_build(source, made_again):
    [folder] = (staging.REPORTS / "benchmarks").iterdir()
    writable(folder)
    (folder / "samples.csv").write_text("")

    first, second = staging.prepare(source), staging.prepare(source)

    assert folder.name in first.warnings[0]
    assert second == first


@pytest.mark.slow
def test_a_staged_file_that_was_edited_is_restored_and_new_evidence_is_staged(source, made_again):
    made_again()
    page = source / "results" / "history.md"
    whole = page.read_text()
    page.write_text("edited")

    assert made_again()
    assert page.read_text() == whole

    throughput_run(staging.REPORTS)
    assert made_again()


def test_the_decision_loads_no_heavy_package():
    script = (
        "import sys; from psannlm.publish import staging; "
        "print({'torch', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)

    assert done.stdout.strip() == "set()"


def test_mathjax_comes_from_the_installed_package(tmp_path):
    (tmp_path / "_static").mkdir()

    assert staging.copy_mathjax(tmp_path)
    assert b"MathJax" in (tmp_path / "_static" / "tex-svg.js").read_bytes()


def test_the_book_s_own_data_are_inputs_but_not_what_is_staged_beside_them(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "ROOT", tmp_path)
    monkeypatch.setattr(staging, "REPORTS", tmp_path / "reports")
    staged = tmp_path / "book" / "results" / "config_used.yaml"
    staged.parent.mkdir(parents=True)
    found = []
    for path in (tmp_path / "book" / "published.yaml", staged):
        path.write_text("figures: []\n")
        found.append(staging.fingerprint(staging._inputs()))
        path.write_text("figures: [1]\n")
        found.append(staging.fingerprint(staging._inputs()))

    assert found[0] != found[1] == found[2] == found[3]
