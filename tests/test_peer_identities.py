"""A comparison that contradicts its records is refused even if every hash is right."""

import csv
import io
import json
import re

import pytest
from psannlm.pages.peer.cells import OURS, PUBLISHED

from psannlm.evidence.runs import EvidenceError, load
from psannlm.pages.peer.bounds import impossible
from psannlm.pages.throughput.records import to_csv
from psannlm.run.check import check
from tests.forging import forge
from tests.synthetic_peer import (
    failed_cell,
    peer_cell,
    peer_config,
    peer_records,
    peer_run,
    protocol_cell,
    protocol_cells,
)

ONE = {"base": ("respsann",), "setting": ("best",)}


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """Files of one honest run, to be copied."""
    return peer_run(tmp_path_factory.mktemp("honest"), **ONE)


@pytest.fixture
def folder(honest, tmp_path):
    """A run of the test's own."""
    mine = tmp_path / "benchmarks" / honest.name
    mine.mkdir(parents=True)
    for path in honest.iterdir():
        (mine / path.name).write_bytes(path.read_bytes())
    return mine


def nudge(folder, name, column, change=lambda text: repr(float(text) * 1.0001)):
    """Change the field of a column in the first row of a CSV file that has one."""
    head, *rows = csv.reader(io.StringIO((folder / name).read_text()))
    at = head.index(column)
    row = next(row for row in rows if row[at])
    row[at] = change(row[at])
    forge(folder, name, lambda _: to_csv(head, rows))


def refusal(folder) -> str:
    with pytest.raises(EvidenceError) as refused:
        check(load(folder))
    return str(refused.value)


def test_an_honest_run_passes(folder):
    check(load(folder))


def test_a_run_in_which_the_package_could_not_be_installed_passes(tmp_path):
    records = peer_records(peer_config(), failing=[PUBLISHED])
    lost = {"value": None, "status": "failed", "reason": "no package"}
    protocol = [protocol_cell(), protocol_cell(side=PUBLISHED, **lost)]

    check(load(peer_run(tmp_path, records=records, protocol=protocol)))


@pytest.mark.parametrize(
    "column",
    [
        "value", "value_low", "value_high", "ratio", "ratio_low", "ratio_high", "noise_floor",
    ],
)  # fmt: skip
def test_a_forged_number_is_named_with_its_row(folder, column):
    nudge(folder, "peer.csv", column)

    assert re.search(
        rf"peer\.csv: row \d, ours.* respsann best train_step fp32: {column} is .*the records give",
        refusal(folder),
    )


@pytest.mark.parametrize(
    ("column", "lie"),
    [
        ("verdict", "slower"), ("n_ok", "7"), ("side", "published"), ("choices", "magic"),
        ("n_parameters", "999"), ("timestamp", "20260101_000000"), ("device", "a faster one"),
    ],
)  # fmt: skip
def test_a_forged_word_or_count_is_named(folder, column, lie):
    nudge(folder, "peer.csv", column, lambda _: lie)

    assert f"{column} is '{lie}', the records give" in refusal(folder)


def test_a_row_that_was_dropped_is_missed(folder):
    forge(folder, "peer.csv", lambda text: "".join(text.splitlines(keepends=True)[:-1]))

    assert "peer.csv: 5 rows, the records give 6" in refusal(folder)


@pytest.mark.parametrize("name", ["samples.csv", "cells.csv"])
def test_forged_records_are_caught_by_the_table(folder, name):
    column = {"samples.csv": "seconds", "cells.csv": "saved_bytes"}[name]
    nudge(folder, name, column, lambda text: str(json.loads(text) * 2))

    assert re.search(r"peer\.csv: row \d, ours.*: value is .*the records give", refusal(folder))


