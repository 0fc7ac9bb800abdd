"""The plan of a run, and what comes of it."""

from collections import Counter

import pytest

from psannlm.pages.throughput import plan as experiments
from psannlm.pages.throughput.plan import labels, plan, throughput
from psannlm.pages.throughput.records import CEILING
from tests.synthetic import throughput_config

CONFIG = throughput_config(
    base=("respsann", "sgrpsann", "transformer"), batch_tokens=(32, 64), n_repeats=3
)


def test_every_block_has_every_cell_once():
    cells = plan(CONFIG)

    seen = Counter((c.repeat, c.label, c.batch_tokens, c.precision) for c in cells)
    assert set(seen.values()) == {1}
    assert len(cells) == 3 * (4 * 2 + 1)


def test_the_baseline_is_measured_under_two_names():
    assert labels(CONFIG)["transformer (again)"] == "transformer"


def test_a_baseline_that_was_not_asked_for_is_measured_all_the_same():
    alone = throughput_config(base=("respsann",))

    assert set(labels(alone)) == {"respsann", "transformer", "transformer (again)"}


def test_blocks_are_shuffled_anew_and_the_same_for_the_same_seed():
    orders = [[c.label for c in plan(CONFIG) if c.repeat == repeat] for repeat in range(3)]

    assert len({tuple(order) for order in orders}) == 3
    assert plan(CONFIG) == plan(CONFIG)


def test_every_block_measures_the_ceiling():
    assert [c.repeat for c in plan(CONFIG) if c.base == CEILING] == [0, 1, 2]


@pytest.fixture
def measured(monkeypatch):
    """Records which tasks would have run, and answers each with a failure."""
    tasks = []

    def run_task(task, **options):
        tasks.append(task)
        return [{"mode": mode, "status": "failed", "reason": "pretended"} for mode in task.modes]

    monkeypatch.setattr(experiments, "run_task", run_task)
    return tasks


def test_a_failed_cell_is_a_record_with_its_reason(measured):
    records = [record for cell in throughput(CONFIG) for record in cell]

    assert len(records) == len(plan(CONFIG))
    assert {r.reason for r in records} == {"pretended"}


def test_cells_that_are_done_are_not_measured_again(measured):
    first = next(iter(plan(CONFIG)))
    done = {
        (first.repeat, first.label, first.batch_tokens, m, first.precision) for m in first.modes
    }

    records = [record for cell in throughput(CONFIG, done=done) for record in cell]

    assert len(measured) == len(plan(CONFIG)) - 1
    assert not {r.key for r in records} & done


def test_a_cell_with_one_mode_missing_is_measured_again(measured):
    both = throughput_config(mode=("forward", "train_step"), n_repeats=1)
    done = {(0, "respsann", 32, "forward", "fp32")}

    list(throughput(both, done=done))

    assert len(measured) == len(plan(both))
