"""The throughput page: what is planned, tabulated of records, said, refused and repeated."""

import re
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
import torch

from psannlm.evidence.page import RerunRequest
from psannlm.evidence.runs import EvidenceError, load
from psannlm.pages.throughput import figures, plan, prose
from psannlm.pages.throughput.page import PAGE
from psannlm.pages.throughput.plan import cells_of_row, labels, throughput
from psannlm.pages.throughput.records import CEILING, STORE
from psannlm.pages.throughput.tables import THROUGHPUT, best_rows
from psannlm.rerun.outcome import compared
from psannlm.run.check import check
from tests.forging import forge, with_more
from tests.pages import info_of, pretend
from tests.synthetic import PUBLISHED, record, throughput_config, throughput_records, throughput_run

BASES = ("respsann", "sgrpsann", "waveresnet")
CONFIG = throughput_config(base=BASES, mode=("train_step",))
SPEEDS = {"respsann": 800.0, "sgrpsann": 1001.0, "waveresnet": 1200.0, "transformer": 1000.0}
SETTINGS = throughput_config(
    base=("respsann", "sgrpsann", "transformer"), batch_tokens=(32, 64), n_repeats=3
)
FAILURE = {"status": "failed", "reason": 'out of memory: "tried", 3\nlines', "seconds": ()}


def table_of(records, config=CONFIG):
    return PAGE.tabulate(records, info_of(PAGE, config, records))[THROUGHPUT.file]


def by_label(records, config=CONFIG):
    return table_of(records, config).set_index("label", drop=False)


def changed(records, **changes):
    """Those of respsann, changed."""
    return [replace(r, **changes) if r.label == "respsann" else r for r in records]


def test_records_survive_their_files():
    awkward = record(label="transformer (again)", **FAILURE)
    exact = record(repeat=1, seconds=(0.1, 1 / 3, 2e-7), loss=1 / 7, compile_seconds=0.0)

    assert STORE.records(STORE.texts([awkward, exact])) == [awkward, exact]


def test_samples_of_a_cell_that_has_no_row_are_left_out():
    measured, torn = record(repeat=0), record(repeat=1)
    texts = STORE.texts([measured]) | {"samples.csv": STORE.texts([measured, torn])["samples.csv"]}

    assert STORE.records(texts) == [measured]


def test_throughput_is_all_tokens_over_all_time():
    uneven = record(batch_tokens=100, flops=1000, seconds=(1.0, 3.0))

    # The mean of 100 and 33.3 tokens/s would be 66.7.
    assert (uneven.tokens_per_s, uneven.flop_per_s) == (50.0, 500.0)


def test_a_small_run_is_tabulated_as_by_hand():
    config = throughput_config(n_repeats=2)
    rates = {"respsann": (40, 60), "transformer": (80, 80), "transformer (again)": (80, 80)}
    records = [
        record(repeat=i, label=label, base=label.split()[0], flops=640, seconds=(32 / rate,) * 2)
        for label, speeds in rates.items()
        for i, rate in enumerate(speeds)
    ]
    ceiling = {"label": CEILING, "base": CEILING, "mode": CEILING, "batch_tokens": 0}
    records += [record(**ceiling, flops=4000, seconds=(1.0,))]

    row = by_label(records, config).loc["respsann"]

    assert row["tokens_per_s"] == 50.0  # median of 40 and 60
    assert row["ratio"] == pytest.approx(0.625)  # of 0.5 and 0.75
    assert row["step_seconds"] == pytest.approx(0.64)
    assert row["flop_per_s"] == pytest.approx(1000.0)  # 640 FLOP at 0.8 s and at 0.533 s
    assert row["mfu"] == pytest.approx(0.25)
    assert row["noise_floor"] == 0.0
    assert row["peak_rss_mib"] == 256.0
    assert (row["n_ok"], row["status"]) == (2, "ok")


