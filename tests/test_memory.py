"""The tables, numbers, sentences and figures of memory say what the records say, failures too."""

import json
import re

import pandas as pd
import pytest

from psannlm.evidence.page import RunInfo, run_info
from psannlm.evidence.runs import load
from psannlm.files import MIB
from psannlm.pages.memory import figures, prose
from psannlm.pages.memory.page import PAGE
from psannlm.pages.memory.records import Setting, from_texts, to_texts
from psannlm.pages.memory.tables import (
    GOALS,
    MEMORY,
    PEER,
    SAVINGS,
    WITHIN,
    checkpointing_rows,
    goal,
    kinds_of,
    main_rows,
    pairs_of,
    tabulate,
)
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
    manifest = {"run": "20260101_000000", "environment": {"device": "a CPU"}}
    return tabulate(records, RunInfo(config, manifest))


def rows_of(records, config=ONE, table=MEMORY):
    return tables(records, config)[table.file].to_dict("records")


def row_of(records, config=ONE, table=MEMORY, **wanted):
    found = rows_of(records, config, table)
    [row] = [row for row in found if wanted.items() <= row.items()]
    return row


def pair(off=None, on=None):
    """The row that checkpointing makes of two processes with these changes."""
    records = [memory_record(**off or {}), memory_record(grad_checkpoint=True, **on or {})]
    return row_of(records, table=SAVINGS)


def test_records_survive_their_files():
    awkward = failed_record('out of memory: "tried", 3\nlines é', loss=1 / 7)
    records = [memory_record(seconds=(0.1, 1 / 3)), awkward, peer_record()]

    texts = to_texts(records)

    assert from_texts(texts) == records
    assert len(texts["samples.csv"].splitlines()) == 1 + 2
    assert from_texts(to_texts([])) == []


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


@pytest.mark.parametrize(("reserved", "named"), [(None, (None, None)), (32 * MIB, (20, 32))])
def test_memory_of_a_cpu_is_never_called_that_of_cuda(reserved, named):
    row = row_of([memory_record(peak_allocated_bytes=20 * MIB, peak_reserved_bytes=reserved)])

    assert row["peak_allocated_mib"] == 20
    assert (row["max_memory_mb"], row["max_reserved_mb"]) == named


def test_what_failed_is_a_row_with_its_reasons_and_what_was_predicted():
    row = row_of([failed_record("out of memory: full"), failed_record("timed out", repeat=1)])

    assert (row["status"], row["n_failed"]) == ("failed", 2)
    assert row["reason"] == "out of memory: full; timed out"
    assert row["predicted_saved_mib"] == 10
    assert [row["saved_mib"], row["saved_verdict"]] == [None, None]


@pytest.mark.parametrize(
    ("counted", "said"),
    [
        (1000, "within 2%"),
        (985, "within 2%"),
        (980, "not within 2%"),
        (1015, "within 2%"),
        (1030, "not within 2%"),
    ],
)
def test_a_prediction_stands_beside_what_was_counted_with_its_error(counted, said):
    row = row_of([memory_record(predicted={"saved: mlp": 1000}, saved_bytes=counted)])

    assert row["predicted_kinds_mib"] == {"mlp": 1000 / MIB}
    assert row["saved_error"] == pytest.approx(1000 / counted - 1)
    assert row["saved_verdict"] == said


def test_each_saver_is_held_against_the_setting_that_lacks_it():
    assert set(pairs_of([OFF, ON, SINE, LOSS])) == {
        ("checkpointing", OFF, ON),
        ("fast_sine", SINE, OFF),
        ("chunked_loss", LOSS, OFF),
    }


@pytest.mark.parametrize("name", Setting._fields[:-1])
def test_rows_that_differ_in_something_else_too_are_no_pair(name):
    assert list(pairs_of([OFF, SINE._replace(**{name: getattr(OTHER, name)})])) == []


def test_every_pair_of_a_whole_run_differs_in_one_and_is_found_once():
    pairs = list(pairs_of([Setting(**setting) for setting in settings(memory_config())]))

    assert len(pairs) == len(set(pairs)) == 2 * 2 * (3 + 2), "bases, precisions, shapes, variants"
    assert {sum(a == b for a, b in zip(off, on, strict=True)) for _, off, on in pairs} == {5}


@pytest.mark.parametrize(
    ("saved", "less", "share"), [(4, 6, 0.6), (12, -2, -0.2), (0, 10, 1), (10, 0, 0)]
)
def test_bytes_are_what_there_is_less_of_and_as_a_share_of_those_without(saved, less, share):
    row = pair({"saved_bytes": 10 * MIB}, {"saved_bytes": saved * MIB})

    assert (row["saved_without_mib"], row["saved_with_mib"]) == (10, saved)
    assert (row["saved_less_mib"], row["saved_less_share"]) == pytest.approx((less, share))


