"""Records of memory go to JSON and come back the same."""

import json
from typing import Any

import pytest

from psannlm.pages.memory.records import (
    MemoryRecord,
    PeerRecord,
    peers_json,
    read_peers,
    read_records,
    records_json,
)


def record(**changes: Any) -> MemoryRecord:
    values: dict[str, Any] = {
        "repeat": 1,
        "order": 7,
        "base": "respsann",
        "context_length": 16,
        "batch_tokens": 32,
        "grad_checkpoint": True,
        "precision": "bf16",
        "variant": "default",
        "status": "ok",
        "reason": "",
        "started_at": "2026-01-01T00:00:00+00:00",
        "n_parameters": 10,
        "predicted": {"peak": 2**40, "saved: sine": 12},
        "saved_bytes": 400,
        "saved_kinds": {"float32 2x50": 400},
        "peak_allocated_bytes": 4000,
        "peak_reserved_bytes": None,
        "rss_before_bytes": 2**28,
        "peak_rss_bytes": 2**29,
        "loss": 1 / 7,
        "seconds": (0.1, 1 / 3, 2e-7),
    }
    return MemoryRecord(**values | changes)


AWKWARD = record(
    status="failed",
    reason='out of memory: "tried", 3\nlines é',
    saved_bytes=None,
    saved_kinds={},
    peak_allocated_bytes=None,
    rss_before_bytes=None,
    peak_rss_bytes=None,
    loss=None,
    seconds=(),
)
PEER = PeerRecord(
    package="psannlm",
    version="2.0.1",
    base="respsann",
    vocab_size=7,
    d_model=8,
    n_layers=2,
    n_heads=2,
    d_mlp=12,
    context_length=16,
    batch_tokens=32,
    precision="fp32",
    status="ok",
    reason="",
    started_at="2026-01-01T00:00:00+00:00",
    n_parameters=10,
    saved_bytes=400,
    saved_kinds={"float32 2x50": 400},
)


@pytest.mark.parametrize("records", [[], [AWKWARD], [record(), AWKWARD]])
def test_records_survive_their_json_file(records):
    assert read_records(records_json(records)) == records


@pytest.mark.parametrize("peers", [[], [PEER, PEER]])
def test_records_of_the_peer_survive_their_json_file(peers):
    assert read_peers(peers_json(peers)) == peers


def test_the_file_has_a_line_for_each_record():
    lines = records_json([AWKWARD, record()]).splitlines()

    assert len(lines) == 4
    assert json.loads(lines[2])["order"] == 7


def test_a_number_that_json_does_not_know_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        records_json([record(loss=float("nan"))])


def test_a_key_is_the_repeat_and_what_repeats_have_in_common():
    assert record().key == (1, *record(repeat=5, order=2).setting)
    assert record().setting == ("respsann", 16, 32, True, "bf16", "default")
