"""The history shows every run, whatever became of it."""

from psannlm.report.history import runs_table, throughput_history
from psannlm.report.runs import all_runs
from tests.synthetic import throughput_run


def test_every_run_is_a_row_newest_first(tmp_path):
    done = throughput_run(tmp_path)
    failed = throughput_run(tmp_path, status="failed")
    altered = throughput_run(tmp_path)
    (altered / "samples.csv").write_text("")

    table = runs_table(list(all_runs(tmp_path)))

    assert list(table["run"]) == [altered.name, failed.name, done.name]
    assert list(table["status"].str.partition(":")[0]) == ["refused", "failed", "complete"]


def test_the_throughput_history_has_the_rows_of_complete_runs_with_their_device(tmp_path):
    first, second = throughput_run(tmp_path), throughput_run(tmp_path)
    throughput_run(tmp_path, status="failed")

    history = throughput_history(list(all_runs(tmp_path)))

    assert set(history["timestamp"]) == {first.name, second.name}
    assert history["device"].notna().all()


def test_no_run_makes_an_empty_table_not_a_crash():
    assert runs_table([]).empty
    assert throughput_history([]).empty
