"""The tables of a shootout, by hand and against plain computations from the same trainings."""

import csv
import io
import json
import math
from dataclasses import replace
from statistics import fmean, stdev

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, norm, t

from psannlm.evidence.page import RunInfo
from psannlm.evidence.table import plain_rows
from psannlm.evidence.text import UNKNOWN
from psannlm.pages.shootout import comparison
from psannlm.pages.shootout.arms import all_arms
from psannlm.pages.shootout.comparison import paired, smallest_effect
from psannlm.pages.shootout.page import PAGE
from psannlm.pages.shootout.plan import Cell, choose, grid, key_of
from psannlm.pages.shootout.records import Point
from psannlm.pages.shootout.results import (
    Trainings,
    at_budget,
    common_budget,
    on_edge,
    run_row,
    task_rows,
)
from psannlm.pages.shootout.tables import BUDGETS, FAILURES, FIRST, SUMMARY, TASKS, TUNING, tabulate
from tests.synthetic import start_manifest
from tests.synthetic_shootout import (
    all_failed,
    gates,
    records,
    shootout_config,
    shown,
    with_summary,
)

CONFIG = shootout_config(
    base=("respsann", "gelu_scaled"), side_seeds=3, with_lm_eval=True, evaluations=4
)
RECORDS = records(CONFIG)
GATES = gates(CONFIG)
TABLES = {
    "summary.csv": 3, "runs.csv": 9, "tuning.csv": 6, "ablation.csv": 8, "scales.csv": 9,
    "curves.csv": 9 * 4, "matched.csv": 3 * 3, "learned.csv": 3 * 2 * 3 + 3 * 2 * 2,
    "scores.csv": 9 * 2, "documents.csv": 9 * 12,
}  # fmt: skip


def rows(name, made=RECORDS, found=GATES, config=CONFIG):
    return plain_rows(tabulate([*made, *found], config)[name])


def summary(made=RECORDS, found=GATES, config=CONFIG):
    """By arm."""
    return {row["base"]: row for row in rows("summary.csv", made, found, config)}


def finals(arm, made=RECORDS):
    return [r for r in made if r.arm == arm and r.final]


def loss_of(setting, seed, arm="respsann"):
    key = key_of(Cell(all_arms()[arm], setting, seed), CONFIG)
    [record] = [r for r in RECORDS if r.key == key]
    return record.val_loss


def test_three_seeds_by_hand():
    """Losses 3.0, 3.2 and 3.4 against a baseline at 3.5, 3.6 and 4.0."""
    config = shootout_config(base=("swiglu",), ablation=(), scale_arms=(), evaluations=1)
    losses = {"swiglu": (3.0, 3.2, 3.4), "gelu": (3.5, 3.6, 4.0)}
    made = [
        replace(
            record,
            val_loss=losses[record.arm][record.seed],
            train_tokens=1000,
            flops_per_token=7,
            curve=(Point(1, 1000, 2.0, losses[record.arm][record.seed]),),
        )
        if record.final
        else record
        for record in records(config)
    ]

    found = tabulate([*made, *gates(config)], config)

    [mine, baseline] = plain_rows(found["summary.csv"])
    assert (mine["base"], baseline["base"]) == ("swiglu", "gelu")
    assert mine["val_loss"] == pytest.approx(3.2)
    assert mine["val_loss_low"] == pytest.approx(3.2 - 4.30265 * 0.2 / math.sqrt(3), abs=1e-5)
    assert mine["difference"] == pytest.approx(-0.5)  # of -0.5, -0.4 and -0.6
    assert mine["difference_high"] == pytest.approx(-0.5 + 4.30265 * 0.1 / math.sqrt(3), abs=1e-5)
    assert mine["val_ppl"] == pytest.approx(24.53253)
    assert (mine["train_tokens"], mine["train_flops"]) == (1000, 7000)
    budgets = {row["budget"]: row for row in plain_rows(found["matched.csv"])}
    assert budgets["seconds"]["amount"] == 2.0
    assert budgets["flops"]["amount"] == 7000.0


