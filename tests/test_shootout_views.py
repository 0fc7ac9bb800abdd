"""The tables of the shootout show every arm and every number, whatever became of its trainings."""

from dataclasses import replace

import pandas as pd
import pytest

from psannlm.evidence.text import UNKNOWN, sortable
from psannlm.pages.shootout import views as shootout_views
from psannlm.pages.shootout.proportions import smallest_effect
from tests.shown_shootouts import ASKED, all_failed, shown, with_summary

INTERVAL = "(95% interval)"


def leaderboard(shootout):
    return shootout_views.leaderboard(shootout, ASKED).set_index("arm")


def scored(chance, metric="acc"):
    rows = [
        ("gelu", seed, "quiz", metric, v, 0.02, 256, chance) for seed, v in ((0, 0.3), (1, 0.4))
    ]
    return replace(shown(), scores=pd.DataFrame(rows, columns=shown().scores.columns))


def test_the_leaderboard_shows_losses_and_differences_with_both_intervals():
    table, row = leaderboard(shown()), shown().summary.set_index("base").loc["respsann"]

    mine = table.loc["respsann"]
    assert mine[f"validation loss {INTERVAL}"] == (
        f"{row['val_loss']:.4f} ({row['val_loss_low']:.4f} – {row['val_loss_high']:.4f})"
    )
    assert mine["difference to gelu, over seeds"] == (
        f"{row['difference']:+.4f} ({row['difference_low']:+.4f} to {row['difference_high']:+.4f})"
    )
    assert mine["difference to gelu, over documents"] == (
        f"{row['difference']:+.4f} ({row['documents_low']:+.4f} to {row['documents_high']:+.4f})"
    )
    assert (mine["verdict"], mine["f"], mine["seeds"]) == ("better", "2.25", "3")
    assert table.loc["gelu"]["difference to gelu, over seeds"] == UNKNOWN
    assert (table.loc["gelu"]["verdict"], table.loc["gelu"]["f"]) == ("baseline", UNKNOWN)


def test_refused_arms_stand_last_with_the_reason():
    refused = with_summary("gelu_scaled", refused="it sees the future", place=None, verdict="")

    table = leaderboard(refused)

    assert table.index[-1] == "gelu_scaled"
    assert table.loc["gelu_scaled"]["verdict"] == "refused: it sees the future"
    assert table.loc["gelu_scaled"]["place"] == UNKNOWN
    assert len(table) == 3


def test_equal_networks_are_named_as_such():
    table = leaderboard(with_summary("respsann", same_as="gelu", verdict="A/A"))

    assert table.loc["respsann (same network as gelu)"]["verdict"] == "A/A"


def test_an_edge_of_the_grid_and_failures_are_marked():
    table = leaderboard(with_summary("respsann", grid_edge=True, n_failed=1, n_seeds=2))

    assert list(table.loc["respsann"][["edge of its grid", "seeds"]]) == ["yes", "2 (1 failed)"]
    assert list(table.loc["gelu"][["edge of its grid", "seeds"]]) == ["", "3"]


def test_peaks_are_shown_where_there_are_any():
    assert leaderboard(shown()).loc["gelu"]["peak memory, GB"] == UNKNOWN
    measured = with_summary("gelu", peak_cuda_mem_gb=1.2345)

    assert leaderboard(measured).loc["gelu"]["peak memory, GB"] == "1.234"


def test_one_chosen_setting_an_arm_is_marked_among_its_tunings():
    table = shootout_views.tuning(shown())

    assert list(table.groupby("arm").size()) == [2, 2, 2]
    assert table[table["chosen"] == "chosen"]["arm"].is_unique
    assert set(table[table["chosen"] == "chosen"]["arm"]) == {"respsann", "gelu", "gelu_scaled"}


def test_a_failed_tuning_has_its_reason():
    tuning = shown().tuning.assign(status="failed", reason="the loss is not finite", val_loss=None)
    edge = replace(shown(), tuning=tuning.assign(chosen=True, grid_edge=True))

    table = shootout_views.tuning(edge)

    assert set(table["result"]) == {"failed: the loss is not finite"}
    assert set(table["validation loss"]) == {UNKNOWN}
    assert set(table["chosen"]) == {"chosen, edge of its grid"}


def test_eight_subsets_are_told_by_what_is_learned():
    table = shootout_views.ablation(shown())

    ticks = table[["amplitude A", "frequency f", "decay d"]]
    assert len(ticks.drop_duplicates()) == len(table) == 8
    assert list(ticks.iloc[0]) == [shootout_views.FROZEN] * 3
    assert list(ticks.iloc[-1]) == [shootout_views.LEARNED] * 3
    assert table.iloc[-1]["difference to all learned"] == UNKNOWN
    first = shown().ablation.iloc[0]
    assert table.iloc[0]["difference to all learned"].startswith(f"{first['difference']:+.4f} (")