def test_verdicts_follow_the_true_speeds():
    table = by_label(throughput_records(CONFIG, SPEEDS))

    assert table["verdict"].to_dict() == {
        "respsann": "slower",
        "sgrpsann": "not separated",
        "waveresnet": "faster",
        "transformer": "baseline",
        "transformer (again)": "noise floor",
    }
    # Noise of 0.2% a process: medians of six lie within 1%.
    assert table.loc["waveresnet", "ratio"] == pytest.approx(1.2, rel=0.01)
    assert list(table.columns)[:4] == ["timestamp", "base", "batch_tokens", "tokens_per_s"]


def test_a_noisy_baseline_takes_the_verdict_away():
    noisy = throughput_records(CONFIG, SPEEDS | {"transformer (again)": 700.0})

    assert by_label(noisy).loc["waveresnet", "verdict"] == "not separated"


def test_without_a_ceiling_the_share_of_it_is_unknown():
    records = [r for r in throughput_records(CONFIG, SPEEDS) if r.mode != CEILING]

    assert table_of(records)["mfu"].isna().all()


@pytest.mark.parametrize(("share", "status"), [(0.9, "ok"), (1.1, "refused"), (5.0, "refused")])
def test_a_row_faster_than_its_ceiling_is_refused(share, status):
    records = throughput_records(CONFIG, SPEEDS)
    one = by_label(records).loc["respsann"]
    flops = round(share / one["mfu"] * next(r for r in records if r.label == "respsann").flops)

    row = by_label(changed(records, flops=flops)).loc["respsann"]

    assert row["status"] == status
    assert (row["reason"] == "faster than the measured matmul ceiling") == (status == "refused")


def test_failures_are_counted_and_a_base_that_always_failed_says_why():
    records = throughput_records(CONFIG, SPEEDS)
    once = [r if r.repeat else changed([r], **FAILURE)[0] for r in records]

    always, sometimes = (
        by_label(found).loc["respsann"] for found in (changed(records, **FAILURE), once)
    )

    assert list(always[["status", "reason", "n_failed"]]) == ["failed", FAILURE["reason"], 6]
    assert (sometimes["n_ok"], sometimes["n_failed"], sometimes["status"]) == (5, 1, "ok")
    assert sometimes["verdict"] == "not separated", "five processes give no verdict"


def test_the_best_rows_are_the_fastest_batch_of_each_base():
    config = throughput_config(batch_tokens=(32, 64), n_repeats=1)
    records = [
        replace(r, seconds=(r.seconds[0] / 2,)) if r.batch_tokens == 64 else r
        for r in throughput_records(config, SPEEDS)
    ]

    best = best_rows(table_of(records, config))

    assert set(best["label"]) == {"respsann", "transformer"}
    assert set(best["batch_tokens"]) == {64}


def test_every_block_has_every_cell_once_in_an_order_of_its_own():
    cells = plan.plan(SETTINGS)
    seen = Counter((c.repeat, c.label, c.batch_tokens, c.precision) for c in cells)
    orders = {tuple(c.label for c in cells if c.repeat == repeat) for repeat in range(3)}

    assert set(seen.values()) == {1}
    assert len(cells) == 3 * (4 * 2 + 1)
    assert len(orders) == 3
    assert cells == plan.plan(SETTINGS)
    assert [c.repeat for c in cells if c.base == CEILING] == [0, 1, 2]


def test_a_baseline_that_was_not_asked_for_is_measured_all_the_same_and_twice():
    assert set(labels(throughput_config())) == {"respsann", "transformer", "transformer (again)"}


@pytest.fixture
def measured(monkeypatch):
    return pretend(monkeypatch, plan, lambda task: {"status": "failed", "reason": "pretended"})


def test_a_failed_cell_is_a_record_with_its_reason(measured):
    records = [record for cell in throughput(SETTINGS) for record in cell]

    assert len(records) == PAGE.total(SETTINGS)
    assert {r.reason for r in records} == {"pretended"}


