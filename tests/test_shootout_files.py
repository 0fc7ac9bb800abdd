"""The files of a shootout agree with one another, number by number."""

import csv
import io
import json

import pytest
from psannlm.pages.shootout.files import FIRST, config_of, csv_of, files, read, rows_of

from psannlm.evidence.runs import load
from psannlm.pages.shootout.tables import frame, shootout_of
from tests.synthetic import start_manifest
from tests.synthetic_shootout import gates, records, shootout_config, shootout_run

CONFIG = shootout_config(base=("respsann",), ablation=(), scale_arms=("gelu",))
FAILED = records(CONFIG, fails=lambda cell: (cell.arm.name, cell.seed) == ("gelu", 1))
MANIFEST = start_manifest("shootout", CONFIG) | {"run": "20260101_000000_base_shootout"}
SHOOTOUT = shootout_of(FAILED, gates(CONFIG), CONFIG)
FILES = files(SHOOTOUT, MANIFEST)
SUMMARY = json.loads(FILES["summary.json"])


def in_csv(value):
    """A value of JSON as a CSV file has it."""
    return "" if value is None else str(value)


@pytest.mark.parametrize(("name", "key"), [("summary.csv", "arms"), ("runs.csv", "runs")])
def test_summary_json_and_csv_agree_to_the_last_digit(name, key):
    rows = list(csv.DictReader(io.StringIO(FILES[name])))

    expected = [{k: in_csv(v) for k, v in row.items()} for row in SUMMARY[key]]
    assert rows == expected
    assert [float(row["val_loss"] or 0) for row in rows] == [
        row["val_loss"] or 0 for row in SUMMARY[key]
    ]


def test_every_compared_training_has_its_metrics_with_the_usual_names_first():
    for row in SUMMARY["runs"]:
        metrics = json.loads(FILES[f"runs/{row['base']}_seed{row['seed']}/metrics.json"])

        assert metrics == row
        assert tuple(metrics)[: len(FIRST)] == FIRST
    assert sum(name.startswith("runs/") for name in FILES) == len(SUMMARY["runs"]) == 6


def test_a_failed_training_has_nulls_and_a_reason():
    metrics = json.loads(FILES["runs/gelu_seed1/metrics.json"])

    assert metrics["status"] == "failed"
    assert metrics["reason"]
    assert metrics["val_loss"] is None


def test_settings_tell_grids_of_one_size_seeds_and_what_was_chosen():
    settings = SUMMARY["settings"]

    assert {len(grid) for grid in settings["grids"].values()} == {2}
    assert settings["chosen"]["respsann"] == {"learning_rate": 0.003, "sine_frequency": 2.25}
    assert settings["chosen"]["gelu"] == {"learning_rate": 0.003, "sine_frequency": None}
    assert settings["seeds"] == [0, 1, 2]
    assert settings["tuning_seed"] == 100


def test_documents_have_a_row_each_training_and_document():
    rows = list(csv.DictReader(io.StringIO(FILES["documents.csv"])))

    [record, *_] = [r for r in FAILED if r.arm == "respsann" and r.final]
    assert len(rows) == 5 * 12
    assert [float(row["nats"]) for row in rows[:12]] == [d.nats for d in record.documents]


def test_what_is_unknown_is_empty_in_csv_and_none_in_rows():
    table = frame([{"a": 1.5, "b": 2}, {"a": float("nan")}], ("a", "b"))

    assert csv_of(table) == "a,b\n1.5,2\n,\n"
    assert rows_of(table)[1] == {"a": None, "b": None}


def test_a_run_read_back_is_the_shootout_that_was_written(tmp_path):
    folder = shootout_run(tmp_path, made=FAILED, base=("respsann",), ablation=(),
                          scale_arms=("gelu",))  # fmt: skip

    run = load(folder)
    found = read(run)

    assert config_of(run.manifest) == CONFIG
    assert sorted(found.records, key=lambda r: r.key) == sorted(FAILED, key=lambda r: r.key)
    assert found.gates == SHOOTOUT.gates
    assert found.summary.equals(SHOOTOUT.summary)
