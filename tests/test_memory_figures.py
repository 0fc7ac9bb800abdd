"""The figures of memory show every part and every base, whatever became of the rows."""

import json
import re

import pandas as pd
import pytest

from psannlm.pages.memory import figures as memory_figures
from psannlm.pages.memory.tables import PEAK_WITHIN, memory_tables
from psannlm.pages.memory.views import kinds_of
from tests.published import best
from tests.synthetic_memory import memory_config, memory_records

CONFIG = memory_config(n_repeats=1, precision=("fp32",))
ASKED = CONFIG.model_dump(mode="json")
ROWS = memory_tables(memory_records(CONFIG), (), CONFIG, timestamp="t", device="a CPU").rows


def words_of(figure) -> set[str]:
    return set(re.findall(r">([^<>]+)</text>", figure.html))


def test_every_part_and_base_stands_in_the_breakdown():
    figure = memory_figures.breakdown(ROWS, ASKED)

    assert list(figure.panels) == ["fp32"]
    parts = {"parameters", "optimizer", "saved: mlp", "saved: attention", "logits"}
    assert words_of(figure) >= parts | {"measured peak", "respsann, off", "transformer, on"}


def test_a_kind_has_one_colour_in_all_panels(monkeypatch):
    rows = pd.concat([ROWS, ROWS.assign(amp="bf16")], ignore_index=True)
    other = {"attention": 9.0, "mlp": 1.0}  # most is not what is most in fp32
    rows["predicted_kinds_mib"] = [
        other if amp == "bf16" else kinds
        for amp, kinds in zip(rows["amp"], rows["predicted_kinds_mib"], strict=True)
    ]
    asked = ASKED | {"precision": ["fp32", "bf16"]}
    seen = []
    shades = memory_figures.shades
    monkeypatch.setattr(
        memory_figures,
        "shades",
        lambda names, **options: seen.append(names) or shades(names, **options),
    )

    memory_figures.breakdown(rows, asked)

    assert len(seen) >= 2
    assert all(names == seen[0] for names in seen)


def test_a_bar_ends_at_the_peak_that_is_predicted():
    row = ROWS.iloc[0].to_dict() | {"predicted_peak_mib": 20.0}

    parts = memory_figures.parts(row, ["mlp", "attention"])

    at_the_loss = 2 + 4 + 10 + 1
    assert parts[memory_figures.REST] == pytest.approx(20 - at_the_loss)
    assert sum(parts.values()) == pytest.approx(20)
    assert list(parts) == [
        *memory_figures.STATE, "saved: mlp", "saved: attention", "logits", memory_figures.REST,
    ]  # fmt: skip


def test_bars_of_the_committed_run_end_near_the_measured_points():
    rows = pd.DataFrame(json.loads(best()["memory"].text("memory.json")))
    rows = rows[(rows["status"] == "ok") & (rows["variant"] == "default")]

    ends = [
        sum(memory_figures.parts(row, kinds_of(rows)).values()) for row in rows.to_dict("records")
    ]

    assert ends == pytest.approx(list(rows["peak_allocated_mib"]), rel=PEAK_WITHIN)


def test_many_kinds_are_drawn_together_and_none_is_lost():
    kinds = {f"kind {i}": float(20 - i) for i in range(12)}
    row = ROWS.iloc[0].to_dict() | {"predicted_kinds_mib": kinds}

    parts = memory_figures.parts(row, list(kinds))

    saved = {name: size for name, size in parts.items() if name.startswith("saved: ")}
    assert len(saved) == memory_figures.MOST_KINDS + 1
    assert sum(saved.values()) == sum(kinds.values())


def test_growth_has_a_panel_for_what_was_varied():
    figure = memory_figures.growth(ROWS, ASKED, "peak")

    assert list(figure.panels) == ["fp32, by batch tokens", "fp32, by context"]
    assert words_of(figure) >= {"respsann, off", "transformer, on"}


def test_what_was_not_varied_has_no_panel():
    alone = ROWS[ROWS["batch_tokens"] == 32]

    figure = memory_figures.growth(alone, ASKED, "saved")

    assert list(figure.panels) == ["fp32, by context"]


def test_a_table_in_which_everything_failed_still_draws():
    failed = ROWS.assign(status="failed", peak_allocated_mib=None, saved_mib=None)

    assert "<svg" in memory_figures.breakdown(failed, ASKED).html
    assert memory_figures.growth(failed, ASKED, "peak").panels == {}