def test_cells_that_are_done_are_not_measured_again_unless_a_mode_is_missing(measured):
    both = throughput_config(mode=("forward", "train_step"), n_repeats=1)
    whole = {(0, "respsann", 32, mode, "fp32") for mode in both.mode}

    list(throughput(both, done=whole))
    n_measured = len(measured)
    list(throughput(both, done={(0, "respsann", 32, "forward", "fp32")}))

    assert n_measured == PAGE.total(both) - 1
    assert len(measured) == n_measured + PAGE.total(both)


ANSWERED = throughput_config()
TABLE = table_of(throughput_records(ANSWERED, SPEEDS, noise=0.0), ANSWERED)


def said_by(sentences, table, config=ANSWERED):
    return sentences({THROUGHPUT.file: table}, info_of(PAGE, config, ()))


def test_the_answer_states_speed_ratio_and_verdict():
    said = said_by(prose.answer, TABLE)

    assert "**transformer** runs at 1,000 tokens/s" in said
    assert "**respsann** at 0.80 (0.80 – 0.80) × that speed (slower)" in said
    assert "a verdict needs 6" not in said
    assert "a verdict needs 6" in said_by(prose.answer, TABLE, throughput_config(n_repeats=2))
    failed = TABLE.assign(status=["failed", "ok", "ok"])
    assert "1 of 3 rows failed" in said_by(prose.answer, failed, ANSWERED)


def test_bases_are_compared_at_the_largest_batch_that_the_baseline_could_run():
    larger = TABLE.assign(batch_tokens=64)
    larger.loc[larger["base"] == "transformer", "status"] = "failed"

    said = said_by(prose.answer, pd.concat([TABLE, larger], ignore_index=True), ANSWERED)

    assert "32 tokens a step" in said
    assert "64 tokens" not in said


def test_compilation_that_did_not_happen_is_said():
    asked = throughput_config(compile=True)
    said = said_by(prose.reading, TABLE, asked)

    assert "3 of 3 rows are eager: no C++ compiler was found" in said
    assert "rows are eager" not in said_by(prose.reading, TABLE, ANSWERED)
    assert "rows are eager" not in said_by(prose.reading, TABLE.assign(compiled=True), asked)
    one = TABLE.assign(compiled=[True, False, True], eager=["", "Python.h is missing", ""])
    assert "1 of 3 rows are eager: Python.h is missing" in said_by(prose.reading, one, asked)


def test_a_row_is_compiled_if_all_its_processes_were():
    config = throughput_config()
    records = throughput_records(config, PUBLISHED)
    fast = [replace(r, compiled=True, frames=1, graph_breaks=0) for r in records]
    half = [replace(r, compiled=False, eager="no") if r.repeat == 2 else r for r in fast]

    for given, expected in ((fast, (True, "")), (half, (False, "no"))):
        row = PAGE.tabulate(given, info_of(PAGE, config, given))[THROUGHPUT.file].iloc[0]
        assert (row["compiled"], row["eager"]) == expected


def test_the_readme_of_a_run_has_its_best_numbers():
    text = PAGE.readme({THROUGHPUT.file: TABLE}, info_of(PAGE, ANSWERED, []))

    assert "| respsann | forward | fp32 | 32 tokens a step | 800 (800 – 800) |" in text


def test_figures_show_every_label_and_draw_whatever_became_of_the_rows():
    words = set(re.findall(r">([^<>]+)</text>", figures.speed(TABLE).html))

    assert set(TABLE["label"]) <= words
    assert "<svg" in figures.speed(TABLE.assign(status="failed")).html
    assert "<svg" in figures.ceiling(TABLE.assign(status="failed")).html


