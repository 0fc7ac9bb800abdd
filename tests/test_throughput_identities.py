"""A throughput table that contradicts its samples is refused even if every hash is right."""

import re

import pytest

from psannlm.evidence.runs import EvidenceError, Refused, load
from psannlm.run.check import check, checked_runs
from tests.forging import forge
from tests.synthetic import throughput_run


def field(folder, label, column) -> str:
    """The text of a field of throughput.csv."""
    head, *rows = (line.split(",") for line in (folder / "throughput.csv").read_text().splitlines())
    [row] = [r for r in rows if r[head.index("label")] == label]
    return row[head.index(column)]


def test_an_honest_run_passes(tmp_path):
    check(load(throughput_run(tmp_path)))


@pytest.mark.parametrize(
    "column", ["tokens_per_s", "step_seconds", "flop_per_s", "mfu", "ratio", "noise_floor"]
)
def test_a_forged_number_is_named(tmp_path, column):
    folder = throughput_run(tmp_path)
    old = field(folder, "respsann", column)
    forge(folder, "throughput.csv", lambda text: text.replace(old, repr(float(old) * 1.0001)))

    with pytest.raises(EvidenceError, match=rf"throughput\.csv: respsann.*{column} is"):
        check(load(folder))


def test_a_forged_verdict_is_named(tmp_path):
    folder = throughput_run(tmp_path)
    forge(folder, "throughput.csv", lambda text: text.replace(",slower,", ",faster,"))

    with pytest.raises(EvidenceError, match=r"respsann.*verdict is 'faster'.*gives 'slower'"):
        check(load(folder))


def test_forged_samples_are_named(tmp_path):
    folder = throughput_run(tmp_path)
    faster = re.compile(r"(,respsann,.*),([^,]+)$", re.MULTILINE)
    forge(
        folder,
        "samples.csv",
        lambda text: faster.sub(lambda m: f"{m[1]},{float(m[2]) / 2!r}", text),
    )

    with pytest.raises(EvidenceError, match=r"respsann.*the samples give"):
        check(load(folder))


def test_a_row_that_was_dropped_is_missed(tmp_path):
    folder = throughput_run(tmp_path)
    forge(
        folder,
        "throughput.csv",
        lambda text: "".join(
            line for line in text.splitlines(keepends=True) if ",respsann," not in line
        ),
    )

    with pytest.raises(EvidenceError, match="no row for respsann"):
        check(load(folder))


def test_a_table_that_is_no_table_is_refused_not_a_crash(tmp_path):
    folder = throughput_run(tmp_path)
    forge(folder, "throughput.csv", lambda text: "")

    [refused] = checked_runs(tmp_path)

    assert isinstance(refused, Refused)
    assert "cannot be compared" in refused.reason
