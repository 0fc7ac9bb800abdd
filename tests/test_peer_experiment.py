"""The plan of a comparison with the published package, and what comes of its processes."""

from collections import Counter

import pytest
from psannlm.pages.peer.cells import AGAIN, OURS, PUBLISHED, SIDES

from psannlm import CACHE
from psannlm.config.schema import ConfigError
from psannlm.pages.peer import package as peer
from psannlm.pages.peer import plan as peer_experiment
from psannlm.pages.peer import process as peer_process
from psannlm.pages.peer.plan import compare, plan, protocol
from tests.peers import peer_config

CONFIG = peer_config(precision=("fp32", "bf16"), n_repeats=3)


def test_every_block_has_every_cell_once():
    cells = plan(CONFIG)

    seen = Counter((c.repeat, c.side, c.base, c.setting, c.precision) for c in cells)
    assert set(seen.values()) == {1}
    assert len(cells) == 3 * 3 * 2 * 2 * 2
    assert [c.order for c in cells] == list(range(len(cells)))
    assert [c.repeat for c in cells] == sorted(c.repeat for c in cells)


def test_blocks_are_shuffled_anew_and_the_same_for_the_same_seed():
    def orders(seed: int) -> list[tuple]:
        cells = plan(CONFIG.model_copy(update={"seed": seed}))
        return [tuple(c[2:] for c in cells if c.repeat == repeat) for repeat in range(3)]

    assert len(set(orders(0))) == 3
    assert orders(0) == orders(0)
    assert orders(0) != orders(1)


def test_no_side_is_measured_before_the_others_more_often_than_chance_would():
    one = peer_config(base="respsann", setting="best", n_repeats=300)

    first = Counter(c.side for c in plan(one) if c.order % 3 == 0)

    assert set(first) == set(SIDES)
    assert all(70 < n < 130 for n in first.values())


@pytest.fixture
def started(monkeypatch):
    """What would have run, each answered with a success."""
    tasks = []

    def run_task(task, **options):
        tasks.append((task, options))
        values = dict.fromkeys(("rel_diff", "tokens_per_s", "saved_mib"), (1.5, ""))
        values["max_allocated_mib"] = (None, "no peak here")
        found = {"status": "ok", "reason": "", "seconds": [0.5, 0.25], "tokens": 16}
        if task.measures == "protocol":
            found = {"status": "ok", "reason": "", "values": values}
        return [found | {"mode": mode, "started_at": "now"} for mode in task.modes]

    monkeypatch.setattr(peer_process, "run_task", run_task)
    monkeypatch.setattr(peer_process, "environment", lambda requirement, cache: cache / "python")
    return tasks


@pytest.fixture
def unavailable(monkeypatch):
    """How often it was tried to install what cannot be installed."""
    tries = []

    def environment(requirement, cache):
        tries.append(requirement)
        raise ConfigError(f"cannot install {requirement}: no network")

    monkeypatch.setattr(peer_process, "environment", environment)
    return tries


def test_a_cell_leaves_a_record_a_work_with_its_place(started, tmp_path):
    cells = list(compare(CONFIG, cache=tmp_path))

    records = [record for cell in cells for record in cell]
    assert {len(cell) for cell in cells} == {len(CONFIG.work)}
    assert len({record.key for record in records}) == len(records)
    planned = [(c.repeat, c.order, c.side, c.base, c.setting, c.precision) for c in plan(CONFIG)]
    assert planned == [
        (r.repeat, r.order, r.side, r.base, r.setting, r.precision) for [r, *_] in cells
    ]
    assert {r.tokens_per_s for r in records} == {2 * 16 / 0.75}
    assert {(r.batch_tokens, r.context_length) for r in records} == {(16, 8)}


def test_only_the_published_side_runs_in_the_other_interpreter(started, tmp_path):
    cells = list(compare(CONFIG, cache=tmp_path))

    by_side = {record.side: set() for [record, *_] in cells}
    for (task, _), [record, *_] in zip(started, cells, strict=True):
        by_side[record.side].add(task.python)
    assert by_side == {OURS: {""}, AGAIN: {""}, PUBLISHED: {str(tmp_path / "python")}}


def test_a_package_that_cannot_be_installed_is_tried_once_and_ours_is_measured(
    started, unavailable, tmp_path
):
    records = [record for cell in compare(CONFIG, cache=tmp_path) for record in cell]

    assert unavailable == ["psannlm==9.9.9"]
    for record in records:
        failed = record.side == PUBLISHED
        assert record.status == ("failed" if failed else "ok")
        assert record.reason == ("cannot install psannlm==9.9.9: no network" if failed else "")
    assert {r.side for r in records} == set(SIDES)
    assert all(r.started_at for r in records)