def test_a_table_has_a_row_for_each_of_its_subjects():
    assert {name: len(rows(name)) for name in TABLES} == TABLES


def test_nothing_is_known_of_a_shootout_that_has_only_begun():
    found = tabulate(RECORDS[:1], CONFIG)

    assert list(found["summary.csv"]["place"]) == [None] * 3
    assert found["summary.csv"]["val_loss"].isna().all()
    assert found["runs.csv"].empty
    assert found["matched.csv"].empty
    assert len(found["tuning.csv"]) == 1


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"arm": "gelu", "seed": 2}, "1 of its 3 seeds are not there"),
        ({"arm": "gelu", "final": True}, "no setting to compare it at"),
        ({"arm": "gelu", "seed": 100}, "2 of its tunings are not there yet"),
    ],
)
def test_an_arm_of_which_a_training_is_still_to_come_is_not_compared(values, reason):
    made = [r for r in RECORDS if any(getattr(r, k) != v for k, v in values.items())]

    found = Trainings.of([*made, *GATES], CONFIG)

    assert reason in found.unfit["gelu"]
    assert "gelu" not in found.fit
    assert "respsann" in found.fit


def test_an_arm_that_no_gate_examined_or_one_refused_or_that_failed_is_not_compared():
    refused = gates(CONFIG, refused={"gelu_scaled": "it sees the future"})
    failed = records(CONFIG, fails=lambda cell: cell.arm.name == "gelu" and cell.final)

    assert Trainings.of([*failed, *refused[1:]], CONFIG).unfit == {
        "respsann": "it was not examined by the gates",
        "gelu_scaled": "it sees the future",
        "gelu": "every compared training failed",
    }


def test_failed_seeds_are_counted_and_take_the_place_not_the_comparison():
    made = records(CONFIG, fails=lambda cell: cell.arm.name == "respsann" and cell.seed == 0)

    row = summary(made)["respsann"]

    assert (row["n_seeds"], row["n_failed"], row["place"]) == (2, 1, None)
    assert "2 of 3 seeds came to their end, a place needs 3" in row["refused"]
    assert row["val_loss"] == pytest.approx(
        fmean(r.val_loss for r in finals("respsann", made) if r.status == "ok")
    )
    assert row["difference"] is not None
    few = CONFIG.model_copy(update={"seeds": (0,), "side_seeds": 1})
    assert not Trainings.of([*RECORDS, *GATES], few).unplaced


def test_a_row_of_a_training_has_the_units_of_its_files():
    [record, *_] = finals("gelu")
    record = replace(record, peak_allocated_bytes=3 * 10**9, peak_rss_bytes=2**21)

    row = run_row(record, CONFIG)
    failed = run_row(records(CONFIG, fails=lambda cell: True)[0], CONFIG)

    bits = record.val_loss / math.log(2) * record.val_tokens / record.val_bytes
    assert row["val_bits_per_byte"] == pytest.approx(bits)
    assert row["train_flops"] == record.flops_per_token * record.train_tokens
    assert (row["peak_cuda_mem_gb"], row["peak_rss_mib"]) == (3.0, 2.0)
    assert row["sine_frequency"] is None
    assert summary()["respsann"]["sine_frequency"] == 2.25
    assert {failed.get(name) for name in ("val_loss", "val_ppl", "train_flops")} == {None}


def test_differences_of_test_losses_are_to_the_baseline_seed_by_seed():
    pairs = zip(finals("respsann"), finals("gelu"), strict=True)
    gaps = [mine.test_loss - other.test_loss for mine, other in pairs]

    row = summary()["respsann"]

    reach = t.ppf(0.975, 2) * stdev(gaps) / math.sqrt(3)
    ends = [row["test_difference_low"], row["test_difference_high"]]
    assert row["test_difference"] == pytest.approx(fmean(gaps))
    assert ends == pytest.approx([fmean(gaps) - reach, fmean(gaps) + reach])


