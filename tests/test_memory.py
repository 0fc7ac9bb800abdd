"""The tables, numbers, sentences and figures of memory say what the records say, failures too."""

import json
import re

import pytest

from psannlm.evidence.page import RunInfo, run_info
from psannlm.evidence.runs import load
from psannlm.files import MIB
from psannlm.pages.memory import figures, prose
from psannlm.pages.memory import tables as made
from psannlm.pages.memory.page import PAGE
from psannlm.pages.memory.records import STORE, Setting
from psannlm.pages.memory.tables import MEMORY, PEER, SAVINGS
from tests.pages import info_of
from tests.synthetic_memory import (
    committed_run,
    failed_record,
    memory_config,
    memory_record,
    memory_records,
    memory_run,
    peer_record,
    settings,
)

ONE = memory_config(
    base=("respsann",), batch_tokens=(32,), contexts=(), precision=("fp32",), n_repeats=3
)
ALL = memory_config(n_repeats=1)
OFF = Setting("respsann", 16, 32, False, "fp32", "default")
ON = OFF._replace(grad_checkpoint=True)
SINE, LOSS = OFF._replace(variant="plain_sine"), OFF._replace(variant="plain_loss")
OTHER = Setting("transformer", 8, 64, True, "bf16", "plain_sine")
SHAPE = {"vocab_size": 32_000, "d_model": 512, "n_layers": 8, "context_length": 512}
AT_GOAL = memory_config(**SHAPE, base=("respsann",), batch_tokens=(512,), contexts=())
PLACE = {"context_length": 512, "batch_tokens": 512}


def tables(records, config=ONE):
    return PAGE.tabulate(records, info_of(PAGE, config, records))


def answer(found, config=ONE):
    return prose.answer(found, info_of(PAGE, config, ()))


def row_of(records, config=ONE, table=MEMORY):
    [row] = tables(records, config)[table.file].to_dict("records")
    return row


WHOLE = tables(memory_records(ALL), ALL)
ROWS = WHOLE[MEMORY.file]
FP32 = ROWS[ROWS["amp"] == "fp32"]


def pair(off=None, on=None):
    """The row that checkpointing makes of two processes with these changes."""
    records = [memory_record(**off or {}), memory_record(grad_checkpoint=True, **on or {})]
    return row_of(records, table=SAVINGS)


def test_records_survive_their_files():
    awkward = failed_record('out of memory: "tried", 3\nlines é', loss=1 / 7)
    records = [memory_record(seconds=(0.1, 1 / 3)), awkward, peer_record()]

    texts = STORE.texts(records)

    assert STORE.records(texts) == records
    assert len(texts["samples.csv"].splitlines()) == 1 + 2
    assert STORE.records(STORE.texts([])) == []


def test_every_setting_is_a_row_in_the_order_of_the_configuration():
    rows = tables(memory_records(ALL)[::-1], ALL)[MEMORY.file]

    assert len(rows) == 2 * 2 * (3 * 2 + 2), "bases, precisions, shapes off and on, variants"
    assert list(rows["base"][:4]) == ["respsann", "respsann", "transformer", "transformer"]
    assert list(rows["grad_checkpoint"][:2]) == [False, True]
    assert list(rows["variant"][-8:]) == ["plain_loss"] * 4 + ["plain_sine"] * 4


def test_a_row_has_the_largest_bytes_and_the_median_time_of_its_processes():
    records = [
        memory_record(repeat=i, saved_bytes=(8 + i) * MIB, seconds=(second, 3 * second))
        for i, second in enumerate((0.1, 0.3, 0.2))
    ]

    row = row_of(records)

    assert row["saved_mib"] == 10
    assert row["elapsed_s"] == pytest.approx(0.4), "the median process: all time over all steps"
    assert row["elapsed_s_low"] < row["elapsed_s"] < row["elapsed_s_high"]
    assert (row["n_ok"], row["n_failed"], row["status"]) == (3, 0, "ok")


@pytest.mark.parametrize(
    ("reserved", "named", "said"),
    [
        (None, (20, None, None), "main memory, not that of a GPU"),
        (32 * MIB, (20, 20, 32), "on the GPU"),
    ],
)
def test_memory_of_a_cpu_is_never_called_that_of_cuda(reserved, named, said):
    found = tables([memory_record(peak_allocated_bytes=20 * MIB, peak_reserved_bytes=reserved)])
    text = prose.reading(found, info_of(PAGE, ONE, ()))

    names = ["peak_allocated_mib", "max_memory_mb", "max_reserved_mb"]
    assert tuple(found[MEMORY.file].loc[0, names]) == named
    assert said in text
    assert ("Peak RSS" in text) == (reserved is None)


