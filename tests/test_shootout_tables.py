"""The tables of a shootout: their columns, and numbers that stay what they are."""

import pandas as pd
import pytest

from psannlm.pages.shootout import tables as shootout_tables
from psannlm.pages.shootout.tables import frame, shootout_of
from tests.synthetic_shootout import gates, records, shootout_config

CONFIG = shootout_config(base=("respsann",), scale_arms=("respsann", "gelu"), with_lm_eval=True)
RECORDS = records(CONFIG)
FOUND = shootout_of(RECORDS, gates(CONFIG), CONFIG)
TABLES = {
    "runs": 2 * 3, "summary": 2, "tuning": 2 * 2, "ablation": 8, "scales": 3 * 2,
    "curves": 2 * 3 * 2, "matched": 2 * 3, "learned": 3 * 2 * 3, "scores": 2 * 3 * 2,
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_its_columns_and_a_row_for_each_of_its_subjects(name):
    table = getattr(FOUND, name)

    assert tuple(table.columns) == getattr(shootout_tables, name.upper())
    assert len(table) == TABLES[name]


def test_a_shootout_keeps_its_trainings_and_gates():
    assert FOUND.records == RECORDS
    assert [gate.arm for gate in FOUND.gates] == ["respsann", "gelu"]


def test_nothing_is_known_of_a_shootout_that_has_only_begun():
    found = shootout_of(RECORDS[:1], (), CONFIG)

    assert list(found.summary["place"]) == [None, None]
    assert found.summary["val_loss"].isna().all()
    assert found.runs.empty
    assert found.matched.empty
    assert len(found.tuning) == 1


def test_places_are_given_once_all_is_there():
    early = shootout_of(RECORDS[:-1], gates(CONFIG), CONFIG)

    assert set(FOUND.summary["place"]) <= {1, 2}
    assert FOUND.summary["place"].notna().all()
    assert early.summary["place"].isna().any() == RECORDS[-1].final


def test_whole_numbers_stay_whole_beside_what_is_unknown():
    table = frame([{"place": 1, "loss": 0.5}, {"place": None}], ("place", "loss", "else"))

    assert list(table["place"]) == [1, None]
    assert pd.isna(table["loss"][1])
    assert list(table["else"]) == [None, None]