def test_scales_have_a_row_an_arm_and_scale():
    table = shootout_views.scales(shown())

    pairs = set(zip(table["arm"], table["initial scale"], strict=True))
    assert pairs == {(a, s) for a in ("respsann", "gelu", "gelu_scaled") for s in ("1", "2.25")}
    assert set(table["seeds"]) == {"2"}


def test_budgets_are_told_as_amounts():
    table = shootout_views.matched(shown(), ASKED)

    assert list(table["equal"].unique()) == ["tokens", "FLOPs", "seconds"]
    assert set(table[table["equal"] == "tokens"]["amount"]) == {"32,768 tokens"}


@pytest.mark.parametrize(
    ("budget", "size", "said"),
    [
        ("tokens", 3276800.0, "3,276,800 tokens"),
        ("flops", 1.234e15, "1.23 PFLOP"),
        ("seconds", 243.0, "4 min 3 s"),
    ],
)
def test_an_amount_has_its_unit(budget, size, said):
    assert shootout_views.amount(budget, size) == said


def test_learned_parameters_are_means_over_seeds():
    table = shootout_views.learned(shown()).set_index(["arm", "layer"])

    rows = shown().learned
    mine = rows[(rows["base"] == "respsann") & (rows["layer"] == "0 mlp")]
    after = mine[mine["part"] == "frequency"]["after"].mean()
    cell = table.loc[("respsann", "0 mlp")]["f (5% – 95% after)"]
    assert cell.startswith(f"2.250 → {after:.3f} (")
    assert table.loc[("gelu_scaled", "0 mlp")]["d (5% – 95% after)"] == UNKNOWN
    assert len(table) == 4
    assert set(table["seeds"]) == {"3"}


def test_scores_show_chance_and_what_the_items_can_show():
    (row,) = shootout_views.scores(scored(0.25)).to_dict("records")

    assert row["mean over seeds"] == "0.3500"
    assert row["least – most"] == "0.3000 – 0.4000"
    assert (row["chance"], row["items"], row["seeds"]) == ("0.2500", "256", "2")
    assert row["smallest effect they can show"] == f"{smallest_effect(256, 0.25):.4f}"


def test_without_chance_the_smallest_effect_is_above_the_score():
    (row,) = shootout_views.scores(scored(None)).to_dict("records")

    assert row["chance"] == UNKNOWN
    assert row["smallest effect they can show"] == f"{smallest_effect(256, 0.35):.4f}"


def test_what_is_no_share_has_no_smallest_effect():
    (row,) = shootout_views.scores(scored(None, "perplexity")).to_dict("records")

    assert row["smallest effect they can show"] == UNKNOWN


def test_tables_without_rows_say_so():
    none = replace(
        shown(),
        scores=shown().scores.iloc[:0],
        learned=shown().learned.iloc[:0],
        ablation=shown().ablation.iloc[:0],
        tuning=shown().tuning.iloc[:0],
    )

    for view in ("scores", "learned", "ablation", "tuning"):
        table = getattr(shootout_views, view)(none)
        assert "nothing was measured" in sortable(table, view), view


def test_a_shootout_all_of_whose_trainings_failed_has_all_its_tables():
    none = all_failed()

    assert set(leaderboard(none)["place"]) == {UNKNOWN}
    assert len(shootout_views.failures(none, ASKED)) == len(none.records)
    assert set(shootout_views.tuning(none)["chosen"]) == {""}
    for view in ("ablation", "scales", "learned", "scores", "runs"):
        assert getattr(shootout_views, view)(none).empty, view
    assert shootout_views.matched(none, ASKED).empty


def test_failures_are_told_with_what_was_tried_and_why():
    final = next(r for r in shown().records if r.final)
    tuned = next(r for r in shown().records if r.seed == ASKED["tuning_seed"])
    side = next(r for r in shown().records if r.setting.learnable == ())
    failed = [replace(r, status="failed", reason="out of time") for r in (final, tuned, side)]
    ok = [r for r in shown().records if r.key not in {f.key for f in failed}]

    table = shootout_views.failures(replace(shown(), records=[*failed, *ok]), ASKED)

    assert list(table["part"]) == ["compared", "tuning", "control"]
    assert set(table["reason"]) == {"out of time"}
    assert list(table["learned"])[-1] == "none"
    assert shootout_views.failures(shown(), ASKED).empty


def test_every_compared_training_has_a_row():
    table = shootout_views.runs(shown())

    assert len(table) == 9
    assert set(table["result"]) == {"ok"}
    first = shown().runs.iloc[0]
    assert table.iloc[0]["validation loss"] == f"{first['val_loss']:.4f}"
    assert table.iloc[0]["tokens"] == f"{first['train_tokens']:,.0f}"