def test_numbers_are_named_once_and_the_baseline_has_no_ratio(tmp_path):
    run = load(throughput_run(tmp_path))
    found = {number.name: number for number in PAGE.numbers(run)}

    assert set(found) == {
        "throughput.respsann.32.forward.fp32.tokens_per_s",
        "throughput.respsann.32.forward.fp32.ratio",
        "throughput.transformer.32.forward.fp32.tokens_per_s",
        "throughput.transformer.32.forward.fp32.again.tokens_per_s",
        "throughput.transformer.32.forward.fp32.again.ratio",
    }
    ratio = found["throughput.respsann.32.forward.fp32.ratio"]
    assert (ratio.unit, ratio.verdict, ratio.row.number) == ("× transformer", "slower", 1)
    assert ratio.about == "respsann, 32 tokens a step, forward, fp32"
    headlines = [n for n in found.values() if PAGE.is_headline(n.row, n.column)]
    assert len(headlines) == 3
    assert "**slower** respsann" in PAGE.summary(headlines)
    assert PAGE.found(run).startswith("forward: up to ")


NUMBERS = ("tokens_per_s", "step_seconds", "flop_per_s", "mfu", "ratio", "noise_floor")


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        *(("throughput.csv", with_more(n), rf"csv: row 1, respsann.*{n} is") for n in NUMBERS),
        ("throughput.csv", lambda t: t.replace(",slower,", ",faster,"), "verdict is 'faster'"),
        ("samples.csv", with_more("seconds"), r"csv: row 1, .* is .*, the records give"),
        ("throughput.csv", lambda t: t.rsplit("\n", 2)[0] + "\n", "2 rows, the records give 3"),
    ],
    ids=[*NUMBERS, "verdict", "samples", "row"],
)
def test_what_contradicts_the_samples_is_named(tmp_path, file, change, message):
    folder = throughput_run(tmp_path)
    check(load(folder))
    forge(folder, file, change)

    with pytest.raises(EvidenceError, match=message):
        check(load(folder))


@pytest.fixture
def row(tmp_path):
    return PAGE.rows(load(throughput_run(tmp_path)))[0]


def repeated(row, speeds, *, no_verdict="", **changes):
    """What three new processes a row say, by the name of the quantity."""
    config = throughput_config()
    old = throughput_records(config, PUBLISHED)
    few = config.model_copy(update={"n_repeats": 3})
    new = changed(throughput_records(few, speeds, seed=1), **changes)
    request = RerunRequest(config, torch.device("cpu"), 3, print, no_verdict=no_verdict)
    return {q.name: q.inside for q in compared(PAGE, row, request, old, new).quantities}


SPEED, RATIO = "speed, tokens/s", "speed as a ratio to transformer, × transformer"
CEILING_SHOWN = "Fastest matrix product measured in the same run, FLOP/s"


@pytest.mark.parametrize(
    ("speeds", "inside"),
    [
        (PUBLISHED, (True, True)),
        ({"respsann": 450.0, "transformer": 500.0}, (False, True)),
        ({"respsann": 800.0, "transformer": 1000.0}, (False, False)),
    ],
    ids=["the same", "a slower machine", "a slower base"],
)
def test_a_repeat_is_held_to_the_published_processes(row, speeds, inside):
    assert repeated(row, speeds) == {SPEED: inside[0], RATIO: inside[1], CEILING_SHOWN: None}


def test_on_another_device_speeds_are_shown_and_not_judged(row):
    found = repeated(row, {"respsann": 1.0, "transformer": 9.0}, no_verdict="another machine")

    assert set(found.values()) == {None}


def test_a_row_that_fails_now_is_outside(row):
    assert repeated(row, PUBLISHED, **FAILURE) == {"status": False, CEILING_SHOWN: None}


def test_the_cells_of_a_row_are_it_the_baseline_and_the_ceiling_interleaved(row):
    config = throughput_config(
        base=("respsann", "waveresnet"), batch_tokens=(32, 64), mode=("forward", "train_step"),
        n_repeats=2,
    )  # fmt: skip

    cells = cells_of_row(row.values, config)

    assert {(cell.label, cell.batch_tokens) for cell in cells} == {
        ("respsann", 32), ("transformer", 32), (CEILING, 0)
    }  # fmt: skip
    assert [cell.repeat for cell in cells] == [0, 0, 0, 1, 1, 1]
    assert {cell.modes for cell in cells} == {("forward",), (CEILING,)}
