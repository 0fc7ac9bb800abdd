"""The throughput table says of synthetic records what is true of them."""

from dataclasses import replace

import pytest

from psannlm.pages.throughput.tables import COLUMNS, best_rows, throughput_table
from tests.synthetic import throughput_config, throughput_records

CONFIG = throughput_config(base=("respsann", "sgrpsann", "waveresnet"), mode=("train_step",))
SPEEDS = {"respsann": 800.0, "sgrpsann": 1001.0, "waveresnet": 1200.0, "transformer": 1000.0}


def table_of(records, config=CONFIG):
    frame = throughput_table(records, config, timestamp="20260101_000000", device="a CPU")
    return frame.set_index("label", drop=False)


def test_the_columns_of_the_original_plan_come_first():
    table = table_of(throughput_records(CONFIG, SPEEDS))

    assert list(table.columns)[:4] == ["timestamp", "base", "batch_tokens", "tokens_per_s"]
    assert list(table.columns) == list(COLUMNS)


def test_verdicts_follow_the_true_speeds():
    verdicts = table_of(throughput_records(CONFIG, SPEEDS))["verdict"].to_dict()

    assert verdicts == {
        "respsann": "slower",
        "sgrpsann": "not separated",
        "waveresnet": "faster",
        "transformer": "baseline",
        "transformer (again)": "noise floor",
    }


def test_medians_and_ratios_are_near_the_truth():
    row = table_of(throughput_records(CONFIG, SPEEDS)).loc["waveresnet"]

    # Noise of 0.2% a process: medians of six lie within 1%.
    assert row["tokens_per_s"] == pytest.approx(1200, rel=0.01)
    assert row["ratio"] == pytest.approx(1.2, rel=0.01)
    assert row["tokens_per_s_low"] < row["tokens_per_s"] < row["tokens_per_s_high"]


def test_a_noisy_baseline_takes_the_verdict_away():
    speeds = SPEEDS | {"transformer (again)": 700.0}

    verdicts = table_of(throughput_records(CONFIG, speeds))["verdict"]

    assert verdicts["waveresnet"] == "not separated"


def test_mfu_is_the_share_of_the_ceiling_of_the_same_precision():
    config = throughput_config(precision=("fp32", "bf16"), n_repeats=1)
    records = throughput_records(config, SPEEDS)

    table = table_of(records, config)

    for _, row in table.iterrows():
        # The synthetic ceiling is 1e9 FLOPs in a millisecond.
        assert row["ceiling_flop_per_s"] == 1e12
        assert row["mfu"] == pytest.approx(row["flop_per_s"] / 1e12)


def test_without_a_ceiling_mfu_is_unknown():
    records = [r for r in throughput_records(CONFIG, SPEEDS) if r.mode != "matmul"]

    assert table_of(records)["mfu"].isna().all()


def test_a_row_faster_than_its_ceiling_is_refused():
    records = throughput_records(CONFIG, SPEEDS)
    impossible = [replace(r, flops=10**15) if r.label == "respsann" else r for r in records]

    row = table_of(impossible).loc["respsann"]

    assert (row["status"], row["reason"]) == ("refused", "faster than the measured matmul ceiling")


def test_a_base_that_failed_is_a_row_with_its_reasons():
    records = [
        replace(r, status="failed", reason="out of memory", seconds=())
        if r.label == "respsann"
        else r
        for r in throughput_records(CONFIG, SPEEDS)
    ]

    row = table_of(records).loc["respsann"]

    assert (row["status"], row["reason"], row["n_failed"]) == ("failed", "out of memory", 6)


def test_a_base_that_failed_sometimes_counts_its_failures():
    records = [
        replace(r, status="failed", reason="crash", seconds=())
        if r.label == "respsann" and r.repeat == 2
        else r
        for r in throughput_records(CONFIG, SPEEDS)
    ]

    row = table_of(records).loc["respsann"]

    assert (row["n_ok"], row["n_failed"], row["status"]) == (5, 1, "ok")
    assert row["verdict"] == "not separated"


def test_the_best_rows_are_the_fastest_batch_of_each_base():
    config = throughput_config(batch_tokens=(32, 64), n_repeats=1)
    records = [
        replace(r, seconds=(r.seconds[0] / 2,)) if r.batch_tokens == 64 else r
        for r in throughput_records(config, SPEEDS)
    ]

    best = best_rows(table_of(records, config).reset_index(drop=True))

    assert set(best["label"]) == {"respsann", "transformer"}
    assert set(best["batch_tokens"]) == {64}
