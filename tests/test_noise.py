"""The noise of a machine is that of its newest throughput run, and of no other machine's."""

from psannlm.run.noise import machine_floor
from tests.histories import ROWS, history_run


def test_the_noise_floor_of_a_machine_is_the_widest_of_its_newest_throughput_run(tmp_path):
    row = ROWS["throughput"]
    old = history_run(tmp_path, "throughput", 1, row | {"noise_floor": 0.9})
    floors = [row | {"noise_floor": floor, "batch_tokens": i} for i, floor in enumerate((0.1, 0.2))]
    new = history_run(tmp_path, "throughput", 2, *floors)
    training = history_run(tmp_path, "tiny_corpus", 3)
    others = [
        history_run(tmp_path, "tiny_corpus", 4 + at, **facts)
        for at, facts in enumerate(({"machine": "x"}, {"torch": "x"}, {"preset": "smoke"}))
    ]
    runs = [old, new, training, *others]

    assert machine_floor(runs, training) == 0.2
    assert [machine_floor(runs, other) for other in others] == [None] * 3


def test_where_no_speed_was_measured_no_noise_is_known(tmp_path):
    training = history_run(tmp_path, "tiny_corpus", 1)

    assert machine_floor([training], training) is None
