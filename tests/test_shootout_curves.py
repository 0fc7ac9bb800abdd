"""What compared trainings left beside their losses; losses at one budget for all arms."""

import itertools
import math
from dataclasses import replace

import pytest
from psannlm.pages.shootout.curves import (
    curve_rows,
    document_rows,
    finished,
    learned_rows,
    matched_rows,
    score_rows,
)

from psannlm.pages.shootout.results import Trainings
from tests.synthetic_shootout import gates, records, shootout_config

CONFIG = shootout_config(
    base=("respsann", "swiglu"), ablation=(), scale_arms=(), with_lm_eval=True, evaluations=4
)
RECORDS = records(CONFIG)


def sorted_(made=RECORDS, **refused):
    return Trainings.of(made, gates(CONFIG, refused=refused), CONFIG)


def test_only_compared_trainings_that_ended_are_finished():
    made = records(CONFIG, fails=lambda cell: cell.seed == 1)

    found = finished(sorted_(made))

    assert [(r.arm, r.seed) for r in found] == [
        (arm, seed) for arm in ("respsann", "gelu", "swiglu") for seed in (0, 2)
    ]


def test_curves_have_a_row_an_evaluation_with_its_flops():
    rows = list(curve_rows(sorted_()))

    [record, *_] = finished(sorted_())
    assert len(rows) == 3 * 3 * 4
    assert rows[3]["val_loss"] == record.val_loss
    assert rows[3]["flops"] == record.train_tokens * record.flops_per_token


@pytest.mark.parametrize("budget", ["tokens", "flops", "seconds"])
def test_a_budget_is_the_largest_that_all_reach(budget):
    rows = [row for row in matched_rows(sorted_()) if row["budget"] == budget]

    reached = [
        {
            "tokens": r.train_tokens,
            "flops": r.train_tokens * r.flops_per_token,
            "seconds": r.train_seconds,
        }[budget]
        for r in finished(sorted_())
    ]
    assert [row["base"] for row in rows] == ["respsann", "gelu", "swiglu"]
    assert {row["amount"] for row in rows} == {min(reached)}


def test_losses_at_a_budget_lie_on_the_curves_and_differences_are_paired():
    rows = {row["base"]: row for row in matched_rows(sorted_()) if row["budget"] == "flops"}

    def at(record):
        """The straight line over the logarithm of FLOPs, between two evaluations."""
        points = [(p.tokens * record.flops_per_token, p.val_loss) for p in record.curve]
        amount = rows["gelu"]["amount"]
        [(low, above), (high, below)] = next(
            pair for pair in itertools.pairwise(points) if pair[1][0] >= amount
        )
        share = math.log(amount / low) / math.log(high / low)
        return above + share * (below - above)

    losses = {arm: [at(r) for r in finished(sorted_()) if r.arm == arm] for arm in rows}
    gaps = [a - b for a, b in zip(losses["swiglu"], losses["gelu"], strict=True)]
    assert rows["swiglu"]["val_loss"] == pytest.approx(sum(losses["swiglu"]) / 3)
    assert rows["swiglu"]["difference"] == pytest.approx(sum(gaps) / 3)
    assert rows["swiglu"]["difference_low"] < rows["swiglu"]["difference"]
    assert "difference" not in rows["gelu"]


def test_an_arm_that_is_not_compared_is_not_matched_and_cuts_no_budget():
    rows = list(matched_rows(sorted_(respsann="it sees the future")))

    assert {row["base"] for row in rows} == {"gelu", "swiglu"}


def test_without_the_baseline_losses_are_matched_and_not_compared():
    rows = list(matched_rows(sorted_(gelu="it sees the future")))

    assert {row["base"] for row in rows} == {"respsann", "swiglu"}
    assert not any("difference" in row for row in rows)


def test_a_budget_that_not_all_reach_has_no_rows():
    short = [replace(r, curve=r.curve[:0]) if r.seed == 0 else r for r in RECORDS]

    assert list(matched_rows(sorted_(short))) == []


def test_learned_parameters_scores_and_documents_are_those_of_the_records():
    found = sorted_()
    learned, scores, documents = (
        list(rows(found)) for rows in (learned_rows, score_rows, document_rows)
    )

    [record, *_] = finished(found)
    assert len(learned) == 3 * len(record.learned)  # of one arm alone
    assert learned[0]["after"] == record.learned[0].after
    assert len(scores) == 9 * 2
    assert "items" not in scores[0]
    assert scores[1]["value"] == record.scores[1].value
    assert [row["document"] for row in documents[:12]] == list(range(12))
    assert sum(row["nats"] for row in documents[:12]) == pytest.approx(
        record.val_loss * record.val_tokens
    )
