"""Sentences, headlines and figures of the shootout follow from its tables, and claim no more."""

import json
import re
from dataclasses import replace
from statistics import fmean

import pytest

from psannlm.evidence import text
from psannlm.evidence.notebook import NOTEBOOKS
from psannlm.evidence.runs import load
from psannlm.pages.shootout import comparison, figures, prose
from psannlm.pages.shootout.page import PAGE
from psannlm.pages.shootout.prose import HEADLINES
from psannlm.pages.shootout.results import PLAIN, SCALED, SINE
from psannlm.pages.shootout.tables import tabulate
from tests.synthetic_shootout import (
    CONFIG,
    RECORDS,
    all_failed,
    gates,
    only,
    shifted,
    shootout_run,
    shown,
    with_summary,
)

SIZES = {"better": -0.1, "not separated": 0.0, "worse": 0.1}
FEW = [{"seeds": (0,)}, {"seeds": (0, 1)}, {"preset": "smoke"}]
LOSSES = {(r.arm, r.seed): r.val_loss for r in RECORDS if r.final}


def asked(say):
    return lambda tables, **changes: say(tables, CONFIG.model_copy(update=changes))


answer, reading, control = asked(prose.answer), asked(prose.reading), asked(prose.gain)
tasks = asked(prose.tasks)


def row_of(arm):
    return shown()["summary.csv"].set_index("base").loc[arm]


def mean_difference(arm, other):
    return fmean(LOSSES[arm, seed] - LOSSES[other, seed] for seed in CONFIG.seeds)


def test_the_answer_states_the_terms_of_the_comparison():
    assert "3 seeds an arm, 32,768 tokens a training, of the corpus `sample`;" in answer(shown())
    assert "settles nothing" not in answer(shown())
    assert "of the corpus `wiki`;" in answer(shown(), corpus="some/where/wiki.txt")


@pytest.mark.parametrize("verdict", SIZES)
def test_an_arm_stands_under_its_verdict_with_its_difference(verdict):
    tables = with_summary(
        "respsann", verdict=verdict, difference=-0.5, difference_low=-0.6, difference_high=-0.4
    )
    summary = tables["summary.csv"]
    tables["summary.csv"] = summary[summary["base"] != "gelu_scaled"]

    said = answer(tables).split("\n")[1]

    assert said.startswith(f"- Per token, **{verdict}**")
    assert said.endswith(": respsann -0.5000 (-0.6000 to -0.4000).")
    assert not any(f"**{other}**" in said for other in SIZES.keys() - {verdict})


@pytest.mark.parametrize("changes", FEW)
def test_few_seeds_and_smoke_runs_settle_nothing(changes):
    said, gain = answer(shown(), **changes), control(shown(), **changes)

    assert "**It settles nothing**: " in said
    assert "Per token, without a verdict: " in said
    assert "per second (each cut at" in said
    assert not any(
        word in said
        for word in ("**better**", "**worse**", "**not separated**", "below gelu", "told apart")
    )
    assert gain.startswith("- No verdict on whether the sine's advantage is gain alone.")
    assert f"{mean_difference(SINE, PLAIN):+.4f}" in gain
    assert "nats, " not in gain.split("\n")[0]
    if len(CONFIG.model_copy(update=changes).seeds) == 1:
        assert said.startswith("- 1 seed an arm")
        assert "intervals" not in said


def test_equal_budgets_state_what_was_spent_and_the_difference():
    said = answer(shown())

    matched = shown()["matched.csv"].set_index(["budget", "base"])
    flops, seconds = (matched.loc[(budget, "respsann")] for budget in ("flops", "seconds"))
    assert (
        f"Per FLOP (each cut at {text.flops(flops['amount'])}), below gelu: respsann "
        f"{flops['difference']:+.4f} ("
    ) in said
    assert f"per second (each cut at {seconds['amount']:.1f} s), below gelu: respsann" in said
    none = {**shown(), "matched.csv": shown()["matched.csv"].iloc[:0]}
    assert "Per FLOP" not in answer(none)