def test_what_is_done_is_not_measured_again_unless_a_work_is_missing(started, tmp_path):
    first, second = plan(CONFIG)[:2]
    done = {
        (c.repeat, c.side, c.base, c.setting, work, c.precision)
        for c in (first, second)
        for work in CONFIG.work
    }
    done -= {(second.repeat, *second[2:5], "saved", second.precision)}

    found = [cell[0].order for cell in compare(CONFIG, done=done, cache=tmp_path)]

    assert found == [c.order for c in plan(CONFIG)[1:]]


def test_without_batches_the_protocol_is_left_out(started, tmp_path):
    assert list(protocol(peer_config(), cache=tmp_path)) == []
    assert started == []


def test_the_protocol_repeats_each_check_on_both_sides(started, tmp_path):
    asked = peer_config(protocol_batch_tokens=(1024, 8192))

    cells = list(protocol(asked, cache=tmp_path))

    seen = Counter((c.check, c.batch_tokens, c.context_length, c.measure) for c in cells)
    assert seen == dict.fromkeys(
        [
            ("GPU-02", 13, 13, "rel_diff"),
            ("GPU-03", 1024, 256, "tokens_per_s"),
            ("GPU-03", 8192, 4096, "tokens_per_s"),
            ("GPU-04", 64, 64, "max_allocated_mib"),
            ("GPU-04", 64, 64, "max_reserved_mib"),
            ("GPU-04", 64, 64, "saved_mib"),
            ("GPU-04", 64, 64, "elapsed_s"),
        ],
        2 * 2,
    )
    assert {c.side for c in cells} == {OURS, PUBLISHED}
    assert {(t.batch, t.tokens) for t, _ in started} == {(1, 13), (4, 256), (2, 4096), (1, 64)}
    assert {t.setting for t, _ in started} == {"defaults"}
    assert {c.value for c in cells if c.measure == "rel_diff"} == {1.5}
    peaks = {(c.value, c.reason) for c in cells if c.measure == "max_allocated_mib"}
    assert peaks == {(None, "no peak here")}


def test_the_protocol_of_a_package_that_cannot_be_installed_is_failed_records(
    started, unavailable, tmp_path
):
    cells = list(protocol(peer_config(protocol_batch_tokens=(1024,)), cache=tmp_path))

    failed = [c for c in cells if c.side == PUBLISHED]
    assert len(failed) == len(cells) / 2 == 2 * 6
    assert {(c.status, c.value) for c in failed} == {("failed", None)}
    assert {c.reason for c in failed} == {"cannot install psannlm==9.9.9: no network"}


@pytest.mark.slow
def test_our_side_is_measured_for_real(unavailable, tmp_path):
    one = peer_config(base="sgrpsann", setting="defaults", n_repeats=1, precision="bf16")

    records = {(r.side, r.work): r for cell in compare(one, cache=tmp_path) for r in cell}

    for side in (OURS, AGAIN):
        for work in one.work:
            assert records[side, work].status == "ok", records[side, work].reason
        forward, saved = records[side, "forward"], records[side, "saved"]
        assert len(forward.seconds) >= 2
        assert forward.tokens == 16
        assert records[side, "generate"].tokens == 5
        assert saved.saved_bytes > 0
        assert saved.seconds == ()
    assert records[OURS, "saved"].saved_bytes == records[AGAIN, "saved"].saved_bytes
    assert {r.status for (side, _), r in records.items() if side == PUBLISHED} == {"failed"}


@pytest.mark.slow
def test_the_published_package_is_measured_for_real(monkeypatch):
    if not (CACHE / "peers" / "psannlm-2.0.1" / peer.STAMP).exists():
        pytest.skip("psannlm 2.0.1 is not installed in the cache")
    monkeypatch.setattr(peer_experiment, "SIDES", (PUBLISHED,))
    one = peer_config(peer="psannlm==2.0.1", base="respsann", setting="defaults", n_repeats=1)

    [records] = compare(one)

    assert [(r.status, r.reason) for r in records] == [("ok", "")] * len(one.work)
    assert all(r.choices.startswith("math attention") for r in records)
    assert {r.n_parameters for r in records} == {records[0].n_parameters}
