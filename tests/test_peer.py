"""The comparison's records, tables, verification, sentences, figure, numbers and repeats."""

import csv
import io
import re
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from psannlm.evidence.page import RerunRequest
from psannlm.evidence.runs import load
from psannlm.evidence.store import to_csv
from psannlm.files import MIB
from psannlm.pages.peer import page as peer_page
from psannlm.pages.peer.page import PAGE
from psannlm.pages.peer.plan import plan
from psannlm.pages.peer.records import AGAIN, OURS, PUBLISHED, SIDES, STORE
from psannlm.pages.peer.tables import BESIDE, pairs
from tests import pages
from tests.forging import forge
from tests.peers import (
    SPEEDS,
    failed_cell,
    peer_cell,
    peer_config,
    peer_records,
    peer_run,
    protocol_cell,
    protocol_cells,
)

ONE = {"base": ("respsann",), "setting": ("best",)}
CONFIG = peer_config(**ONE)


def tables(records, config=CONFIG):
    return PAGE.tabulate(records, pages.info_of(PAGE, config, records))


def table(records, config=CONFIG):
    return tables(records, config)["peer.csv"]


def row(rows, side, work="train_step"):
    [found] = rows[(rows["side"] == side) & (rows["work"] == work)].to_dict("records")
    return found


def blocks(*seconds):
    """A training step of 32 tokens: of each block the seconds of every side."""
    return [
        peer_cell(repeat=block, side=side, seconds=(second,))
        for block, of_block in enumerate(seconds)
        for side, second in zip(SIDES, of_block, strict=True)
    ]


def sizes(*found, **changes):
    """Of each side the bytes that it saves for backward."""
    return [
        peer_cell(side=side, work="saved", seconds=(), saved_bytes=size, **changes)
        for side, size in zip(SIDES, found, strict=True)
    ]


# Configuration and records.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_tokens": 33}, "batch_tokens must be a multiple of context_length, got 33 and 16"),
        (
            {"prompt_tokens": 10, "new_tokens": 7},
            "prompt_tokens and new_tokens must fit in context_length, got 10, 7 and 16",
        ),
        ({"setting": ("fastest",)}, "setting"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes, words):
    with pytest.raises(ValidationError, match=words):
        peer_config(**changes)


def test_records_come_back_from_their_files():
    records = [
        *peer_records(peer_config(n_repeats=2)),
        failed_cell('a comma, a "quote"\nand a second line', repeat=9),
        *protocol_cells(),
    ]

    assert STORE.records(STORE.texts(records)) == records
    assert len({record.key for record in records}) == len(records)


# Tables.


def test_every_side_base_setting_work_and_precision_is_a_row():
    config = peer_config(n_repeats=1, precision=("fp32", "bf16"))

    rows = table(peer_records(config), config)

    assert len(rows) == 3 * 2 * 2 * 2 * 2
    assert not rows.duplicated(["side", "base", "setting", "work", "precision"]).any()
    assert rows["device"].all()


def test_speeds_and_ratios_are_those_of_the_samples_paired_by_block():
    # The second block is three times as slow for all, which pairs do not see.
    rows = table(blocks((1.0, 1.0, 2.0), (3.0, 3.3, 6.0)))

    ours, again, published = (row(rows, side) for side in SIDES)
    assert ours["value"] == pytest.approx((32 + 32 / 3) / 2)
    assert published["value"] == pytest.approx((16 + 16 / 3) / 2)
    assert (ours["unit"], ours["ratio"], ours["verdict"]) == ("tokens/s", 2, "not separated")
    assert (ours["ratio_low"], ours["ratio_high"]) == (2, 2)
    assert again["ratio"] == pytest.approx((1 + 3 / 3.3) / 2)
    assert (again["verdict"], published["verdict"]) == ("noise floor", "baseline")
    reach = max(abs(again["ratio_low"] - 1), abs(again["ratio_high"] - 1))
    assert list(rows["noise_floor"]) == [reach] * 3
    assert reach == pytest.approx(1 - 3 / 3.3)