def test_what_failed_is_a_row_with_its_reasons_and_what_was_predicted():
    row = row_of([failed_record("out of memory: full"), failed_record("timed out", repeat=1)])

    assert (row["status"], row["n_failed"]) == ("failed", 2)
    assert row["reason"] == "out of memory: full; timed out"
    assert row["predicted_saved_mib"] == 10
    assert [row["saved_mib"], row["saved_verdict"]] == [None, None]


@pytest.mark.parametrize(
    ("counted", "is_near"), [(1000, True), (985, True), (980, False), (1015, True), (1030, False)]
)
def test_a_prediction_stands_beside_what_was_counted_with_its_error(counted, is_near):
    row = row_of([memory_record(predicted={"saved: mlp": 1000}, saved_bytes=counted)])

    assert row["predicted_kinds_mib"] == {"mlp": 1000 / MIB}
    assert row["saved_error"] == pytest.approx(1000 / counted - 1)
    assert row["saved_verdict"] == ("within 2%" if is_near else "not within 2%")


def test_each_saver_is_held_against_the_setting_that_lacks_it():
    assert set(made.pairs_of([OFF, ON, SINE, LOSS])) == {
        ("checkpointing", OFF, ON),
        ("fast_sine", SINE, OFF),
        ("chunked_loss", LOSS, OFF),
    }


@pytest.mark.parametrize("name", Setting._fields[:-1])
def test_rows_that_differ_in_something_else_too_are_no_pair(name):
    assert list(made.pairs_of([OFF, SINE._replace(**{name: getattr(OTHER, name)})])) == []


def test_every_pair_of_a_whole_run_differs_in_one_and_is_found_once():
    pairs = list(made.pairs_of([Setting(**setting) for setting in settings(memory_config())]))

    assert len(pairs) == len(set(pairs)) == 2 * 2 * (3 + 2), "bases, precisions, shapes, variants"
    assert {sum(a == b for a, b in zip(off, on, strict=True)) for _, off, on in pairs} == {5}


@pytest.mark.parametrize(
    ("saved", "less", "share"), [(4, 6, 0.6), (12, -2, -0.2), (0, 10, 1), (10, 0, 0)]
)
def test_bytes_are_what_there_is_less_of_and_as_a_share_of_those_without(saved, less, share):
    row = pair({"saved_bytes": 10 * MIB}, {"saved_bytes": saved * MIB})

    assert (row["saved_without_mib"], row["saved_with_mib"]) == (10, saved)
    assert (row["saved_less_mib"], row["saved_less_share"]) == pytest.approx((less, share))
    of_nothing = pair({"saved_bytes": 0, "saved_kinds": {}})
    assert [of_nothing["saved_less_mib"], of_nothing["saved_less_share"]] == [None, None]


def test_the_time_ratio_is_the_median_of_the_blocks_that_both_sides_have():
    # A median of three is the least of them in 7 of 27 resamples: the interval is all three.
    off, on = {0: 1.0, 1: 2.0, 2: 4.0, 3: 9.0}, {0: 1.5, 1: 2.4, 2: 5.6, 4: 0.1}
    records = [memory_record(repeat=i, seconds=(s,)) for i, s in off.items()]
    records += [memory_record(repeat=i, seconds=(s,), grad_checkpoint=True) for i, s in on.items()]

    row = row_of(records, table=SAVINGS)

    ends = [row[f"time_ratio{end}"] for end in ("", "_low", "_high")]
    assert ends == pytest.approx([1.4, 1.2, 1.5]), "and not a ratio of medians"
    assert row["n_blocks"] == 3


@pytest.mark.parametrize("failed", [False, True])
def test_a_pair_with_a_failed_half_keeps_the_other_and_states_no_saving(failed):
    whole = memory_record(grad_checkpoint=not failed)
    row = row_of([failed_record("killed", grad_checkpoint=failed), whole], table=SAVINGS)

    assert (row["status"], row["reason"], row["n_blocks"]) == ("failed", "killed", 0)
    sides = {False: row["saved_without_mib"], True: row["saved_with_mib"]}
    assert sides[failed] is None
    assert sides[not failed] == whole.saved_bytes / MIB
    assert all(row[name] is None for name in row if "less" in name or "ratio" in name)