@pytest.mark.parametrize(
    ("mean", "low", "high", "n", "expected"),
    [
        (-0.1, -0.2, -0.05, 3, "below"),
        (0.1, 0.05, 0.2, 3, "above"),
        (-0.1, -0.2, 0.01, 3, "not told apart from"),
        (0.1, -0.01, 0.2, 3, "not told apart from"),
        (-0.1, -0.2, -0.05, 2, "not told apart from"),
        (-0.004, -0.0045, -0.0035, 3, "not told apart from"),
        (-0.1, None, None, 3, "not told apart from"),
    ],
)
def test_a_side_of_the_baseline_needs_an_interval_seeds_and_a_size(mean, low, high, n, expected):
    row = {"difference": mean, "difference_low": low, "difference_high": high, "n_seeds": n}

    assert prose.side(row) == expected


def test_memory_is_compared_where_it_was_measured():
    summary = shown()["summary.csv"].assign(peak_cuda_mem_gb=[3.0, 1.5, 2.0])
    summary["base"] = ["respsann", "gelu_scaled", "gelu"]

    said = answer({**shown(), "summary.csv": summary})

    assert "peaks against the 2.000 GB of gelu: respsann 1.50 × (" in said
    assert "gelu_scaled 0.75 × (" in said
    assert "Per byte of memory: not answered here" in answer(shown())


def test_refused_arms_and_equal_networks_are_named_and_not_compared():
    refused = with_summary("respsann", refused="it sees the future", verdict="", place=None)
    twin = with_summary("respsann", same_as="gelu", verdict="A/A")

    assert "**respsann is refused a place**: it sees the future." in answer(refused)
    assert "respsann and gelu are the same network (A/A)." in answer(twin)
    assert "respsann -" not in answer(refused) + answer(twin)


def test_a_shootout_all_of_whose_trainings_failed_says_so():
    none = all_failed()
    n = len(none["trainings"])

    said = answer(none)

    assert f"{n} of {n} trainings failed" in said
    assert "**respsann is refused a place**: no setting to compare it at" in said
    assert "**gelu** has no place" in reading(none)
    assert "not answered here" in control(none)
    assert "No other arm has a difference to gelu" in answer(only("gelu"))


def test_reading_tells_grids_edges_sizes_and_what_was_left_out():
    edge = with_summary("respsann", grid_edge=True, learning_rate=0.003, sine_frequency=5.0)
    odd = with_summary("respsann", refused="it sees the future", n_failed=2, d_mlp=30)

    plain = reading(shown())
    assert "2 settings for every arm, with seed 100" in plain
    assert "learning rates 0.003 with f 1, 2.25." in plain
    assert "parameters are not: " in plain
    assert f"respsann {row_of('respsann')['n_parameters']:,}" in plain
    assert not re.search("At the edge|no place|Failed|Speed", plain)
    assert "**At the edge** of their grids: respsann (learning rate 0.003, f 5). A" in reading(edge)
    said = reading(odd, match="parameters", cells_at_once=2)
    assert "as many as those of gelu, as near as d_mlp can come: " in said
    assert "respsann 30" in said
    assert "**respsann** has no place: it sees the future." in said
    assert "**Failed** of the compared trainings: respsann 2." in said
    assert "trainings that ran 2 at a time" in said
    assert "that of the workers that trained" in reading(shown(), scheduler="tcp://there:8786")


def test_reading_tells_what_the_gates_have_found():
    found = shown()["gates.csv"]
    near = found.loc[found["distance"].idxmin()]

    said = reading(shown())

    assert f"by more than {found['leak'].max():.1e} of the largest" in said
    assert f"{near['arm']} and {near['nearest']}, differ by {near['distance']:.2g}" in said
    assert "**Gates**" not in reading({**shown(), "gates.csv": found.iloc[:0]})


def test_scores_that_are_not_there_have_a_reason_and_the_notebook_the_limits_of_the_code():
    notebook = json.loads((NOTEBOOKS / "shootout.ipynb").read_text(encoding="utf-8"))
    said = "".join(line for cell in notebook["cells"] for line in cell["source"])

    assert f"by more than {comparison.SMALLEST_EFFECT:g} nats" in said
    assert f"with at least {comparison.FEWEST_SEEDS} seeds" in said
    assert "asks for lambada_openai, hellaswag" in tasks(shown())
    assert "no compared training came" in tasks(shown(), with_lm_eval=True)


def placed(whole, rest):
    """The sine `whole` nats from gelu, and `rest` nats from the scaled gelu."""
    sine = whole - mean_difference(SINE, PLAIN)
    return shifted({SINE: sine, SCALED: whole - rest - mean_difference(SCALED, PLAIN)})


