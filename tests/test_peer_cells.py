"""What a comparison leaves: a rate is of whole steps, a key names one kind of work of one side."""

from dataclasses import replace

from psannlm.pages.peer.cells import SIDES

from tests.synthetic_peer import peer_cell


def test_a_rate_is_total_tokens_over_total_time():
    cell = peer_cell(tokens=32, seconds=(1.0, 3.0))

    assert cell.tokens_per_s == 16


def test_records_of_one_work_differ_in_their_keys_by_whatever_was_asked_for():
    cell = peer_cell()
    others = [
        replace(cell, repeat=cell.repeat + 1),
        replace(cell, base="another"),
        replace(cell, setting="another"),
        replace(cell, work="another"),
        replace(cell, precision="another"),
        *(replace(cell, side=side) for side in SIDES if side != cell.side),
    ]

    assert len({cell.key, *(other.key for other in others)}) == len(others) + 1