def test_every_precision_of_the_package_is_held_against_ours_in_the_same():
    config = memory_config(precision=("fp32", "bf16"))
    records = [memory_record(), memory_record(precision="bf16", saved_bytes=5 * MIB)]
    peers = [peer_record(), peer_record(precision="bf16", saved_bytes=20 * MIB)]

    rows = tables([*records, *peers], config)[PEER.file]

    assert list(rows["ratio"]) == [0.4, 0.25]
    assert set(rows["package"]) == {"package 1.0"}
    assert set(rows["goal"]) == {None}, "the goals are for another shape"


@pytest.mark.parametrize("name", SHAPE)
def test_another_shape_has_no_goal(name):
    other = AT_GOAL.model_copy(update={name: SHAPE[name] * 2})

    assert [made.goal(precision, AT_GOAL) for precision in made.GOALS] == [0.45, 0.40]
    assert [made.goal(precision, other) for precision in made.GOALS] == [None, None]
    assert made.goal("fp16", AT_GOAL) is None


@pytest.mark.parametrize(("theirs", "said"), [(25, "reached"), (20, "not reached")])
def test_at_the_shape_of_the_goals_there_is_a_verdict_that_the_answer_tells(theirs, said):
    mine = memory_record(**PLACE, saved_bytes=10 * MIB)
    found = tables([mine, peer_record(**PLACE, saved_bytes=theirs * MIB)], AT_GOAL)

    assert list(found[PEER.file]["verdict"]) == [said]
    assert f"(goal: at most 0.45, {said})." in answer(found, AT_GOAL)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ([], {}),
        ([failed_record(**PLACE)], {}),
        ([memory_record(**PLACE, grad_checkpoint=True)], {}),
        ([memory_record(**PLACE)], {"status": "failed", "reason": "none", "saved_bytes": None}),
        ([memory_record(**PLACE)], {"saved_bytes": 0}),
    ],
)
def test_without_both_sides_there_is_neither_ratio_nor_verdict(mine, theirs):
    found = tables([*mine, peer_record(**PLACE, **theirs)], AT_GOAL)

    [row] = found[PEER.file].to_dict("records")
    assert [row["ratio"], row["verdict"]] == [None, None]
    said = "no ratio to the published package 1.0" + (": none." if "reason" in theirs else ".")
    assert said in answer(found, AT_GOAL)


def test_memory_json_opens_as_the_benchmark_plan_has_it():
    text = MEMORY.write(tables([memory_record()])[MEMORY.file])

    plan = ["base", "d_model", "n_layers", "grad_checkpoint", "amp", "max_memory_mb", "elapsed_s"]
    assert list(json.loads(text)[0])[:7] == plan


def test_what_people_read_of_a_pair_has_shares_and_an_interval_where_blocks_repeat():
    columns = ("saved_less_mib", "peak_less_mib", "time_ratio")
    for n_repeats, ratio in ((1, "1.30"), (2, "1.30 (1.30 – 1.30)")):
        config = memory_config(n_repeats=n_repeats)
        found = tables(memory_records(config, noise=0.0), config)[SAVINGS.file]
        pairs = made.main_rows(found[found["saver"] == "checkpointing"], config)

        assert list(pairs["base"]) == ["respsann", "transformer"] * 2
        assert tuple(SAVINGS.view(pairs, columns).iloc[0]) == ("6.0 (60%)", "6.0 (32%)", ratio)


def test_parts_of_a_prediction_stand_beside_what_was_measured():
    html = PAGE.section("parts", WHOLE, RunInfo(ALL, {}))

    heads = re.findall(r"<th[^>]*>([^<]+)</th>", html)
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", html)[: len(heads)]
    row = dict(zip(heads, cells, strict=True))
    assert (row["saved: mlp"], row["saved: attention"]) == ("7.5", "2.5")
    assert row["saved: error"] == "+0.0% (within 2%)"
    assert row["activation memory, MiB"] == row["predicted, MiB"] == "10.0"


def test_fast_paths_are_told_apart_from_checkpointing():
    html = PAGE.section("savers", WHOLE, RunInfo(ALL, {}))

    assert html.count("<td>the fast sine</td>") == html.count("<td>the chunked loss</td>") == 4
    assert "<td>checkpointing</td>" not in html


def test_the_answer_states_what_checkpointing_saves_and_what_it_costs():
    config = memory_config(base=("respsann",), precision=("fp32",))

    said = answer(tables(memory_records(config, noise=0.0), config), config)

    assert "**respsann** saves 10.0 MiB for backward against 4.0, 6.0 MiB less (60%)" in said
    assert "at 1.30 (1.30 – 1.30) × the time of a step" in said
    assert said.count("saves 10.0 MiB") == 1, "curves are not mixed into the comparison"
    assert "The fast sine against the plain one, fp32: **respsann** 10.0 MiB less (50%)." in said
    assert "The chunked loss against the plain one, fp32: **respsann** 5.0 MiB less (33%)." in said
    assert "indication" not in said


