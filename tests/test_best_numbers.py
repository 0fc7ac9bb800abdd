"""The best number is chosen among numbers of one kind, and says which run it came from."""

import pytest

from psannlm.evidence.runs import Refused
from psannlm.publish.best_numbers import best_numbers
from tests.histories import history_run


@pytest.mark.parametrize(
    ("page", "values", "best"),
    [
        ("throughput", [{"tokens_per_s": v} for v in (900.0, 1100.0, 1000.0)], 1),
        ("memory", [{"saved_mib": v} for v in (90.0, 110.0, 80.0)], 2),
        ("tiny_corpus", [{"bits_per_byte": v} for v in (1.9, 1.8, 2.0)], 1),
        ("shootout", [{"val_loss": v} for v in (2.9, 3.0, 3.1)], 0),
        ("peer", [{"ratio": v} for v in (0.9, 1.0, 1.2)], 2),
        ("peer", [{"ratio": v, "work": "saved"} for v in (0.9, 0.8, 1.2)], 1),
        ("validation", [{"status": s} for s in ("failed", "passed", "passed")], 1),
    ],
)
def test_better_is_higher_or_lower_as_the_number_says(tmp_path, page, values, best):
    runs = [history_run(tmp_path, page, 1 + i, value) for i, value in enumerate(values)]

    [row] = best_numbers(runs).to_dict("records")

    assert row["run"] == runs[best].folder.name
    assert row["runs"] == 3
    assert row["row"] == ("all" if page == "validation" else 1)


@pytest.mark.parametrize(
    "facts", [{"machine": "another"}, {"preset": "gpu"}, {"d_model": 8}, {"n_layers": 9}]
)
def test_machines_presets_and_shapes_have_a_best_of_their_own(tmp_path, facts):
    slow = history_run(tmp_path, "throughput", 1)
    fast = history_run(tmp_path, "throughput", 2, {"tokens_per_s": 5000.0}, **facts)

    assert list(best_numbers([slow, fast])["run"]) == [slow.folder.name, fast.folder.name]


def test_settings_of_one_run_are_told_apart_and_failures_left_out(tmp_path):
    rows = {}, {"batch_tokens": 512}, {"mode": "forward"}, {"precision": "bf16", "status": "failed"}

    table = best_numbers([history_run(tmp_path, "throughput", 1, *rows)])

    assert len(set(table["setting"])) == len(table) == 3


def test_a_run_that_is_refused_or_did_not_end_is_never_the_best(tmp_path):
    failed = history_run(tmp_path, "throughput", 1, status="failed")

    assert best_numbers([failed, Refused(tmp_path, "altered")]).empty
