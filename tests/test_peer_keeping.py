"""A run folder gives back the comparison's records that it was given."""

import torch
from psannlm.pages.peer.keeping import PEERS

from psannlm.evidence import cells
from psannlm.evidence.runs import Run
from psannlm.evidence.session import Page
from tests.synthetic import start_manifest
from tests.synthetic_peer import peer_config, peer_records


def test_what_is_collected_is_recorded_and_counts_as_done(tmp_path):
    config = peer_config(n_repeats=1)
    records = peer_records(config)
    run = Run.start("benchmarks", start_manifest("peer", config), reports=tmp_path)
    page = Page("peer", config, run, torch.device("cpu"))

    collected = cells.collect(page, ([record] for record in records), PEERS, total=len(records))

    assert collected == records == cells.recorded(run, PEERS)
    assert cells.done(run, PEERS) == {record.key for record in records}


def test_a_cell_is_called_by_its_side_and_setting():
    [first, *_] = peer_records(peer_config())

    assert PEERS.label(first) == "ours, respsann, defaults, fp32"
