"""A row beside the published package is repeated with both packages, and held to its processes."""

from dataclasses import replace

import pytest
from psannlm.pages.peer.cells import OURS, PUBLISHED
from psannlm.pages.peer.rerun import compared, restricted

from psannlm.evidence.rows import rows_of
from psannlm.evidence.runs import load
from psannlm.pages.peer.plan import plan
from tests.synthetic_peer import SPEEDS, failed_cell, peer_config, peer_records, peer_run


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return rows_of(load(peer_run(tmp_path_factory.mktemp("reports"))))


def row_of(rows, side, work):
    return next(r for r in rows if (r.values["side"], r.values["work"]) == (side, work))


def verdicts(row, new, *, comparable=True):
    found = compared(row, peer_records(peer_config()), new, comparable=comparable)
    return {q.name: q.inside for q in found.quantities}


def again(**speeds):
    return peer_records(peer_config(n_repeats=3), speeds=SPEEDS | speeds, seed=1)


def test_the_same_speeds_are_inside(rows):
    row = row_of(rows, OURS, "train_step")

    assert verdicts(row, again()) == {"tokens/s": True, "ratio to published": True}


def test_a_slower_side_is_outside_and_not_judged_on_another_device(rows):
    row = row_of(rows, OURS, "train_step")

    slower = again(**{OURS: 1300.0})

    assert verdicts(row, slower) == {"tokens/s": False, "ratio to published": False}
    assert set(verdicts(row, slower, comparable=False).values()) == {None}


def test_the_published_side_is_held_to_its_own_speed(rows):
    row = row_of(rows, PUBLISHED, "train_step")

    assert verdicts(row, again()) == {"tokens/s": True}


def test_bytes_must_be_the_same(rows):
    row = row_of(rows, OURS, "saved")
    other = peer_records(peer_config(n_repeats=1))
    more = [r for r in other if r.side == PUBLISHED and r.work == "saved"]

    assert verdicts(row, other) == {"saved for backward, bytes": True}
    less = [replace(r, saved_bytes=r.saved_bytes - 1) for r in other if r.saved_bytes]
    assert verdicts(row, less) == {"saved for backward, bytes": False}
    assert verdicts(row_of(rows, PUBLISHED, "saved"), more) == {"saved for backward, bytes": True}


def test_a_side_that_fails_now_is_outside(rows):
    row = row_of(rows, OURS, "train_step")
    failed = failed_cell(**{name: row.values[name] for name in ("side", "base", "setting")})

    assert verdicts(row, [failed]) == {"status": False}


def test_only_what_the_row_was_computed_from_is_planned(rows):
    row = row_of(rows, OURS, "train_step")

    one = restricted(row, peer_config(), 2)

    assert one.work == ("train_step",)
    assert len(plan(one)) == 6
    assert {(c.base, c.setting) for c in plan(one)} == {(row.values["base"], row.values["setting"])}