@pytest.mark.parametrize(
    ("speed", "n_repeats", "word"),
    [
        (1500.0, 6, "faster"),
        (800.0, 6, "slower"),
        (1004.0, 6, "not separated"),
        (1500.0, 5, "not separated"),
    ],
)
def test_a_verdict_needs_a_difference_and_repeats(speed, n_repeats, word):
    config = peer_config(**ONE, n_repeats=n_repeats)
    speeds = {OURS: speed, AGAIN: speed, PUBLISHED: 1000.0}

    assert row(table(peer_records(config, speeds=speeds), config), OURS)["verdict"] == word


@pytest.mark.parametrize(
    ("ours", "word"), [(4 * MIB, "fewer"), (10 * MIB, "equal"), (10 * MIB + 1, "more")]
)
def test_bytes_are_compared_exactly_by_the_most_of_any_block_without_an_interval(ours, word):
    fewer = sizes(MIB, MIB, 10 * MIB, repeat=1)

    found = row(table([*sizes(ours, ours, 10 * MIB), *fewer]), OURS, "saved")

    assert (found["value"], found["unit"]) == (ours / MIB, "MiB")
    assert (found["ratio"], found["verdict"]) == (ours / (10 * MIB), word)
    assert pd.isna([found["value_low"], found["ratio_low"], found["noise_floor"]]).all()


def test_a_side_that_failed_stands_there_with_its_reason_and_ours_without_a_ratio():
    rows = table(peer_records(CONFIG, failing=[PUBLISHED]))

    for work in ("train_step", "saved"):
        failed, ours = row(rows, PUBLISHED, work), row(rows, OURS, work)
        assert (failed["status"], failed["reason"]) == ("failed", "cannot be installed")
        assert (failed["n_ok"], failed["n_failed"]) == (0, 6)
        assert pd.isna([failed["value"], ours["ratio"]]).all()
        assert ours["verdict"] == "not compared"
        assert ours["value"] > 0
    assert set(pairs(rows)["result"]) == {"published failed: cannot be installed"}
    both = pairs(table(peer_records(CONFIG, failing=[OURS, PUBLISHED])))
    assert set(both["result"]) == {
        "ours failed: cannot be installed; published failed: cannot be installed"
    }


def test_a_process_that_failed_leaves_the_others_of_its_row():
    first, *rest = peer_records(CONFIG)

    ours = row(table([failed_cell("killed", work=first.work), *rest]), OURS)

    assert (ours["n_ok"], ours["n_failed"], ours["status"]) == (5, 1, "ok")
    assert ours["reason"] == "killed"
    assert ours["verdict"] == "not separated", "five pairs are too few"


def test_both_packages_stand_in_one_row_as_people_read_it():
    view = BESIDE.view(pairs(table([*blocks((0.02, 0.02, 0.04)), *sizes(MIB, MIB, 4 * MIB)])))

    assert list(view["mode"]) == ["training step", "saved for backward"]
    assert [cell.split(" ")[0] for cell in view["ours"]] == ["1,600.0", "1.0"]
    assert [cell.split(" ")[0] for cell in view["published"]] == ["800.0", "4.0"]
    assert list(view["ours / published"]) == ["2.000", "0.250"]
    assert list(view["verdict"]) == ["not separated", "fewer"]


def test_the_protocol_is_a_row_a_measure_with_its_unit():
    failed = protocol_cell(measure="elapsed_s", value=None, status="failed", reason="no GPU")

    rows = tables([*protocol_cells(), failed])["protocol.csv"]

    assert list(rows["unit"]) == ["tokens/s", "MiB"] * 2 + ["s"]
    assert list(rows["value"].dropna()) == [SPEEDS[OURS], SPEEDS[PUBLISHED]]
    view = PAGE.tables[1].view(rows)
    assert list(view["measure"])[:2] == ["speed", "peak allocated"]
    assert list(view["value"])[:2] == ["1,500", "—"]
    assert list(view["why not"])[1:] == ["of a GPU alone", "", "of a GPU alone", "no GPU"]


# Verification.


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """An honest run, to be copied."""
    return peer_run(tmp_path_factory.mktemp("honest"), **ONE)


@pytest.fixture
def folder(honest, tmp_path):
    """A run of the test's own."""
    return shutil.copytree(honest, tmp_path / "benchmarks" / honest.name)


