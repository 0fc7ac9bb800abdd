"""What people read of throughput is what the table holds."""

import pandas as pd
import pytest

from psannlm.pages.throughput import prose as throughput_views
from psannlm.pages.throughput.tables import throughput_table
from tests.synthetic import throughput_config, throughput_records

CONFIG = throughput_config()
SPEEDS = {"respsann": 800.0, "transformer": 1000.0}
TABLE = throughput_table(
    throughput_records(CONFIG, SPEEDS, noise=0.0), CONFIG, timestamp="t", device="a CPU"
)


def test_the_answer_states_speed_ratio_and_verdict():
    said = throughput_views.answer(TABLE, "transformer", 6)

    assert "**transformer** runs at 1,000 tokens/s" in said
    assert "**respsann** at 0.80 (0.80 – 0.80) × that speed (slower)" in said


def test_bases_are_compared_at_the_largest_batch_that_the_baseline_could_run():
    larger = TABLE.assign(batch_tokens=64)
    larger.loc[larger["base"] == "transformer", "status"] = "failed"

    said = throughput_views.answer(pd.concat([TABLE, larger], ignore_index=True), "transformer", 6)

    assert "32 tokens a step" in said
    assert "64 tokens" not in said


def test_too_few_repeats_are_said():
    assert "a verdict needs 6" in throughput_views.answer(TABLE, "transformer", 2)
    assert "a verdict needs 6" not in throughput_views.answer(TABLE, "transformer", 6)


def test_failed_rows_are_counted():
    said = throughput_views.answer(TABLE.assign(status=["failed", "ok", "ok"]), "transformer", 6)

    assert "1 of 3 rows failed" in said


def test_what_is_unknown_is_a_dash():
    rows = throughput_views.rows(TABLE)

    assert set(rows["of stated peak"]) == {"—"}
    assert set(rows["peak allocated, MiB"]) == {"—"}


def test_a_failed_row_shows_its_reason_where_the_verdict_would_be():
    failed = TABLE.assign(status="failed", reason="out of memory")

    assert set(throughput_views.rows(failed)["verdict"]) == {"failed: out of memory"}


def test_compilation_that_did_not_happen_is_said():
    compiling = throughput_config(compile=True)

    assert "rows are eager" in throughput_views.reading(TABLE, compiling)
    assert "rows are eager" not in throughput_views.reading(TABLE, CONFIG)


@pytest.mark.parametrize("status", ["ok", "failed"])
def test_the_readme_of_a_run_has_its_best_numbers_or_says_there_are_none(status):
    manifest = {
        "notebook": "throughput",
        "run": "20260101_000000",
        "preset": "cpu",
        "environment": {"device": "a CPU"},
        "command": "papermill x y",
    }

    text = throughput_views.readme(TABLE.assign(status=status), manifest)

    assert ("| respsann | forward | fp32 | 32 | 800" in text) == (status == "ok")
    assert ("no row was measured" in text) == (status == "failed")