@pytest.mark.parametrize(("whole", "rest"), HEADLINES)
def test_what_is_said_of_gain_follows_from_both_verdicts(whole, rest):
    said = control(placed(SIZES[whole], 0.5 * SIZES[rest]))

    assert said.startswith(f"- **{HEADLINES[whole, rest]}.**")
    assert f"respsann less gelu: {SIZES[whole]:+.4f} (" in said.replace("-0.0000", "+0.0000")
    assert said.count("Not separated is not equal") == (rest == "not separated")
    assert len(set(HEADLINES.values())) == 9


def test_gains_are_paired_means_over_the_compared_trainings_alone():
    loud = [r if r.final else replace(r, val_loss=9.0) for r in RECORDS if r.seed != 100]
    tuned = [r for r in RECORDS if r.seed == 100]

    said = control(shown()).split("\n")[0]

    for arm, other in ((SINE, PLAIN), (SCALED, PLAIN)):
        assert f"{arm} less {other}" in said
        assert f"{mean_difference(arm, other):+.4f} (" in said
    assert f"the same: {mean_difference(SINE, SCALED):+.4f} (" in said
    with_loud = tabulate([*tuned, *loud, *gates(CONFIG)], CONFIG)
    assert control(with_loud).split("\n")[0] == said


@pytest.mark.parametrize("missing", [SINE, SCALED, PLAIN])
def test_an_arm_that_was_not_compared_is_named(missing):
    said = control(only(*({SINE, SCALED, PLAIN} - {missing})))
    refused = control(with_summary(missing, refused="it leaks"))

    assert f"not answered here: {missing} was not compared; `base` must name it." in said
    assert f"not answered here: {missing} is refused a place, it leaks." in refused
    assert f"{missing} is " not in said.split("\n")[1]


def test_scales_are_told_from_scale_one_to_the_best():
    table = shown()["scales.csv"]
    scales = table.assign(val_loss=[3.0 if scale == 1 else 2.75 for scale in table["scale"]])
    gelu = scales["base"] == PLAIN
    scales.loc[gelu, "val_loss"] = [2.9 if s == 1 else 3.1 for s in scales.loc[gelu, "scale"]]

    said = control({**shown(), "scales.csv": scales})
    rest = control({**shown(), "scales.csv": table[table["scale"] != 1]})
    none = control({**shown(), "scales.csv": table.assign(val_loss=None)})

    assert "respsann is 0.2500 nats better at f = 2.25 than at f = 1;" in said
    assert "gelu is best at 1 × init_std itself." in said
    assert "best scale of each: respsann 2.7500, gelu_scaled 2.7500, gelu 2.9000." in said
    assert "respsann is best at f = 2.25; gelu_scaled is best at f = 2.25;" in rest
    assert "\n" not in none


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    changes = {"base": (SINE, SCALED), "ablation": (), "scale_arms": ()}
    return load(shootout_run(tmp_path_factory.mktemp("reports"), **changes))


def test_an_arm_is_told_by_its_difference_and_the_gain_by_one_paired_by_seed(run):
    found = {number.name: number for number in PAGE.numbers(run)}
    rows = {row.values["base"]: row.values for row in PAGE.rows(run)}

    assert f"shootout.{PLAIN}.difference" not in found
    for arm in (SINE, SCALED):
        number = found[f"shootout.{arm}.difference"]
        assert (number.value, number.verdict) == (rows[arm]["difference"], rows[arm]["verdict"])
        assert (number.unit, number.about) == ("nats per token", arm)
    runs = {(r.values["base"], r.values["seed"]): r.values for r in PAGE.rows(run, file="runs.csv")}
    gain = found["shootout.respsann.difference_to_gelu_scaled"]
    pairs = [runs[SINE, s]["val_loss"] - runs[SCALED, s]["val_loss"] for s in range(3)]
    assert gain.value == pytest.approx(fmean(pairs))
    assert gain.low < gain.value < gain.high
    assert (gain.about, gain.n) == ("respsann, against gelu_scaled", 3)
    said = PAGE.summary(list(found.values()))
    assert f"respsann {rows[SINE]['difference']:+.3f} (" in said
    assert f"respsann less gelu_scaled: {gain.value:+.3f} (" in said
    assert PAGE.found(run).startswith(f"{PAGE.rows(run)[0].values['base']} (")