def refusal(folder) -> str:
    """All problems of a run."""
    return "\n".join(pages.problems(PAGE, folder))


def test_an_honest_run_passes_also_one_in_which_the_package_could_not_be_installed(
    folder, tmp_path
):
    records = peer_records(peer_config(), failing=[PUBLISHED])
    lost = {"value": None, "status": "failed", "reason": "no package"}
    protocol = [protocol_cell(), protocol_cell(side=PUBLISHED, **lost)]

    assert refusal(folder) == ""
    assert refusal(peer_run(tmp_path / "b", records=records, protocol=protocol)) == ""


ROW = r"peer\.csv: row \d, ours.* respsann best train_step fp32"


@pytest.mark.parametrize(
    ("file", "column", "lie", "problem"),
    [
        ("peer.csv", "value", "2.5", rf"{ROW}: value is '2.5', the records give"),
        ("peer.csv", "ratio_high", "2.5", rf"{ROW}: ratio_high is '2.5', the records give"),
        ("peer.csv", "noise_floor", "2.5", rf"{ROW}: noise_floor is '2.5', the records give"),
        ("peer.csv", "verdict", "slower", "verdict is 'slower', the records give 'faster'"),
        ("peer.csv", "n_ok", "7", "n_ok is '7', the records give"),
        ("peer.csv", "timestamp", "20260101_000000", "timestamp is '20260101_000000', the"),
        ("peer.csv", "device", "a faster one", "device is 'a faster one', the records give"),
        ("samples.csv", "seconds", "2.5", rf"{ROW}: value is"),
        ("cells.csv", "saved_bytes", "9876543", r"peer\.csv: row \d, ours.* saved fp32: value is"),
        ("protocol_records.csv", "value", "2.5", r"protocol\.csv: row \d, ours.*: value is"),
    ],
)
def test_a_forged_field_is_named(folder, file, column, lie, problem):
    def lying(text):
        """The first row that has anything in the column."""
        head, *rows = csv.reader(io.StringIO(text))
        at = head.index(column)
        next(row for row in rows if row[at])[at] = lie
        return to_csv(head, rows)

    forge(folder, file, lying)

    assert re.search(problem, refusal(folder))


def test_a_process_that_is_missing_or_stands_there_twice_or_was_not_asked_for_is_named(tmp_path):
    first, *rest = peer_records(CONFIG)
    more = peer_records(peer_config(base=("respsann", "waveresnet"), setting=("best",)))

    missing, unasked = ("\n".join(PAGE.bounds(records, CONFIG)) for records in (rest, more))
    twice = refusal(peer_run(tmp_path, records=[first, first, *rest], **ONE))

    name = "0, ours, respsann, best, train_step, fp32"
    assert f"cells.csv: no row for {name}, which was asked for" in missing
    assert "two of its records have one key" in twice
    assert re.search(r"cells\.csv: \d, .*, waveresnet, best, .*, fp32 was not asked for", unasked)


BOTH = [{"side": OURS}, {"side": PUBLISHED}]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (peer_cell(seconds=(0.5, -0.1)), "seconds must be finite and positive"),
        (peer_cell(seconds=(0.5, float("inf"))), "seconds must be finite and positive"),
        (peer_cell(seconds=()), "no step was timed"),
        (peer_cell(tokens=32, work="generate"), "tokens is 32, a step has 5"),
        (peer_cell(tokens=64), "tokens is 64, a step has 32"),
        (peer_cell(batch_tokens=64), "its shape is not that of the run"),
        (peer_cell(work="saved", saved_bytes=0), "saved_bytes must be positive, got 0"),
        (peer_cell(work="saved"), "saved_bytes must be positive, got None"),
        (peer_cell(reason="slow"), "status ok with reason 'slow'"),
        (failed_cell(""), "status failed with reason ''"),
    ],
)
def test_what_no_process_could_leave_is_named(cell, message):
    problem = f"cells.csv: 0, ours, respsann, best, {cell.work}, fp32: {message}"

    assert problem in "\n".join(PAGE.bounds([cell], peer_config()))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([], "0 records, which is not what was asked for"),
        (protocol_cells()[:2], "no row of published for GPU-03, respsann, 32, tokens_per_s"),
        ([protocol_cell(**side, value=-1.0) for side in BOTH], "at least 0, got -1.0"),
        (
            [protocol_cell(**side, value=None, status="failed") for side in BOTH],
            "None, status failed, has reason ''",
        ),
        ([protocol_cell(**side, value=None) for side in BOTH], "None, status ok, has"),
        ([protocol_cell(**side, status="failed") for side in BOTH], "status failed, has"),
    ],
)
def test_a_protocol_that_is_not_whole_or_not_possible_is_named(cells, message):
    problem = "\n".join(PAGE.bounds([*peer_records(CONFIG), *cells], CONFIG))

    assert problem.startswith("protocol_records.csv: ")
    assert message in problem