@pytest.mark.parametrize(
    ("saved", "said"), [(12 * MIB, "2.0 MiB more (20%)"), (10 * MIB + 4, "against 10.0, no less,")]
)
def test_what_saves_nothing_is_not_called_a_saving(saved, said):
    on = memory_record(grad_checkpoint=True, saved_bytes=saved)

    assert said in answer(tables([memory_record(), on]))


def test_predictions_and_failures_are_counted():
    off, on = memory_record(saved_bytes=8 * MIB), memory_record(grad_checkpoint=True)

    said = answer(tables([off, on, failed_record(variant="plain_sine")]))

    assert "for backward within 2% in 1 of 2 rows (largest error 25.0%)" in said
    assert "allocator within 10% in 2 of 2 rows" in said
    assert "1 of 3 rows failed" in said
    assert "With 3 fresh processes a row" in said


def test_numbers_are_those_of_the_first_batch_and_what_lies_between_them():
    run = committed_run()
    numbers = list(PAGE.numbers(run))
    by_name = {number.name: number for number in numbers}
    shown = [n for n in numbers if PAGE.is_headline(n.row, n.column)]

    assert len(by_name) == len({n.key for n in numbers}) == len(numbers)
    bases, precisions = 4, 2
    assert len(shown) == bases * precisions * (2 * 3 + 2)
    stem = "memory.respsann.fp32.512.checkpointing"
    off, on = (by_name[f"{stem}_{side}.saved_mib"].value for side in ("off", "on"))
    share = by_name[f"{stem}.saved_less_share"]
    assert share.value == pytest.approx((off - on) / off)
    assert share.verdict == "less"
    assert PAGE.found(run).startswith(f"respsann saves for backward {off:,.1f} MiB not check")
    assert "bf16: **less** respsann" in PAGE.summary(shown)


def test_a_run_without_pairs_says_so(tmp_path):
    run = load(memory_run(tmp_path, records=[failed_record()], base=("respsann",)))

    assert PAGE.found(run) == "nothing was measured"
    assert PAGE.summary(list(PAGE.numbers(run))).startswith("No row without checkpointing")
    assert run_info(PAGE, run).records == [failed_record()]


def test_every_part_and_base_stands_in_the_breakdown():
    figure = figures.breakdown(FP32, ALL)

    assert list(figure.panels) == ["fp32"]
    named = {"parameters", "optimizer", "saved: mlp", "saved: attention", "logits", "measured peak"}
    words = set(re.findall(r">([^<>]+)</text>", figure.html))
    assert words >= named | {"respsann, off", "transformer, on"}


def test_a_kind_has_one_colour_in_all_panels(monkeypatch):
    rows = ROWS.copy()
    other = {"attention": 9.0, "mlp": 1.0}  # most is not what is most in fp32
    half = rows["amp"] == "bf16"
    rows.loc[half, "predicted_kinds_mib"] = [other] * half.sum()
    seen, shades = [], figures.figures.shades
    monkeypatch.setattr(
        figures.figures, "shades", lambda names, **more: seen.append(names) or shades(names, **more)
    )

    figures.breakdown(rows, ALL)

    assert len(seen) >= 2
    assert set(map(tuple, seen)) == {tuple(seen[0])}


def test_many_kinds_are_drawn_together_and_none_is_lost():
    kinds = {f"kind {i}": float(20 - i) for i in range(12)}

    parts = figures.parts({**FP32.iloc[0], "predicted_kinds_mib": kinds}, list(kinds))

    saved = {name: size for name, size in parts.items() if name.startswith("saved: ")}
    assert len(saved) == figures.MOST_KINDS + 1
    assert sum(saved.values()) == sum(kinds.values())
    assert made.kinds_of(FP32) == ["mlp", "attention"], "those first that need most"


def test_a_bar_ends_at_the_peak_that_is_predicted():
    parts = figures.parts({**FP32.iloc[0], "predicted_peak_mib": 20.0}, ["mlp", "attention"])

    assert parts[figures.REST] == pytest.approx(20 - (2 + 4 + 10 + 1))
    assert sum(parts.values()) == pytest.approx(20)


def test_growth_has_a_panel_for_what_was_varied():
    panels = [
        list(figures.growth(rows, ALL, "peak").panels)
        for rows in (FP32, FP32[FP32["batch_tokens"] == 32], FP32.assign(status="failed"))
    ]

    assert panels == [["fp32, by batch tokens", "fp32, by context"], ["fp32, by context"], []]