def test_of_nothing_there_is_no_share():
    row = pair({"saved_bytes": 0, "saved_kinds": {}})

    assert pd.isna(row["saved_less_mib"])
    assert pd.isna(row["saved_less_share"])


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

    found = rows_of([*records, *peers], config, PEER)

    assert [row["ratio"] for row in found] == [0.4, 0.25]
    assert [row["package"] for row in found] == ["package 1.0"] * 2
    assert [row["goal"] for row in found] == [None, None], "the goals are for another shape"


@pytest.mark.parametrize("name", SHAPE)
def test_another_shape_has_no_goal(name):
    other = AT_GOAL.model_copy(update={name: SHAPE[name] * 2})

    assert [goal(precision, AT_GOAL) for precision in GOALS] == [0.45, 0.40]
    assert [goal(precision, other) for precision in GOALS] == [None, None]
    assert goal("fp16", AT_GOAL) is None


@pytest.mark.parametrize(("theirs", "said"), [(25, "reached"), (20, "not reached")])
def test_at_the_shape_of_the_goals_there_is_a_verdict_that_the_answer_tells(theirs, said):
    mine = memory_record(**PLACE, saved_bytes=9 * MIB)
    found = tables([mine, peer_record(**PLACE, saved_bytes=theirs * MIB * 9 // 10)], AT_GOAL)

    assert list(found[PEER.file]["verdict"]) == [said]
    assert f"(goal: at most 0.45, {said})." in prose.answer(found, AT_GOAL)


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
    assert said in prose.answer(found, AT_GOAL)


def test_without_pairs_and_packages_tables_are_empty_but_have_their_columns():
    found = tables([memory_record()])

    assert list(found[SAVINGS.file].columns) == SAVINGS.names
    assert list(found[PEER.file].columns) == PEER.names
    assert found[SAVINGS.file].empty
    assert found[PEER.file].empty


def test_memory_json_opens_as_the_benchmark_plan_has_it():
    text = MEMORY.write(tables(memory_records(ONE))[MEMORY.file])

    plan = ("base", "d_model", "n_layers", "grad_checkpoint", "amp", "max_memory_mb", "elapsed_s")
    assert tuple(json.loads(text)[0])[:7] == plan


def test_bases_are_compared_at_the_first_batch_and_the_runs_own_context():
    rows = main_rows(tables(memory_records(ALL), ALL)[MEMORY.file], ALL)

    assert set(zip(rows["batch_tokens"], rows["context_length"], strict=True)) == {(32, 16)}


def test_what_people_read_of_a_pair_has_shares_and_an_interval_where_blocks_repeat():
    columns = ("saved_less_mib", "peak_less_mib", "time_ratio")
    views = []
    for n_repeats in (1, 2):
        config = memory_config(n_repeats=n_repeats)
        found = tables(memory_records(config, noise=0.0), config)[SAVINGS.file]
        pairs = checkpointing_rows(found, config)
        assert list(pairs["base"]) == ["respsann", "transformer"] * 2
        views.append(tuple(SAVINGS.view(pairs, columns).iloc[0]))

    assert views[0] == ("6.0 (60%)", "6.0 (32%)", "1.30")
    assert views[1] == ("6.0 (60%)", "6.0 (32%)", "1.30 (1.30 – 1.30)")


def test_parts_of_a_prediction_stand_beside_what_was_measured():
    found = tables(memory_records(ALL), ALL)
    html = PAGE.section("parts", found, RunInfo(ALL, {}))

    heads = re.findall(r"<th[^>]*>([^<]+)</th>", html)
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", html)[: len(heads)]
    row = dict(zip(heads, cells, strict=True))
    assert (row["saved: mlp"], row["saved: attention"]) == ("7.5", "2.5")
    assert row["saved: error"] == "+0.0% (within 2%)"
    assert row["activation memory, MiB"] == row["predicted, MiB"] == "10.0"


def test_fast_paths_are_told_apart_from_checkpointing():
    html = PAGE.section("savers", tables(memory_records(ALL), ALL), RunInfo(ALL, {}))

    assert html.count("<td>the fast sine</td>") == html.count("<td>the chunked loss</td>") == 4
    assert "<td>checkpointing</td>" not in html


def test_a_failed_row_shows_its_reason_and_dashes():
    [row] = MEMORY.view(tables([failed_record("full")])[MEMORY.file]).to_dict("records")

    assert row["result"] == "failed: full"
    assert (row["activation memory, MiB"], row["predicted, MiB"]) == ("—", "10.0")


def test_the_answer_states_what_checkpointing_saves_and_what_it_costs():
    config = memory_config(base=("respsann",), precision=("fp32",))

    said = prose.answer(tables(memory_records(config, noise=0.0), config), config)

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

    assert said in prose.answer(tables([memory_record(), on]), ONE)


def test_predictions_and_failures_are_counted():
    off, on = memory_record(saved_bytes=8 * MIB), memory_record(grad_checkpoint=True)

    said = prose.answer(tables([off, on, failed_record(variant="plain_sine")]), ONE)

    assert "for backward within 2% in 1 of 2 rows (largest error 25.0%)" in said
    assert "allocator within 10% in 2 of 2 rows" in said
    assert "1 of 3 rows failed" in said
    assert "With 3 fresh processes a row" in said


def test_on_a_cpu_nothing_is_called_memory_of_a_gpu():
    on_cpu, on_cuda = (
        prose.reading(tables([memory_record(peak_reserved_bytes=reserved)])[MEMORY.file], ONE)
        for reserved in (None, 64 * MIB)
    )

    assert "main memory, not that of a GPU" in on_cpu
    assert "on the GPU" in on_cuda
    assert "Peak RSS" not in on_cuda


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


ROWS = tables(memory_records(ALL), ALL)[MEMORY.file]
FP32 = ROWS[ROWS["amp"] == "fp32"]


def words_of(figure) -> set[str]:
    return set(re.findall(r">([^<>]+)</text>", figure.html))


def test_every_part_and_base_stands_in_the_breakdown():
    figure = figures.breakdown(FP32, ALL)

    assert list(figure.panels) == ["fp32"]
    named = {"parameters", "optimizer", "saved: mlp", "saved: attention", "logits"}
    assert words_of(figure) >= named | {"measured peak", "respsann, off", "transformer, on"}


def test_a_kind_has_one_colour_in_all_panels(monkeypatch):
    rows = ROWS.copy()
    other = {"attention": 9.0, "mlp": 1.0}  # most is not what is most in fp32
    rows["predicted_kinds_mib"] = [
        other if amp == "bf16" else kinds
        for amp, kinds in zip(rows["amp"], rows["predicted_kinds_mib"], strict=True)
    ]
    seen, shades = [], figures.figures.shades
    monkeypatch.setattr(
        figures.figures, "shades", lambda names, **more: seen.append(names) or shades(names, **more)
    )

    figures.breakdown(rows, ALL)

    assert len(seen) >= 2
    assert all(names == seen[0] for names in seen)


def test_many_kinds_are_drawn_together_and_none_is_lost():
    kinds = {f"kind {i}": float(20 - i) for i in range(12)}
    row = FP32.iloc[0].to_dict() | {"predicted_kinds_mib": kinds}

    parts = figures.parts(row, list(kinds))

    saved = {name: size for name, size in parts.items() if name.startswith("saved: ")}
    assert len(saved) == figures.MOST_KINDS + 1
    assert sum(saved.values()) == sum(kinds.values())
    assert kinds_of(FP32) == ["mlp", "attention"], "those first that need most"


def test_a_bar_ends_at_the_peak_that_is_predicted():
    row = FP32.iloc[0].to_dict() | {"predicted_peak_mib": 20.0}

    parts = figures.parts(row, ["mlp", "attention"])

    at_the_loss = 2 + 4 + 10 + 1
    assert parts[figures.REST] == pytest.approx(20 - at_the_loss)
    assert sum(parts.values()) == pytest.approx(20)


def test_bars_of_the_committed_run_end_near_the_measured_points():
    rows = pd.DataFrame(json.loads(committed_run().text("memory.json")))
    rows = rows[(rows["status"] == "ok") & (rows["variant"] == "default")]

    ends = [sum(figures.parts(row, kinds_of(rows)).values()) for row in rows.to_dict("records")]

    assert ends == pytest.approx(list(rows["peak_allocated_mib"]), rel=WITHIN["peak"])


def test_growth_has_a_panel_for_what_was_varied():
    panels = [
        list(figures.growth(rows, ALL, "peak").panels)
        for rows in (FP32, FP32[FP32["batch_tokens"] == 32], FP32.assign(status="failed"))
    ]

    assert panels == [["fp32, by batch tokens", "fp32, by context"], ["fp32, by context"], []]