# Sentences, figure, numbers.


def told(config, **changes):
    """Tables and run of made-up records."""
    return tables(peer_records(config, **changes), config), pages.info_of(PAGE, config, ())


def test_the_answer_tells_best_settings_first_with_the_interval_of_each_row():
    found, run = told(peer_config())
    rows = found["peer.csv"]
    first = row(rows[(rows["base"] == "respsann") & (rows["setting"] == "best")], OURS)

    best, defaults = PAGE.answer(found, run).splitlines()

    opening = "- **Ours as a ratio to psannlm 2.0.1**, "
    assert best.startswith(f"{opening}each with its fastest choices, fp32 (95% intervals): ")
    assert defaults.startswith(f"{opening}each by its defaults, fp32 (95% intervals): ")
    around = "{ratio:.2f} ({ratio_low:.2f} – {ratio_high:.2f})".format(**first)
    assert f"training step **respsann** {around} × (faster), **sgrpsann** 1.5" in best
    assert "; saved for backward **respsann** 0.40 × (fewer), **sgrpsann** 0.40" in best
    slow = {OURS: 800.0, AGAIN: 800.0, PUBLISHED: 1000.0}
    assert PAGE.answer(*told(peer_config(), speeds=slow)).count("(slower)") == 4


def test_what_failed_is_counted_with_its_reason_and_no_ratio_is_made_up():
    assert PAGE.answer(*told(peer_config(), failing=[PUBLISHED])) == (
        "- 8 of 24 rows failed, which leaves 8 of ours without a ratio: cannot be installed."
    )
    nothing = told(peer_config(), failing=SIDES)
    assert PAGE.answer(*nothing).startswith("- 24 of 24 rows failed: ")
    assert "by up to —" in PAGE.reading(*nothing)


@pytest.mark.parametrize(
    ("n", "words"),
    [(1, "With 1 fresh process a row"), (5, "With 5 fresh processes a row"), (6, "")],
)
def test_too_few_repeats_are_said(n, words):
    said = PAGE.answer(*told(peer_config(n_repeats=n)))

    assert words in said
    assert ("no difference of speed is called one" in said) == bool(words)