def test_arms_come_by_place_and_then_by_loss(monkeypatch):
    by_loss = summary()
    made_up = {"respsann": 2, "gelu": 1, "gelu_scaled": 2}
    monkeypatch.setattr(comparison, "places", lambda finals, same, refused: made_up)

    by_place = summary()

    assert list(by_loss)[-1] == "gelu"
    assert next(iter(by_place)) == "gelu"
    assert by_place["gelu"]["val_loss"] > by_place["respsann"]["val_loss"]


@pytest.mark.parametrize(("arm", "place"), [("respsann", None), ("gelu", 1)])
def test_a_refused_arm_has_no_place_and_a_refused_baseline_leaves_no_difference(arm, place):
    found = summary(found=gates(CONFIG, refused={arm: "it sees the future"}))

    row = found["respsann"]
    assert (row["place"], row["verdict"], row["difference"]) == (place, "", None)
    assert found[arm]["refused"] == "it sees the future"
    assert found[arm]["val_loss"] is not None


def test_one_tuning_of_each_arm_is_chosen_and_failures_have_their_reason():
    made = records(CONFIG, fails=lambda cell: cell.seed == 100 and cell.setting[1] == 2.25)
    found, failed = rows("tuning.csv"), rows("tuning.csv", made)

    assert [row["base"] for row in found if row["chosen"]] == ["respsann", "gelu", "gelu_scaled"]
    for row in found:
        mine = [other["val_loss"] for other in found if other["base"] == row["base"]]
        assert row["chosen"] == (row["val_loss"] == min(mine))
    lost = [row for row in failed if row["status"] == "failed"]
    assert {row["base"] for row in lost} == {"respsann", "gelu_scaled"}
    assert not any(row["chosen"] or not row["reason"] for row in lost)


@pytest.mark.parametrize(
    ("rates", "frequencies", "at", "expected"),
    [
        ((0.1,), (1.0, 2.0, 3.0), (0.1, 1.0), True),
        ((0.1,), (1.0, 2.0, 3.0), (0.1, 2.0), False),
        ((0.1, 0.2, 0.3), (1.0,), (0.3, 1.0), True),
        ((0.1, 0.2), (1.0, 2.0), (0.2, 2.0), False),  # of two values each is an end
    ],
)
def test_an_edge_is_an_end_of_a_dimension_of_three_values(rates, frequencies, at, expected):
    changes = {
        "scaled_learning_rates": rates,
        "scaled_frequencies": frequencies,
        "learning_rates": tuple(0.1 * (i + 1) for i in range(len(rates) * len(frequencies))),
    }
    config = shootout_config(**changes)
    sine, plain = all_arms()["respsann"], all_arms()["gelu"]
    setting = grid(sine, config)[0]._replace(learning_rate=at[0], sine_frequency=at[1])

    assert on_edge(sine, setting, config) is expected
    found = [on_edge(plain, one, config) for one in grid(plain, config)]
    assert found == [True, *(i == len(found) - 1 for i in range(1, len(found)))]


def test_an_ablation_compares_every_subset_with_all_learned_seed_by_seed():
    setting = choose(CONFIG, RECORDS)["respsann"]
    none = setting._replace(learnable=())
    keys = {key_of(Cell(all_arms()["respsann"], none, seed), CONFIG) for seed in CONFIG.seeds}
    made = [replace(r, val_loss=r.val_loss + 1) if r.key in keys else r for r in RECORDS]

    found = {row["learnable"]: row for row in rows("ablation.csv", made)}

    gaps = [
        loss_of(setting._replace(learnable=("decay",)), seed) - loss_of(setting, seed)
        for seed in CONFIG.seeds
    ]
    expected, row = paired(gaps), found["decay"]
    assert (row["difference"], row["difference_low"], row["p"]) == pytest.approx(
        (expected.mean, expected.low, expected.p)
    )
    full = found.pop("amplitude + frequency + decay")
    assert (full["verdict"], full["difference"]) == ("baseline", None)
    least = min(found.values(), key=lambda row: row["p"])
    assert least["p_holm"] == pytest.approx(min(1, 7 * least["p"]))
    assert found["none"]["verdict"] == "worse"