def test_a_process_that_stands_there_twice_or_not_at_all_is_named(tmp_path):
    config = peer_config(**ONE)
    first, *rest = peer_records(config)

    twice = refusal(peer_run(tmp_path / "a", records=[first, first, *rest], **ONE))
    missing = refusal(peer_run(tmp_path / "b", records=rest, **ONE))

    name = "0, ours, respsann, best, train_step, fp32"
    assert f"cells.csv: 2 rows for {name}, which was asked for once" in twice
    assert f"cells.csv: 0 rows for {name}, which was asked for once" in missing


def test_what_was_not_asked_for_is_named(tmp_path):
    records = peer_records(peer_config(base=("respsann", "waveresnet"), setting=("best",)))

    problem = refusal(peer_run(tmp_path, records=records, **ONE))

    assert re.search(r"cells\.csv: \d, .*, waveresnet, best, .*, fp32 was not asked for", problem)


def test_a_shape_that_is_not_that_of_the_run_is_named(tmp_path):
    first, *rest = peer_records(peer_config(**ONE))
    other = peer_cell(batch_tokens=64, tokens=64, seconds=first.seconds)

    problem = refusal(peer_run(tmp_path, records=[other, *rest], **ONE))

    assert "0, ours, respsann, best, train_step, fp32: its shape is not that of the run" in problem


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (peer_cell(seconds=(0.5, -0.1)), "seconds must be finite and positive"),
        (peer_cell(seconds=(0.5, float("inf"))), "seconds must be finite and positive"),
        (peer_cell(seconds=()), "no step was timed"),
        (peer_cell(tokens=32, work="generate"), "tokens is 32, a step has 8"),
        (peer_cell(tokens=64), "tokens is 64, a step has 32"),
        (peer_cell(work="saved", saved_bytes=0), "saved_bytes must be positive, got 0"),
        (peer_cell(work="saved"), "saved_bytes must be positive, got None"),
        (peer_cell(reason="slow"), "status ok with reason 'slow'"),
        (failed_cell(""), "status failed with reason ''"),
    ],
)
def test_what_no_process_could_leave_is_named(cell, message):
    [problem] = impossible(cell, peer_config())

    assert problem.startswith(message)


def test_an_impossible_record_is_refused_with_its_file(tmp_path):
    first, *rest = peer_records(peer_config(**ONE))
    records = [peer_cell(tokens=64, seconds=first.seconds), *rest]

    assert (
        "cells.csv: 0, ours, respsann, best, train_step, fp32: tokens is 64, a step has 32"
        in refusal(peer_run(tmp_path, records=records, **ONE))
    )


def test_a_protocol_that_its_records_do_not_give_is_named(folder):
    nudge(folder, "protocol.csv", "value")

    assert "protocol.csv: row 1, ours respsann: value is " in refusal(folder)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([], "0 records, which is not what was asked for"),
        (protocol_cells()[:2], "0 rows of published for GPU-03, respsann, 32, tokens_per_s"),
        ([*protocol_cells(), protocol_cell()], "2 rows of ours for GPU-03"),
        ([protocol_cell(side=s, value=-1.0) for s in (OURS, PUBLISHED)], "at least 0, got -1.0"),
        (
            [protocol_cell(side=s, value=None, status="failed") for s in (OURS, PUBLISHED)],
            "None, status failed, has reason ''",
        ),
        ([protocol_cell(side=s, value=None) for s in (OURS, PUBLISHED)], "None, status ok, has"),
        ([protocol_cell(side=s, status="failed") for s in (OURS, PUBLISHED)], "status failed, has"),
    ],
)
def test_a_protocol_that_is_not_whole_or_not_possible_is_named(tmp_path, cells, message):
    problem = refusal(peer_run(tmp_path, protocol=cells, **ONE))

    assert "protocol_records.csv: " in problem
    assert message in problem


@pytest.mark.parametrize("name", ["cells.csv", "samples.csv", "peer.csv"])
def test_a_file_that_cannot_be_read_is_refused_not_a_crash(folder, name):
    forge(folder, name, lambda text: "")

    assert re.search(r"cannot be checked|0 rows for|no step was timed", refusal(folder))
