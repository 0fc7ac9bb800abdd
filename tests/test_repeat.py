"""A row is found by run and number, measured by its page's own code, and reported in words."""

import pytest

from psannlm.config.schema import ConfigError
from psannlm.evidence.runs import EvidenceError, load
from psannlm.files import sha256_of
from psannlm.rerun.outcome import Quantity, Repeat
from psannlm.run import repeat
from tests.synthetic import throughput_run
from tests.synthetic_memory import memory_run


def made_up(*verdicts: bool | None):
    """Stands in for a page's measurement."""
    quantities = tuple(Quantity(f"q{i}", "1", "1", "1", v) for i, v in enumerate(verdicts))
    return lambda row, asked: Repeat(quantities, ("a rule",))


@pytest.mark.parametrize(
    ("verdicts", "inside", "last"),
    [
        ((True, None), True, "overall: INSIDE"),
        ((True, False), False, "overall: OUTSIDE, in q1"),
        ((None,), None, "overall: NOT COMPARABLE, nothing of this row can be judged here"),
    ],
)
def test_the_last_line_is_the_verdict(tmp_path, monkeypatch, verdicts, inside, last):
    folder = throughput_run(tmp_path)
    monkeypatch.setattr(repeat, "PAGES", {"throughput": made_up(*verdicts)})
    before = {path: sha256_of(path) for path in tmp_path.rglob("*") if path.is_file()}
    said = []

    outcome = repeat.rerun(folder, 2, say=said.append)

    assert outcome.inside is inside
    lines = outcome.text.splitlines()
    assert lines[-1] == last
    assert "row 2 of throughput.csv" in lines[0]
    assert "label transformer, batch_tokens 32, mode forward, precision fp32" in lines[0]
    assert "a rule" in lines
    assert any(line.startswith("commit") and "0" * 40 in line for line in lines)
    assert said == [lines[0]]
    assert {path: sha256_of(path) for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_row_out_of_range_is_refused_with_the_rows_there_are(tmp_path):
    run = load(memory_run(tmp_path))

    with pytest.raises(ConfigError, match=r"row must be from 1 to \d+ .* got 0; its rows") as told:
        repeat.row_of(run, 0)

    assert "1: base respsann, context_length 16, batch_tokens 32" in str(told.value)


def test_what_is_no_run_folder_is_refused_with_the_runs_there_are(tmp_path):
    folder = throughput_run(tmp_path)

    with pytest.raises(ConfigError, match=f"is no run folder.*benchmarks/{folder.name}"):
        repeat.sound_run(tmp_path / "nowhere", reports=tmp_path)


def test_a_refused_run_and_an_unfinished_one_are_refused_here_too(tmp_path):
    altered, failed = (
        throughput_run(tmp_path / "a"),
        throughput_run(tmp_path / "b", status="failed"),
    )
    (altered / "throughput.csv").write_text("altered")

    with pytest.raises(EvidenceError, match=r"throughput\.csv was altered"):
        repeat.rerun(altered)
    with pytest.raises(ConfigError, match=r"is not complete \(failed\)"):
        repeat.rerun(failed)


def test_a_page_that_cannot_be_repeated_by_row_is_named(tmp_path, monkeypatch):
    folder = throughput_run(tmp_path)
    monkeypatch.setattr(repeat, "PAGES", {})

    with pytest.raises(ConfigError, match="rows of the page throughput cannot be measured again"):
        repeat.rerun(folder)


def test_fewer_repeats_than_one_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="repeats must be at least 1, got 0"):
        repeat.rerun(tmp_path, repeats=0)