def test_scales_hold_the_compared_trainings_and_count_failures():
    setting = choose(CONFIG, RECORDS)["respsann"]
    made = records(CONFIG, fails=lambda cell: cell.setting.sine_frequency == 5.0)
    untuned = records(CONFIG, fails=lambda cell: cell.arm.name == "respsann")

    found = rows("scales.csv")

    assert [(row["base"], row["scale"]) for row in found] == [
        (name, scale) for name in CONFIG.scale_arms for scale in CONFIG.scales
    ]
    for row in found[:3]:
        mine = setting._replace(sine_frequency=row["scale"])
        assert row["val_loss"] == pytest.approx(fmean(loss_of(mine, s) for s in CONFIG.seeds))
    [failed] = [r for r in rows("scales.csv", made) if (r["base"], r["scale"]) == ("respsann", 5.0)]
    assert (failed["n_seeds"], failed["n_failed"], failed["val_loss"]) == (0, 3, None)
    assert {row["base"] for row in rows("scales.csv", untuned)} == {"gelu", "gelu_scaled"}
    assert rows("ablation.csv", untuned) == []


CURVE = [(100.0, 5.0), (400.0, 4.0), (1600.0, 3.5)]


@pytest.mark.parametrize(("amount", "loss"), [*CURVE, (200.0, 4.5), (800.0, 3.75)])
def test_a_loss_falls_alike_with_every_doubling_between_evaluations(amount, loss):
    assert at_budget(CURVE, amount) == pytest.approx(loss)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], 1600.0),
        ([[(50.0, 6.0), (900.0, 3.0)]], 900.0),
        ([[(1600.0, 4.0), (3200.0, 3.0)]], 1600.0),
        ([[(2000.0, 4.0), (3000.0, 3.0)]], None),
    ],
    ids=["alone", "one ends before", "they touch", "one begins after"],
)
def test_the_common_budget_is_where_the_shortest_curve_ends(others, expected):
    assert common_budget([CURVE, *others]) == expected
    assert common_budget([]) is None


@pytest.mark.parametrize("budget", BUDGETS)
def test_losses_at_the_largest_budget_that_all_reach_lie_on_the_curves(budget):
    found = {r["base"]: r for r in rows("matched.csv") if r["budget"] == budget}

    def curve(record):
        each = {"tokens": 1, "flops": record.flops_per_token}.get(budget)
        return [(p.tokens * each if each else p.seconds, p.val_loss) for p in record.curve]

    least = min(curve(r)[-1][0] for r in RECORDS if r.final)
    losses = {arm: [at_budget(curve(r), least) for r in finals(arm)] for arm in found}
    gaps = [a - b for a, b in zip(losses["respsann"], losses["gelu"], strict=True)]
    assert {row["amount"] for row in found.values()} == {least}
    assert found["respsann"]["val_loss"] == pytest.approx(fmean(losses["respsann"]))
    assert found["respsann"]["difference"] == pytest.approx(fmean(gaps))
    assert found["gelu"]["difference"] is None


def test_an_arm_that_is_not_compared_is_not_matched_and_cuts_no_budget():
    refused = rows("matched.csv", found=gates(CONFIG, refused={"respsann": "it leaks"}))
    no_baseline = rows("matched.csv", found=gates(CONFIG, refused={"gelu": "it leaks"}))

    assert {row["base"] for row in refused} == {"gelu", "gelu_scaled"}
    assert {row["difference"] for row in no_baseline} == {None}


def test_curves_parameters_scores_and_documents_are_those_of_the_records():
    [record, *_] = finals("respsann")
    curves, learned, scores, documents = (
        rows(f"{name}.csv") for name in ("curves", "learned", "scores", "documents")
    )

    assert curves[3]["flops"] == record.train_tokens * record.flops_per_token
    assert curves[3]["val_loss"] == record.val_loss
    assert learned[0]["after"] == record.learned[0].after
    assert scores[1]["value"] == record.scores[1].value
    assert [row["document"] for row in documents[:12]] == list(range(12))
    assert sum(row["nats"] for row in documents[:12]) == pytest.approx(
        record.val_loss * record.val_tokens
    )


