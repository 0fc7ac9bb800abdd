"""The page measures each process once, then the protocol, and keeps each before the next."""

import pytest
import torch
from psannlm.pages.peer.keeping import PEERS, PROTOCOL_RECORDS

from psannlm.evidence import cells
from psannlm.evidence.runs import Run
from psannlm.evidence.session import Page
from psannlm.pages.peer import measured as peer_measured
from psannlm.pages.peer.records import read_protocol
from tests.synthetic import start_manifest
from tests.synthetic_peer import peer_config, peer_records, protocol_cells

CONFIG = peer_config(n_repeats=2, base=("respsann",), setting=("best",))
N_CELLS = 2 * 3
"""Three sides in two blocks."""


@pytest.fixture
def asked(monkeypatch):
    """Keys of the processes that were started, each answered with known records."""
    started = []

    def compare(config, *, done=()):
        records = peer_records(config)
        for order in range(N_CELLS):
            mine = [r for r in records if r.order == order and r.key not in done]
            if mine:
                started.append(order)
                yield mine

    monkeypatch.setattr(peer_measured, "compare", compare)
    monkeypatch.setattr(peer_measured, "plan", lambda config: list(range(N_CELLS)))
    monkeypatch.setattr(peer_measured, "protocol", lambda config: iter(protocol_cells()))
    return started


def page_of(reports) -> Page:
    run = Run.start("benchmarks", start_manifest("peer", CONFIG), reports=reports)
    return Page("peer", CONFIG, run, torch.device("cpu"))


def test_what_was_measured_is_in_the_tables_and_names_its_run(tmp_path, asked):
    page = page_of(tmp_path)

    found = peer_measured.measure(page, CONFIG)

    assert asked == list(range(N_CELLS))
    assert set(found.rows["timestamp"]) == {page.run.folder.name}
    assert set(found.rows["device"]) == {page.device_name}
    assert list(found.rows["n_ok"]) == [2] * 6
    assert len(found.protocol) == len(protocol_cells())


def test_each_process_and_each_measure_is_kept_before_the_next(tmp_path, asked, monkeypatch):
    page, written = page_of(tmp_path), []
    write = page.run.write
    monkeypatch.setattr(
        page.run, "write", lambda name, text: (written.append(name), write(name, text))
    )

    peer_measured.measure(page, CONFIG)

    protocol = [PROTOCOL_RECORDS] * (1 + len(protocol_cells()))
    assert written == ["samples.csv", "cells.csv"] * N_CELLS + protocol


def test_a_killed_run_goes_on_where_it_broke_off_and_repeats_its_protocol(
    tmp_path, asked, monkeypatch
):
    page = page_of(tmp_path)
    whole = peer_measured.compare

    def killed(config, *, done=()):
        for order, mine in enumerate(whole(config, done=done)):
            if order == 2:
                raise KeyboardInterrupt
            yield mine

    with monkeypatch.context() as patch:
        patch.setattr(peer_measured, "compare", killed)
        with pytest.raises(KeyboardInterrupt):
            peer_measured.measure(page, CONFIG)
    assert len(cells.recorded(page.run, PEERS)) == 2 * 2
    asked.clear()

    run = Run.resume(page.run.folder, page.run.manifest)
    found = peer_measured.measure(Page("peer", CONFIG, run, page.device), CONFIG)

    assert asked == list(range(2, N_CELLS))
    assert list(found.rows["n_ok"]) == [2] * 6
    kept = (run.folder / PROTOCOL_RECORDS).read_text(encoding="utf-8")
    assert read_protocol(kept) == protocol_cells()
