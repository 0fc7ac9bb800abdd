"""The comparison's tables say what its records say, side by side and block by block."""

from statistics import median

import pandas as pd
import pytest
from psannlm.pages.peer.cells import AGAIN, OURS, PUBLISHED

from psannlm.evidence.runs import load
from psannlm.files import MIB
from psannlm.pages.peer.tables import PEER, PROTOCOL, peer_table, protocol_table, read
from tests.synthetic_peer import (
    SPEEDS,
    failed_cell,
    peer_cell,
    peer_config,
    peer_records,
    peer_run,
    protocol_cell,
    protocol_cells,
)

CONFIG = peer_config(base=("respsann",), setting=("best",))


def table(records, config=CONFIG):
    return peer_table(records, config, timestamp="20260101_000000", device="a CPU")


def row(rows, side, work="train_step"):
    [found] = rows[(rows["side"] == side) & (rows["work"] == work)].to_dict("records")
    return found


def test_every_side_base_setting_work_and_precision_is_a_row():
    config = peer_config(n_repeats=1, precision=("fp32", "bf16"))

    rows = table(peer_records(config), config)

    assert tuple(rows.columns) == PEER
    assert len(rows) == 3 * 2 * 2 * 2 * 2
    assert not rows.duplicated(["side", "base", "setting", "work", "precision"]).any()
    assert set(rows["device"]) == {"a CPU"}


def test_speeds_and_ratios_are_those_of_the_samples():
    records = peer_records(CONFIG)
    rates = {
        side: [
            r.tokens * len(r.seconds) / sum(r.seconds)
            for r in records
            if r.side == side and r.work == "train_step"
        ]
        for side in SPEEDS
    }
    paired = [ours / other for ours, other in zip(rates[OURS], rates[PUBLISHED], strict=True)]

    ours = row(table(records), OURS)

    assert ours["value"] == pytest.approx(median(rates[OURS]), rel=1e-12)
    assert ours["unit"] == "tokens/s"
    assert ours["ratio"] == pytest.approx(median(paired), rel=1e-12)
    assert min(paired) <= ours["ratio_low"] <= ours["ratio"] <= ours["ratio_high"] <= max(paired)
    assert ours["verdict"] == "faster"


def test_the_second_measurement_of_ours_makes_the_noise_floor_of_its_work():
    rows = table(peer_records(CONFIG))

    again = row(rows, AGAIN)

    reach = max(abs(again["ratio_low"] - 1), abs(again["ratio_high"] - 1))
    assert again["verdict"] == "noise floor"
    timed = rows[rows["work"] == "train_step"]
    assert list(timed["noise_floor"]) == [reach] * 3
    assert rows[rows["work"] == "saved"]["noise_floor"].isna().all()


def test_pairs_are_of_one_block():
    records = [
        peer_cell(repeat=block, side=side, seconds=(second,))
        for block, (ours, other) in enumerate([(1.0, 2.0), (3.0, 6.0)])
        for side, second in ((OURS, ours), (PUBLISHED, other))
    ]

    assert row(table(records), OURS)["ratio"] == 2, "whatever the speed of a block was"


@pytest.mark.parametrize(
    ("speed", "n_repeats", "word"),
    [
        (1500.0, 6, "faster"),
        (800.0, 6, "slower"),
        (1004.0, 6, "not separated"),
        (1500.0, 5, "not separated"),
    ],
)
def test_a_verdict_needs_a_difference_and_repeats(speed, n_repeats, word):
    config = peer_config(base=("respsann",), setting=("best",), n_repeats=n_repeats)
    speeds = {OURS: speed, AGAIN: speed, PUBLISHED: 1000.0}

    assert row(table(peer_records(config, speeds=speeds), config), OURS)["verdict"] == word


@pytest.mark.parametrize(
    ("ours", "word"), [(4 * MIB, "fewer"), (10 * MIB, "equal"), (10 * MIB + 1, "more")]
)
def test_bytes_are_compared_exactly_and_have_no_interval(ours, word):
    records = [
        peer_cell(side=side, work="saved", seconds=(), saved_bytes=size)
        for side, size in ((OURS, ours), (AGAIN, ours), (PUBLISHED, 10 * MIB))
    ]

    found = row(table(records), OURS, "saved")

    assert (found["value"], found["unit"]) == (ours / MIB, "MiB")
    assert found["ratio"] == ours / (10 * MIB)
    assert found["verdict"] == word
    assert pd.isna([found["value_low"], found["ratio_low"], found["noise_floor"]]).all()


def test_of_bytes_that_differ_between_blocks_the_most_is_told():
    records = [
        peer_cell(repeat=block, work="saved", seconds=(), saved_bytes=size)
        for block, size in enumerate((3 * MIB, 5 * MIB, 4 * MIB))
    ]

    assert row(table(records), OURS, "saved")["value"] == 5


def test_a_side_that_failed_stands_there_with_its_reason_and_ours_without_a_ratio():
    rows = table(peer_records(CONFIG, failing=[PUBLISHED]))

    for work in ("train_step", "saved"):
        failed, ours = row(rows, PUBLISHED, work), row(rows, OURS, work)
        assert (failed["status"], failed["reason"]) == ("failed", "cannot be installed")
        assert (failed["n_ok"], failed["n_failed"]) == (0, 6)
        assert pd.isna([failed["value"], ours["ratio"]]).all()
        assert ours["verdict"] == "not compared"
        assert ours["value"] > 0


def test_a_process_that_failed_leaves_the_others_of_its_row():
    records = peer_records(CONFIG)
    lost = [r.repeat == 0 and r.side == OURS for r in records]
    records = [
        failed_cell("killed", work=r.work) if gone else r
        for gone, r in zip(lost, records, strict=True)
    ]

    ours = row(table(records), OURS)

    assert (ours["n_ok"], ours["n_failed"], ours["status"]) == (5, 1, "ok")
    assert ours["reason"] == "killed"
    assert ours["verdict"] == "not separated", "five pairs are too few"


def test_the_protocol_is_a_row_a_measure_with_its_unit():
    failed = protocol_cell(measure="elapsed_s", value=None, status="failed", reason="no GPU")
    cells = [*protocol_cells(), failed]

    rows = protocol_table(cells, timestamp="20260101_000000", device="a CPU")

    assert tuple(rows.columns) == PROTOCOL
    assert list(rows["unit"]) == ["tokens/s", "MiB"] * 2 + ["s"]
    assert list(rows["value"].dropna()) == [SPEEDS[OURS], SPEEDS[PUBLISHED]]
    assert rows.iloc[-1]["reason"] == "no GPU"


def test_a_run_reads_back_as_it_was_written(tmp_path):
    run = load(peer_run(tmp_path, base=("respsann",), setting=("best",)))

    found = read(run)

    assert list(found.rows["value"]) == list(table(peer_records(CONFIG))["value"])
    assert len(found.protocol) == len(protocol_cells())