FAILED = records(CONFIG, fails=lambda cell: (cell.arm.name, cell.seed) == ("gelu", 1))
MANIFEST = start_manifest("shootout", CONFIG) | {"run": "20260101_000000_base_shootout"}


def files(made=FAILED, found=GATES):
    info = RunInfo(CONFIG, MANIFEST)
    return PAGE.files(tabulate([*made, *found], CONFIG), info)


def test_json_and_csv_agree_and_metrics_have_the_usual_names_first():
    found = files()
    summary = json.loads(found["summary.json"])
    runs = summary["runs"]

    for name, made in (("summary.csv", summary["arms"]), ("runs.csv", runs)):
        expected = [{k: "" if v is None else str(v) for k, v in row.items()} for row in made]
        assert list(csv.DictReader(io.StringIO(found[name]))) == expected
    for row in runs:
        metrics = json.loads(found[f"runs/{row['base']}_seed{row['seed']}/metrics.json"])
        assert metrics == row
        assert tuple(metrics)[: len(FIRST)] == FIRST
    assert sum(name.startswith("runs/") for name in found) == len(runs) == 9
    failed = json.loads(found["runs/gelu_seed1/metrics.json"])
    assert failed["status"] == "failed"
    assert failed["reason"]
    assert failed["val_loss"] is None


def test_settings_tell_grids_of_one_size_seeds_and_what_was_chosen():
    found = files()
    settings = json.loads(found["summary.json"])["settings"]

    assert {len(grid) for grid in settings["grids"].values()} == {2}
    assert settings["chosen"]["respsann"] == {"learning_rate": 0.003, "sine_frequency": 2.25}
    assert settings["chosen"]["gelu"] == {"learning_rate": 0.003, "sine_frequency": None}
    assert (settings["seeds"], settings["tuning_seed"]) == ([0, 1, 2], 100)
    assert "32,768 tokens of datasets/lm/sample.txt with 3 seeds" in found["README.md"]
    assert f"{len(FAILED)} trainings, " in found["README.md"]


