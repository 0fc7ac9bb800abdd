"""A claim's rows are those of the newest complete run of its page, preset and device."""

import dataclasses

import pytest

from psannlm.publish.claim_rows import LatestRuns, Source, joined
from tests.published import best, committed, made_up_row, made_up_run

SOURCE = Source(page="throughput", preset="cpu", device="a device")


def begun(at, **parameters):
    run = made_up_run("throughput", **parameters)
    return dataclasses.replace(run, manifest=run.manifest | {"started_at": at})


def test_the_newest_run_of_the_kind_is_taken_and_one_that_left_checks_out_is_not():
    old, new, partial = begun("2026-01-01"), begun("2026-02-01"), begun("2026-03-01", only=["x"])

    assert LatestRuns([new, old, partial]).run(SOURCE) is new


@pytest.mark.parametrize("change", [{"device": "another"}, {"preset": "gpu"}, {"page": "memory"}])
def test_a_run_of_another_kind_is_no_source(change):
    with pytest.raises(ValueError, match="no complete run of"):
        LatestRuns([begun("2026-01-01")]).run(Source(**SOURCE.model_dump() | change))


def test_rows_of_another_file_than_the_published_one_keep_its_name():
    device = best()["memory"].manifest["environment"]["device"]
    source = Source(
        page="memory", preset="cpu", device=device, file="savings.csv", where="saver == 'fast_sine'"
    )

    rows = LatestRuns(committed()).rows(source)

    assert {row.file for row in rows} == {"savings.csv"}
    assert {row.values["saver"] for row in rows} == {"fast_sine"}
    assert all("-savings-" in row.label and "papermill" in row.command for row in rows)


def test_the_row_beside_stands_in_every_row_under_names_of_its_own():
    rows = [made_up_row("throughput", {"base": "a", "n": n}, n) for n in (3, 7)]

    table = joined(rows, made_up_row("throughput", {"base": "b", "n": 1}))

    assert list(table.index) == [3, 7]
    assert list(table["other_base"]) == ["b", "b"]
    assert list(table["n"]) == [3, 7]
