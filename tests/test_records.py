"""Records go to CSV and come back the same."""

from psannlm.pages.throughput.records import cells_csv, read_records, samples_csv
from tests.synthetic import record

AWKWARD = record(
    label="transformer (again)",
    status="failed",
    reason='out of memory: "tried", 3\nlines',
    seconds=(),
    loss=None,
    steady=False,
)


def test_records_survive_their_csv_files():
    exact = record(repeat=1, seconds=(0.1, 1 / 3, 2e-7), loss=1 / 7, compile_seconds=0.0)
    records = [AWKWARD, exact]

    assert read_records(cells_csv(records), samples_csv(records)) == records


def test_samples_of_a_cell_that_has_no_row_are_left_out():
    measured, torn = record(repeat=0), record(repeat=1)

    assert read_records(cells_csv([measured]), samples_csv([measured, torn])) == [measured]


def test_throughput_is_all_tokens_over_all_time():
    uneven = record(batch_tokens=100, seconds=(1.0, 3.0))

    # The mean of 100 and 33.3 tokens/s would be 66.7.
    assert uneven.tokens_per_s == 50.0


def test_flops_are_counted_for_every_timed_step():
    assert record(flops=1000, seconds=(1.0, 3.0)).flop_per_s == 500.0
