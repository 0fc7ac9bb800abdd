"""The rows of the leaderboard, against plain computations from the same trainings."""

import math
from dataclasses import replace
from statistics import fmean, stdev

import pytest
from psannlm.pages.shootout.summary import mean_of, run_row, summary_rows
from scipy.stats import t

from psannlm.pages.shootout import summary as shootout_summary
from psannlm.pages.shootout.results import Trainings
from tests.synthetic_shootout import gates, records, shootout_config

CONFIG = shootout_config(base=("respsann", "gelu_scaled"), ablation=(), scale_arms=())
RECORDS = records(CONFIG)
GATES = gates(CONFIG)


def rows(made=RECORDS, found=GATES, config=CONFIG):
    """By arm."""
    return {row["base"]: row for row in summary_rows(Trainings.of(made, found, config), found)}


def finals(arm, made=RECORDS):
    return [r for r in made if r.arm == arm and r.final]


def test_a_row_of_a_training_has_the_units_of_its_files():
    record = replace(RECORDS[-1], peak_allocated_bytes=3 * 10**9, peak_rss_bytes=2**21)

    row = run_row(record, CONFIG)

    assert row["val_ppl"] == pytest.approx(math.exp(record.val_loss))
    bits = record.val_loss / math.log(2) * record.val_tokens / record.val_bytes
    assert row["val_bits_per_byte"] == pytest.approx(bits)
    assert row["train_flops"] == record.flops_per_token * record.train_tokens
    assert (row["peak_cuda_mem_gb"], row["peak_rss_mib"]) == (3.0, 2.0)


def test_a_row_of_a_failed_training_has_its_reason_and_no_loss():
    [record, *_] = records(CONFIG, fails=lambda cell: True)

    row = run_row(record, CONFIG)

    assert (row["status"], row["reason"]) == ("failed", record.reason)
    assert row["val_loss"] is None
    assert row["val_ppl"] is None
    assert row["train_flops"] is None


def test_an_arm_without_an_initial_frequency_states_none():
    found = rows()

    assert found["gelu"]["sine_frequency"] is None
    assert found["respsann"]["sine_frequency"] == 2.25


def test_losses_are_means_over_seeds_with_students_interval():
    losses = [r.val_loss for r in finals("respsann")]

    row = rows()["respsann"]

    reach = t.ppf(0.975, 2) * stdev(losses) / math.sqrt(3)
    assert row["val_loss"] == pytest.approx(fmean(losses))
    assert row["val_loss_low"] == pytest.approx(fmean(losses) - reach)
    assert row["val_loss_high"] == pytest.approx(fmean(losses) + reach)
    assert row["val_ppl"] == pytest.approx(math.exp(fmean(losses)))
    assert row["n_seeds"] == 3


@pytest.mark.parametrize("split", ["val", "test"])
def test_differences_are_to_the_baseline_seed_by_seed(split):
    pairs = zip(finals("respsann"), finals("gelu"), strict=True)
    gaps = [getattr(a, f"{split}_loss") - getattr(b, f"{split}_loss") for a, b in pairs]
    name = "difference" if split == "val" else "test_difference"

    row = rows()["respsann"]

    reach = t.ppf(0.975, 2) * stdev(gaps) / math.sqrt(3)
    assert row[name] == pytest.approx(fmean(gaps))
    assert row[f"{name}_low"] == pytest.approx(fmean(gaps) - reach)
    assert row[f"{name}_high"] == pytest.approx(fmean(gaps) + reach)


def test_arms_come_by_place_and_then_by_loss():
    found = list(rows().values())

    assert [row["place"] for row in found] == sorted(row["place"] for row in found)
    assert found[-1]["base"] == "gelu"
    assert found[-1]["verdict"] == "baseline"
    assert found[0]["verdict"] == "better"


def test_a_place_comes_before_a_loss(monkeypatch):
    made_up = {"respsann": 2, "gelu": 1, "gelu_scaled": 2}
    monkeypatch.setattr(shootout_summary, "places", lambda finals, same, refused: made_up)

    found = rows()

    assert next(iter(found)) == "gelu"
    assert found["gelu"]["val_loss"] > found["respsann"]["val_loss"]


def test_equal_networks_share_a_place_and_say_so():
    same = {"gelu_scaled": "respsann"}
    made = records(CONFIG, alike=same)

    found = rows(made, gates(CONFIG, same=same))

    assert found["gelu_scaled"]["place"] == found["respsann"]["place"] == 1
    assert found["gelu_scaled"]["same_as"] == "respsann"


def test_a_refused_arm_has_a_loss_but_no_place_no_verdict_and_no_difference():
    found = rows(found=gates(CONFIG, refused={"respsann": "it sees the future"}))

    row = found["respsann"]
    assert list(found)[-1] == "respsann"
    assert row["place"] is None
    assert row["verdict"] == ""
    assert "difference" not in row
    assert row["refused"] == "it sees the future"
    assert row["val_loss"] is not None


def test_without_its_baseline_nothing_is_compared_but_places_remain():
    found = rows(found=gates(CONFIG, refused={"gelu": "it sees the future"}))

    assert found["respsann"]["verdict"] == ""
    assert "difference" not in found["respsann"]
    assert found["respsann"]["place"] == 1


def test_failed_seeds_are_counted():
    made = records(CONFIG, fails=lambda cell: cell.arm.name == "respsann" and cell.seed == 0)

    row = rows(made)["respsann"]

    assert (row["n_seeds"], row["n_failed"], row["place"]) == (2, 1, None)
    assert row["val_loss"] == pytest.approx(
        fmean(r.val_loss for r in finals("respsann", made) if r.status == "ok")
    )


def test_a_mean_of_equal_values_is_that_value():
    assert mean_of([3, 3, None]) == 3
    assert isinstance(mean_of([3, 3]), int)
    assert mean_of([1, 2]) == 1.5
    assert mean_of([None]) is None
