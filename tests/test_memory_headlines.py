"""Memory is told by both rows of a base, and by what lies between them."""

import json

import pytest

from tests.published import best, best_headlines


@pytest.fixture(scope="module")
def found():
    return {headline.name: headline for headline in best_headlines()}


def test_memory_has_both_rows_of_each_base_at_the_first_batch_and_what_is_saved(found):
    run = best()["memory"]
    table = json.loads(run.text("memory.json"))
    asked = run.manifest["parameters"]

    shown = {h.row.number for h in found.values() if h.row.file == "memory.json"}

    assert shown == {
        number
        for number, row in enumerate(table, 1)
        if row["variant"] == "default"
        and row["batch_tokens"] == asked["batch_tokens"][0]
        and row["context_length"] == asked["context_length"]
    }
    for base in asked["base"]:
        off, on = (
            found[f"memory.{base}.fp32.512.checkpointing_{side}.saved_mib"].value
            for side in ("off", "on")
        )
        share = found[f"memory.{base}.fp32.512.checkpointing.saved_less_share"]
        assert share.value == pytest.approx((off - on) / off)
        assert share.verdict == "less"
