"""Every run is a row, whatever became of it, with what it found in words."""

import pytest

from psannlm.evidence.rows import TABLES
from psannlm.evidence.runs import Refused, all_runs
from psannlm.evidence.text import UNKNOWN
from psannlm.publish.run_table import FOUND, bases_of, found, runs_table
from tests.histories import history_run
from tests.trainings import training_run


def test_every_run_is_a_row_newest_first(tmp_path):
    runs = [
        history_run(tmp_path, "throughput", 1),
        history_run(tmp_path, "memory", 2, status="failed"),
        history_run(tmp_path, "memory", 3, status="running"),
        Refused(tmp_path / "benchmarks" / "4", "benchmarks/4: samples.csv was altered"),
    ]

    table = runs_table(runs)

    assert list(table["run"]) == ["4", *(run.folder.name for run in reversed(runs[:3]))]
    assert list(table["status"]) == [
        "refused: benchmarks/4: samples.csv was altered",
        "interrupted (or still running)",
        "failed",
        "complete",
    ]
    assert runs_table([]).empty


def test_nothing_but_the_reason_is_told_of_a_refused_run_and_nothing_found_of_a_failed(tmp_path):
    failed = history_run(tmp_path, "memory", 1, status="failed")
    failed.manifest["reason"] = "ValueError: no"

    refused, row = runs_table([failed, Refused(tmp_path, "broken")]).to_dict("records")

    known = {name for name, value in refused.items() if value != UNKNOWN}
    assert known == {"run", "status"}
    assert (row["status"], row["found"]) == ("failed: ValueError: no", UNKNOWN)
    assert row["bases"] == ("respsann", "transformer"), "those that were asked for"


def test_an_altered_run_is_refused_in_the_table(tmp_path):
    folder = training_run(tmp_path)
    (folder / "metrics.json").write_text("{}")

    [row] = runs_table(list(all_runs(tmp_path))).to_dict("records")

    assert row["run"] == folder.name
    assert row["status"].startswith("refused: ")
    assert "metrics.json was altered" in row["status"]


def test_bases_of_a_complete_run_are_those_in_its_table(tmp_path):
    run = history_run(tmp_path, "shootout", 1, {"base": "gelu"}, {"base": "swiglu"}, base=[])

    assert bases_of(run) == ("gelu", "swiglu")


@pytest.mark.parametrize(
    ("page", "rows", "said"),
    [
        (
            "validation",
            ({}, {"status": "failed"}, {"status": "skipped"}),
            "1 of 3 passed, 1 failed, 1 skipped",
        ),
        ("validation", ({}, {}), "2 of 2 passed"),
        (
            "throughput",
            ({}, {"mode": "forward", "tokens_per_s": 9000.0}, {"tokens_per_s": 1234.5}),
            "training step: up to 1,234 tokens/s (respsann)",
        ),
        (
            "throughput",
            ({}, {"base": "transformer", "label": "again", "tokens_per_s": 5000.0}),
            "training step: up to 1,000 tokens/s (respsann)",
        ),
        ("throughput", ({"status": "failed"},), "nothing was measured"),
        (
            "memory",
            ({}, {"grad_checkpoint": True, "saved_mib": 40.0}),
            "respsann keeps 100.0 MiB not checkpointed and 40.0 MiB checkpointed",
        ),
        ("memory", ({"status": "failed"},), "nothing was measured"),
        ("tiny_corpus", ({},), "2.000 bits per byte"),
        ("shootout", ({}, {"base": "gelu", "place": 2}), "respsann (first): 3.0000 nats a token"),
        (
            "shootout",
            ({}, {"base": "gelu", "val_loss": 2.5}),
            "gelu (one of 2 first): 2.5000 nats a token",
        ),
        ("shootout", ({"place": None},), "no arm has a place"),
        (
            "peer",
            ({"work": "forward", "ratio": 3.0}, {}, {"setting": "defaults", "ratio": 0.5}),
            "respsann, training step: 1.50 (best) and 0.50 (defaults) × the published package",
        ),
        ("peer", ({"status": "failed"},), "nothing was measured"),
    ],
)
def test_what_a_run_found_is_said_in_a_few_words(tmp_path, page, rows, said):
    assert found(history_run(tmp_path, page, 1, *rows)) == said


def test_every_page_with_rows_says_what_it_found():
    assert set(FOUND) == set(TABLES)