def board(text):
    """Cells of the rows of the table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


@pytest.mark.parametrize("name", ["leaderboard.md", "README.md"])
def test_the_leaderboard_holds_the_summary_with_refusals_twins_and_failures(name):
    same = {"gelu_scaled": "respsann"}
    found = gates(CONFIG, same=same)
    made = records(CONFIG, alike=same, fails=lambda cell: (cell.arm.name, cell.seed) == ("gelu", 2))

    text = files(made, found)[name]

    best, twin = (summary(made, found)[arm] for arm in ("respsann", "gelu_scaled"))
    assert (twin["place"], best["place"], twin["same_as"]) == (1, 1, "respsann")
    [first, *_, last] = board(text)
    assert first[:3] == [
        "1",
        "respsann",
        f"{best['val_loss']:.4f} ({best['val_loss_low']:.4f} – {best['val_loss_high']:.4f})",
    ]
    assert first[6].startswith(f"{best['difference']:+.4f} (")
    assert last[:2] == ["—", "gelu"]
    assert (last[6], last[7], last[-1]) == ("—", "baseline", "2 (1 failed)")
    assert "gelu_scaled is the same network as respsann: the two are an A/A" in text
    assert "gelu has no place: 2 of 3 seeds came to their end, a place needs 3.\n" in text
    assert {row[2] for row in board(files((), ())[name])} == {"—"}


def view(table, tables, **where):
    shown_rows = table.view(tables[table.file]).to_dict("records")
    return [row for row in shown_rows if all(row[k] == v for k, v in where.items())]


def test_the_page_shows_refusals_twins_edges_and_both_intervals():
    plain = summary(records(CONFIG))["respsann"]
    odd = with_summary(
        "gelu_scaled", refused="it leaks", same_as="gelu", grid_edge=True, n_failed=1
    )

    [mine] = view(SUMMARY, tabulate([*RECORDS, *GATES], CONFIG), arm="respsann")
    [other] = view(SUMMARY, odd, arm="gelu_scaled (same network as gelu)")

    assert mine["difference to the baseline, over documents"] == (
        f"{plain['difference']:+.4f} ({plain['documents_low']:+.4f} to "
        f"{plain['documents_high']:+.4f})"
    )
    assert (mine["verdict"], mine["edge of its grid"], mine["seeds"]) == ("better", "", "3")
    assert (other["verdict"], other["edge of its grid"]) == ("refused: it leaks", "yes")
    assert other["seeds"] == "3 (1 failed)"


def test_a_shootout_all_of_whose_trainings_failed_has_all_its_tables():
    none = all_failed()

    failed = view(FAILURES, tabulate([*FAILED, *GATES], CONFIG))
    assert {row["part"] for row in failed} == {"compared", "control"}
    assert {row["part"] for row in view(FAILURES, none)} == {"tuning"}
    assert view(FAILURES, shown()) == []
    assert {row["place"] for row in view(SUMMARY, none)} == {UNKNOWN}
    assert len(view(FAILURES, none)) == len(none["trainings"])
    assert {row["chosen"] for row in view(TUNING, none)} == {""}
    assert all(row["result"].startswith("failed: ConfigError") for row in view(TUNING, none))
    for table in (*PAGE.tables, *PAGE.shown):
        if table.caption:
            assert table.caption in table.html(none[table.file])


@pytest.mark.parametrize(
    ("chance", "metric", "least"),
    [
        (0.25, "acc", f"{smallest_effect(256, 0.25):.4f}"),
        (None, "acc", f"{smallest_effect(256, 0.35):.4f}"),
        (None, "perplexity", UNKNOWN),
    ],
)
def test_scores_show_means_over_seeds_and_what_their_items_can_show(chance, metric, least):
    columns = ["base", "seed", "task", "metric", "value", "stderr", "n_items", "chance"]
    scores = pd.DataFrame(
        [("gelu", i, "quiz", metric, v, 0.02, 256, chance) for i, v in enumerate((0.3, 0.4))],
        columns=columns,
    )

    [row] = view(TASKS, {TASKS.file: TASKS.frame(task_rows(scores))})

    assert row["mean (least – most)"] == "0.3500 (0.3000 – 0.4000)"
    assert row["chance"] == (UNKNOWN if chance is None else "0.2500")
    assert (row["items"], row["seeds"]) == ("256", "2")
    assert row["smallest effect they can show"] == least


def power(n: int, p: float, q: float) -> float:
    """Chance that a pooled two-sided z test at 5% separates the shares, over all outcomes."""
    right = np.arange(n + 1)
    probabilities = np.outer(binom.pmf(right, n, p), binom.pmf(right, n, q))
    pooled = (right[:, None] + right) / (2 * n)
    error = np.sqrt(2 * pooled * (1 - pooled) / n)
    with np.errstate(invalid="ignore"):
        z = (right[:, None] - right) / n / error
    return float(probabilities[np.abs(np.nan_to_num(z)) > norm.ppf(0.975)].sum())


@pytest.mark.parametrize(("n", "p"), [(256, 0.25), (256, 0.5), (1000, 0.1), (60, 0.25)])
def test_the_smallest_effect_is_found_four_times_in_five(n, p):
    assert power(n, p, p + smallest_effect(n, p)) == pytest.approx(0.8, abs=0.02)
    assert smallest_effect(2, p) == math.inf


def test_learned_parameters_are_means_over_seeds_by_layer():
    layers = shown()["layers"].set_index(["base", "layer"])

    mine = shown()["learned.csv"]
    mine = mine[(mine["base"] == "respsann") & (mine["layer"] == "0 mlp")]
    after = mine[mine["part"] == "frequency"]["after"].mean()
    assert layers.loc[("respsann", "0 mlp")]["frequency"].startswith(f"2.250 → {after:.3f} (")
    assert layers.loc[("gelu_scaled", "0 mlp")]["decay"] == UNKNOWN
    assert list(layers["n_seeds"]) == ["3"] * 4
