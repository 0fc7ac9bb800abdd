"""Records of the comparison come back from their CSV files as they were."""

from psannlm.pages.peer.cells import PUBLISHED

from psannlm.pages.peer.records import (
    cells_csv,
    protocol_csv,
    read_cells,
    read_protocol,
    samples_csv,
)
from tests.synthetic_peer import failed_cell, peer_cell, peer_config, peer_records, protocol_cells


def test_records_come_back_from_their_files():
    records = [
        *peer_records(peer_config(n_repeats=2)),
        failed_cell('a comma, a "quote"\nand a second line', repeat=9),
    ]

    assert read_cells(samples_csv(records), cells_csv(records)) == records


def test_every_timed_step_is_a_row_in_its_order():
    rows = samples_csv([peer_cell(seconds=(0.25, 0.125))]).splitlines()

    assert [row.rpartition("fp32,")[2] for row in rows[1:]] == ["0,0.25", "1,0.125"]


def test_samples_belong_to_the_process_of_their_own_side():
    records = [peer_cell(seconds=(1.0,)), peer_cell(side=PUBLISHED, seconds=(2.0, 3.0))]

    found = read_cells(samples_csv(records[::-1]), cells_csv(records))

    assert [record.seconds for record in found] == [(1.0,), (2.0, 3.0)]


def test_the_protocol_comes_back_from_its_file():
    cells = protocol_cells()

    assert read_protocol(protocol_csv(cells)) == cells
    assert read_protocol(protocol_csv([])) == []