def test_a_panel_stands_for_each_work_and_precision_with_every_base_and_setting():
    figure = PAGE.figures(*told(peer_config()))["ratios"]
    nothing = PAGE.figures(*told(CONFIG, failing=[PUBLISHED]))["ratios"]

    assert list(figure.panels) == ["training step, fp32", "saved for backward, fp32"]
    for name, panel in figure.panels.items():
        words = set(re.findall(r">([^<>]+)</text>", panel))
        of = "bytes" if name.startswith("saved") else "speed"
        assert words >= {"respsann", "sgrpsann", "defaults", "best", f"ours / published, {of}"}
    assert not nothing.panels
    assert "could be compared" in nothing.caption


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of all bases and settings."""
    return load(peer_run(tmp_path_factory.mktemp("reports")))


def test_only_our_own_rows_measured_once_are_numbers(run):
    numbers = {number.name: number for number in PAGE.numbers(run)}

    assert len(numbers) == 2 * 2 * 2
    speed = numbers["peer.sgrpsann.best.train_step.fp32.ratio"]
    assert (speed.column.compare, speed.column.better) == ("noise", "higher")
    assert (speed.unit, speed.verdict) == ("× psannlm==2.0.1", "faster")
    assert speed.about == "sgrpsann, best, training step, fp32, 32 tokens a step"
    size = numbers["peer.sgrpsann.best.saved.fp32.ratio"]
    assert (size.value, size.low, size.verdict) == (0.4, None, "fewer")
    assert (size.column.compare, size.column.better) == ("counted", "lower")
    assert size.quantity != speed.quantity


def test_the_landing_page_and_the_table_of_runs_tell_every_setting(run):
    numbers = {n.name: n for n in PAGE.numbers(run) if PAGE.is_headline(n.row, n.column)}

    said = PAGE.summary(list(numbers.values()))

    for name in ("*each with its fastest choices*: ", "*each by its defaults*: "):
        part = said.split(name)[1].split("*each")[0]
        assert re.search(r"\*\*faster\*\* respsann training step 1\.(49|50)", part)
        assert "**fewer** respsann saved for backward 0.400" in part
    defaults, best = (
        numbers[f"peer.respsann.{setting}.train_step.fp32.ratio"].value
        for setting in ("defaults", "best")
    )
    assert PAGE.found(run) == (
        f"respsann, training step: {defaults:.2f} (defaults) and {best:.2f} (best) × the "
        "published package"
    )


def test_a_run_without_a_ratio_has_no_headline_and_says_so(tmp_path):
    run = load(peer_run(tmp_path, records=peer_records(peer_config(), failing=[PUBLISHED])))

    assert not [n for n in PAGE.numbers(run) if PAGE.is_headline(n.row, n.column)]
    assert PAGE.found(run) == "nothing was measured"


# Repeats.


@pytest.fixture
def row_of(run):
    """A row of the run, or what stands in it of another cell."""

    def choose(**changes):
        cell = peer_cell(**changes)
        rows = (r for r in PAGE.rows(run) if r.values["side"] == cell.side)
        found = next(r for r in rows if r.values["work"] == cell.work)
        return replace(found, values=found.values | vars(cell))

    return choose


def test_a_row_is_measured_with_all_sides_but_without_the_works_after_it(row_of, monkeypatch):
    asked = []
    monkeypatch.setattr(peer_page, "compare", lambda config: asked.append(config) or iter(()))

    PAGE.measure_again(row_of(), RerunRequest(peer_config(), torch.device("cpu"), 2, str), [])

    [config] = asked
    assert (config.work, config.n_repeats) == (("train_step",), 2)
    assert config.protocol_batch_tokens == ()
    cells = plan(config)
    assert {(c.setting.base, c.setting.setting) for c in cells} == {("respsann", "best")}
    assert len(cells) == 6


@pytest.mark.parametrize(("side", "ratio"), [(OURS, 2.0), (AGAIN, 0.5), (PUBLISHED, None)])
def test_speeds_are_by_block_and_ratios_to_the_other_side(row_of, side, ratio):
    records, one = blocks((0.5, 1.0, 1.0), (1.0, 2.0, 2.0)), row_of(side=side)

    found = PAGE.replicates(records, one, CONFIG)

    mine = {r.repeat: r.amount for r in records if r.side == side}
    assert found == {"value": mine} | ({"ratio": {0: ratio, 1: ratio}} if ratio else {})
    assert PAGE.replicates(records[:2], one, CONFIG)["value"].keys() <= {0}


def test_bytes_are_those_of_the_side_alone_and_failures_tell_their_reason(row_of):
    one, lost = row_of(work="saved"), failed_cell("killed", work="saved")

    assert PAGE.replicates(sizes(MIB, MIB, 3 * MIB), one, CONFIG) == {"value": {0: 1.0}}
    assert PAGE.replicates([lost], one, CONFIG) == {"value": {}}
    assert PAGE.failures([lost], one) == ["killed"]


@pytest.mark.parametrize(
    ("work", "expected"), [("train_step", ("noise", "tokens/s")), ("saved", ("counted", "MiB"))]
)
def test_a_value_is_judged_as_what_it_is(row_of, work, expected):
    column = PAGE.column_of(row_of(work=work), PAGE.tables[0]["value"])

    assert (column.compare, column.unit) == expected
