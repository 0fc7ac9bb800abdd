"""A row is found by run and number, measured by its page, judged by its columns, and reported."""

from dataclasses import replace

import pytest
import torch

from psannlm.config.schema import ConfigError
from psannlm.evidence.page import Quantity, Repeat, RerunRequest
from psannlm.evidence.runs import EvidenceError, load
from psannlm.evidence.table import Column
from psannlm.files import sha256_of
from psannlm.pages.throughput.page import PAGE, ThroughputPage
from psannlm.rerun.difference import Differing, EnvironmentDiff, text_table
from psannlm.rerun.outcome import Outcome, compared, exact, status
from psannlm.run import check
from tests.forging import writable
from tests.synthetic import throughput_config, throughput_run

HERE = EnvironmentDiff(torch.device("cpu"), (), {"device": "A, 2 cores"}, {"device": "A, 2 cores"})
REQUEST = RerunRequest(throughput_config(), torch.device("cpu"), 2, print)


@pytest.fixture
def row(tmp_path):
    return PAGE.rows(load(throughput_run(tmp_path)))[0]


class Judged(ThroughputPage):
    """A page of one column, whose records are its values by process."""

    def __init__(self, column):
        self.tables = (replace(PAGE.tables[0], columns=(column,)),)

    def replicates(self, records, row, config):
        return {"x": dict(enumerate(records))}

    def failures(self, records, row):
        return [] if records else ["killed"]


@pytest.mark.parametrize(
    ("compare", "old", "new", "changes", "inside"),
    [
        ("noise", [1.0, 1.1, 0.9], [1.05, 1.0], {}, [True]),
        ("noise", [1.0, 1.01, 0.99], [2.0, 2.1], {}, [False]),
        ("noise", [1.0], [1.0], {}, [None]),
        ("noise", [1.0, 1.1], [], {}, [False]),
        ("noise", [1.0, 1.01], [9.0], {"no_verdict": "another machine"}, [None]),
        ("noise", [1.0, 1.001, 1.002], [1.1], {"floor": 0.2}, [True]),
        ("counted", [5.0, 5.0], [5.0], {}, [True]),
        ("counted", [5.0, 5.0], [5.0, 6.0], {}, [False]),
        ("counted", [100.0], [104.0], {"within": 0.05}, [True]),
        ("counted", [100.0], [106.0], {"within": 0.05}, [False]),
        ("interval", [1.0, 2.0, 3.0], [1.0], {}, [True, True]),
        ("interval", [1.0, 1.01, 1.02], [9.0], {}, [False, False]),
        ("interval", [1.0, 2.0, 3.0], [1.1], {"same_digits": False}, [True, True]),
        ("check", [1.0], [0.0], {}, [False]),
        ("single", [1.0], [7.0], {}, [None]),
    ],
)
def test_a_column_says_how_its_repeat_is_judged(row, compare, old, new, changes, inside):
    asked = {name: value for name, value in changes.items() if name != "within"}
    within = changes.get("within", 0.0)
    column = Column("x", "A number.", "s", format=".2f", compare=compare, within=within)
    row = replace(row, values={"x": old[0], "status": "ok", "noise_floor": 0.0})

    found = compared(Judged(column), row, replace(REQUEST, **asked), old, new)

    assert [quantity.inside for quantity in found.quantities] == inside


def test_the_report_names_what_differs_and_what_failed(row):
    found = Repeat((exact("bytes", "5", "5"),), ("bytes: the same",))
    outcome = Outcome(PAGE, row, found, HERE)
    [failed] = status("failed", "killed", "ok", "")

    assert (failed.inside, failed.published) == (False, "failed: killed")
    assert status("ok", "", "ok", "") == ()
    assert text_table(("a", "long"), [("wide", "1")]) == ["a     long", "wide  1"]
    other = replace(HERE, differing=(Differing("device", "A, 2 cores", "B"),), telling=("device",))
    values = dict(outcome.row.values) | {"status": "failed", "reason": "out of memory"}

    text = replace(outcome, environment=other, row=replace(outcome.row, values=values)).text

    assert "differs in the environment  published   here" in text
    assert "device                      A, 2 cores  B" in text
    assert "the published interval is that of A, 2 cores" in text
    assert "when published this row failed: out of memory; tried again" in text
    assert "differences of the environment: none" in outcome.text.splitlines()


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
    found = Repeat(
        tuple(Quantity(f"q{i}", "1", "1", "1", v) for i, v in enumerate(verdicts)), ("a rule",)
    )
    monkeypatch.setattr(PAGE, "measure_again", lambda *_: [], raising=False)
    monkeypatch.setattr(PAGE, "compare_again", lambda *_: found, raising=False)
    before = {path: sha256_of(path) for path in tmp_path.rglob("*") if path.is_file()}
    said = []

    outcome = check.rerun(folder, 2, say=said.append)

    lines = outcome.text.splitlines()
    assert (outcome.inside, lines[-1]) == (inside, last)
    assert "32 tokens a step, forward, fp32" in lines[0]
    assert "a rule" in lines
    assert any(line.startswith("commit") and "0" * 40 in line for line in lines)
    assert said == [lines[0]]
    assert {path: sha256_of(path) for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_is_usual_is_repeated_up_to_what_was_published(tmp_path, monkeypatch):
    folder, asked = throughput_run(tmp_path), []
    monkeypatch.setattr(PAGE, "measure_again", lambda row, r, old: asked.append(r.repeats) or [])

    for repeats in (None, 9):
        check.rerun(folder, 1, repeats=repeats)
    monkeypatch.setattr(PAGE, "repeats_once", True, raising=False)

    assert asked == [PAGE.usual_repeats, 9]
    with pytest.raises(ConfigError, match="repeats must be 1 on the page throughput"):
        check.rerun(folder, 1, repeats=2)


def test_a_row_out_of_range_or_no_run_folder_is_refused_with_those_there_are(tmp_path):
    folder = throughput_run(tmp_path)

    with pytest.raises(ConfigError, match=r"row must be from 1 to 3 .* got 0; its rows") as told:
        check.row_of(PAGE, load(folder), 0)
    assert "1: respsann, 32 tokens a step, forward, fp32" in str(told.value)
    with pytest.raises(ConfigError, match=f"is no run folder.*benchmarks/{folder.name}"):
        check.sound_run(tmp_path / "nowhere", reports=tmp_path)


def test_a_refused_run_an_unfinished_one_and_no_repeat_at_all_are_refused(tmp_path):
    altered = throughput_run(tmp_path / "a")
    failed = throughput_run(tmp_path / "b", status="failed")
    writable(altered)
    (altered / "throughput.csv").write_text("altered")

    with pytest.raises(EvidenceError, match=r"throughput\.csv was altered"):
        check.rerun(altered)
    with pytest.raises(ConfigError, match=r"is not complete \(failed\)"):
        check.rerun(failed)
    with pytest.raises(ConfigError, match="repeats must be at least 1, got 0"):
        check.rerun(failed, repeats=0)
