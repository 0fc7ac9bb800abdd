"""The figures of the history: main numbers of a page on one machine, run after run, by base."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from textwrap import fill

import numpy as np

from psannlm.evidence.figures import Axes, Draw, Figure, compose, markers, palette, show_short
from psannlm.publish.numbers import Number
from psannlm.publish.trends import FEWEST, Trend

MOST_TICKS = 4
TITLE_WIDTH = 50
"""Characters of a line above a panel."""

MOST_PANELS = 4
"""Of one figure; what else was measured is in the table of best numbers and in the files."""


def figures(trends: Sequence[Trend], base: str = "") -> Iterator[Figure]:
    """One figure a trend of enough runs; of one base alone if it is named."""
    for trend in trends:
        if len(trend.runs) >= FEWEST and trend.series(base):
            yield figure(trend, base)


def figure(trend: Trend, base: str = "") -> Figure:
    """Main numbers over runs, a panel a quantity and setting, a line a base."""
    name = trend.page.replace("_", " ").capitalize()
    panels: dict[str, Draw] = {}
    for (quantity, setting), lines in list(trend.series(base).items())[:MOST_PANELS]:
        title = fill(f"{quantity}, {setting}" if setting else quantity, TITLE_WIDTH)
        panels[title] = partial(_lines, lines, trend.moments)
    preset = trend.runs[0].manifest["preset"]
    return compose(
        f"{name} on {trend.machine}, run after run",
        panels,
        f"{name} on {trend.machine}, preset {preset}: {len(trend.runs)} complete runs of equal "
        f"parameters, from {trend.moments[0]} to {trend.moments[-1]} UTC, set side by side "
        "whatever time lies between. Bars are the intervals that the runs state. A step from one "
        "run to the next is a change only where the table of regressions says so.",
    )


def _lines(
    lines: Mapping[str, Sequence[Number | None]], moments: Sequence[str], axes: Axes
) -> None:
    colours, shapes = palette(list(lines)), markers(list(lines))
    unit = ""
    for i, (base, numbers) in enumerate(lines.items()):
        shift = (i - (len(lines) - 1) / 2) * 0.06
        known = [(at, n, n.value) for at, n in enumerate(numbers) if n and n.value is not None]
        if not known:
            continue
        unit = known[0][1].quantity.unit
        values = np.array([value for _, _, value in known])
        low = np.array([_or(n.low, value) for _, n, value in known])
        high = np.array([_or(n.high, value) for _, n, value in known])
        axes.errorbar(
            [at + shift for at, _, _ in known],
            values,
            np.abs([values - low, high - values]),
            label=base,
            color=colours[base],
            marker=shapes[base],
            capsize=3,
        )
    ticks = range(0, len(moments), math.ceil(len(moments) / MOST_TICKS))
    axes.set_xticks(ticks, [moments[at].replace(" ", "\n") for at in ticks])
    axes.set_xlim(-0.5, len(moments) - 0.5)
    show_short(axes.yaxis)
    axes.set_ylabel(unit)


def _or(known: float | None, otherwise: float) -> float:
    return otherwise if known is None else known