def test_a_refused_arm_has_numbers_without_values(tmp_path):
    changes = {"base": (SINE,), "ablation": (), "scale_arms": ()}
    config = CONFIG.model_copy(update=changes)
    refused = gates(config, refused={SINE: "it sees the future"})

    found = list(PAGE.numbers(load(shootout_run(tmp_path, found=refused, **changes))))

    mine = [number for number in found if number.base == SINE]
    assert {(n.value, n.status, n.verdict) for n in mine} == {(None, "refused", "refused")}
    assert PAGE.summary(found) == "No arm could be compared with gelu."


def words_of(figure) -> set[str]:
    return set(re.findall(r">([^<>]+)</text>", figure.html))


def test_single_seeds_average_to_the_summary_and_to_the_means_of_the_scales():
    runs = shown()["runs.csv"].astype(object)
    mine = (runs["base"] == "respsann") & (runs["seed"] == 1)

    seeds = figures.paired_by_seed(runs, "gelu")
    runs.loc[mine, ["status", "val_loss"]] = ["failed", None]

    assert seeds["respsann"].mean() == pytest.approx(row_of("respsann")["difference"])
    assert (seeds["gelu"] == 0).all()
    failed = figures.paired_by_seed(runs, "gelu")["respsann"]
    assert list(failed.isna()) == [False, True, False]
    singles = shown()["single scales"].groupby(["base", "scale"], sort=False)["val_loss"]
    assert set(singles.size()) == {CONFIG.side_seeds}
    assert singles.mean().tolist() == pytest.approx(shown()["scales.csv"]["val_loss"].tolist())


def test_curves_are_means_and_spans_of_the_seeds():
    points = figures.over_seeds(shown()["curves.csv"], "seconds")

    rows = shown()["curves.csv"]
    last = rows[(rows["base"] == "gelu") & (rows["step"] == rows["step"].max())]
    mine = points[points["base"] == "gelu"].iloc[-1]
    assert mine["mean"] == pytest.approx(last["val_loss"].mean())
    assert (mine["low"], mine["high"]) == (last["val_loss"].min(), last["val_loss"].max())
    assert mine["at"] == pytest.approx(last["seconds"].mean())


def test_what_cannot_be_drawn_is_a_caption():
    drawn = figures.all_figures(all_failed(), CONFIG)

    assert [figure.panels for figure in drawn.values()] == [{}] * 5
    assert "No arm has a difference to gelu" in drawn["forest"].caption
    assert "refused a place: respsann, gelu, gelu_scaled." in drawn["curves"].caption
    assert "No arm was trained at other initial scales." in drawn["scales"].caption


@pytest.mark.slow
def test_figures_name_every_arm_budget_and_subset_and_leave_out_the_refused():
    drawn = figures.all_figures(shown(), CONFIG)
    refused = figures.curves(with_summary("gelu_scaled", refused="it sees the future"))

    assert {name: list(figure.panels) for name, figure in drawn.items()} == {
        "forest": ["against gelu"],
        "curves": ["by tokens", "by FLOPs", "by seconds"],
        "scales": ["by initial scale"],
        "ablation": ["respsann"],
        "learned": ["amplitude A", "frequency f", "decay d"],
    }
    assert words_of(drawn["scales"]) >= {"respsann", "gelu", "gelu_scaled", "1", "2.25"}
    assert words_of(drawn["ablation"]) >= {"none", "A", "f", "d", "A f", "A d", "f d", "A f d"}
    assert "gelu_scaled" not in drawn["learned"].panels["decay d"]
    assert "gelu_scaled" not in words_of(refused)
    assert "Left out, because refused a place: gelu_scaled." in refused.caption


@pytest.mark.slow
def test_one_seed_and_equal_networks_still_draw():
    ends = dict.fromkeys(("difference_low", "difference_high", "documents_low", "documents_high"))
    one = with_summary("respsann", same_as="gelu_scaled", **ends)
    for name in ("runs.csv", "curves.csv"):
        one[name] = one[name][one[name]["seed"] == 0]

    first, second = (figures.forest(one, "gelu") for _ in range(2))

    assert "(same as gelu_scaled)" in words_of(first)
    assert first.html == second.html
    assert len(figures.curves(one).panels) == 3
