"""The sentences of the throughput page whose words depend on the result."""

from collections.abc import Sequence

import pandas as pd

from psannlm.bench.statistics import FEWEST_REPEATS, SMALLEST_EFFECT
from psannlm.evidence import text
from psannlm.evidence.rows import Number
from psannlm.evidence.text import interval, number
from psannlm.pages.throughput.config import ThroughputConfig
from psannlm.pages.throughput.records import MODE
from psannlm.pages.throughput.tables import RATIO, SPEED, compared_rows


def answer(table: pd.DataFrame, config: ThroughputConfig) -> str:
    """What the table says, a sentence a mode and precision; every number is taken from it.

    Bases are compared at one batch: the largest that the baseline could run.
    """
    lines, baseline = [], config.baseline
    for (mode, precision), rows in compared_rows(table).groupby(["mode", "precision"], sort=False):
        of_baseline = rows[rows["base"] == baseline]
        if of_baseline.empty:
            continue
        top = of_baseline.loc[of_baseline["batch_tokens"].idxmax()]
        others = rows[(rows["batch_tokens"] == top.batch_tokens) & (rows["base"] != baseline)]
        said = "".join(
            f"; **{row.base}** at {interval(row.ratio, row.ratio_low, row.ratio_high, '.2f')} × "
            f"that speed ({row.verdict})"
            for row in others.itertuples()
        )
        lines.append(
            f"- {MODE.show(mode).capitalize()}, {precision}, {top.batch_tokens:,} tokens a step: "
            f"**{baseline}** runs at {top.tokens_per_s:,.0f} tokens/s, {number(top.mfu, '.0%')} "
            f"of the measured matmul ceiling{said}."
        )
    failed = int((table["status"] != "ok").sum())
    if failed:
        lines.append(
            f"- {failed} of {len(table)} rows failed; each is in the table with its reason."
        )
    if config.n_repeats < FEWEST_REPEATS:
        lines.append(
            f"- With {config.n_repeats} processes a row, no difference is called one: a verdict "
            f"needs {FEWEST_REPEATS}. These numbers prove that the page runs, no more."
        )
    return "\n".join(lines)


def reading(table: pd.DataFrame, config: ThroughputConfig) -> str:
    """How to read the table: its noise, its steps, its warm-up, all from the run."""
    floors = table.drop_duplicates(["mode", "precision", "batch_tokens"])["noise_floor"]
    eager = config.compile and not table.loc[table["status"] == "ok", "compiled"].all()
    lines = [
        f"- **Noise.** {config.baseline} was measured twice under two names. Across settings, the "
        f"ratio of the two strayed from 1 by up to {number(floors.max(), '.1%')}, its interval "
        f"included; a difference within that, or below {SMALLEST_EFFECT:.0%}, is *not separated*.",
        f"- **Replication.** Each row is {config.n_repeats} fresh processes, in blocks shuffled "
        "anew; intervals are over processes, ratios are paired within blocks.",
        "- **Speed** is all tokens over all time of the timed steps. Warm-up and compilation are "
        "apart.",
    ]
    if eager:
        lines.append(
            "- **Compilation** was asked for, but no C++ compiler was found: rows are eager."
        )
    return "\n".join(lines)


def summary(numbers: Sequence[Number]) -> str:
    """At the largest batch whose ratios are known, a training step before anything else."""
    baseline = numbers[0].run.manifest["parameters"]["baseline"]
    ratios = [n for n in numbers if n.column.name == RATIO and n.base != baseline]
    if not ratios:
        return f"Nothing but {baseline} was measured."
    known = [ratio for ratio in ratios if ratio.value is not None] or ratios
    best = max(known, key=_weight)
    here = [ratio for ratio in ratios if ratio.setting == best.setting]
    said = text.by_verdict((n.base, n.plain, n.verdict) for n in here)
    others = len({ratio.setting for ratio in ratios}) - 1
    more = f" {others} more setting{'s' * (others > 1)} on the page." if others else ""
    return f"Speed as a ratio to {baseline} ({best.setting}): {said}.{more}"


def _weight(number: Number) -> tuple[bool, int]:
    assert number.row is not None
    values = number.row.values
    return values["mode"] == "train_step", values["batch_tokens"]


def found(numbers: Sequence[Number]) -> str:
    """The fastest training step, or forward pass where none was measured."""
    speeds = [n for n in numbers if n.column.name == SPEED and n.value is not None]
    if not speeds:
        return "nothing was measured"
    steps = [n for n in speeds if _weight(n)[0]] or speeds
    best = max(steps, key=lambda n: n.value or 0.0)
    assert best.row is not None
    return f"{MODE.show(best.row.values['mode'])}: up to {best.shown} ({best.base})"
