"""How the main numbers of a page went over time: series of runs that were asked the same."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from textwrap import fill

import numpy as np

from psannlm.evidence.figures import Axes, Draw, Figure, compose, markers, palette, show_short
from psannlm.evidence.rows import Number
from psannlm.evidence.runs import Evidence, Refused
from psannlm.publish.run_facts import (
    complete_runs,
    machine,
    numbers_of,
    page,
    started,
    text_of,
    unequal_parameters,
)

FEWEST = 2
"""Runs of equal parameters below which there is no trend."""

MOST_TICKS = 4
TITLE_WIDTH = 50
"""Characters of a line above a panel."""

MOST_PANELS = 4
"""Of one figure; what else was measured is in the table of best numbers and in the files."""


@dataclass(frozen=True)
class Trend:
    """Runs of one page on one machine, of equal parameters, oldest first."""

    page: str
    machine: str
    runs: Sequence[Evidence]

    @property
    def moments(self) -> list[str]:
        """When each run began, to the minute, in UTC."""
        return [started(run) for run in self.runs]

    def series(self, only: str = "") -> dict[tuple[str, str], dict[str, list[Number | None]]]:
        """By quantity and setting the main numbers of each base, one a run, None where none is.

        Args:
            only: The base that is wanted; all if empty.
        """
        found: dict[tuple[str, str], dict[str, list[Number | None]]] = {}
        for at, run in enumerate(self.runs):
            for number in numbers_of(run):
                if number.is_main and number.column.better and only in ("", number.base):
                    name, base, setting = number.key
                    empty: list[Number | None] = [None] * len(self.runs)
                    found.setdefault((name, setting), {}).setdefault(base, empty)[at] = number
        return found


def trends(runs: Sequence[Evidence | Refused]) -> list[Trend]:
    """Of each page and machine the groups of runs with equal parameters, lone runs too."""
    groups: list[list[Evidence]] = []
    for run in complete_runs(runs):
        home = next((group for group in groups if _are_alike(group[0], run)), None)
        if home is None:
            groups.append([run])
        else:
            home.append(run)
    found = [Trend(page(group[0]), machine(group[0]), group) for group in groups]
    return sorted(found, key=lambda trend: (trend.page, trend.machine))


def sentences(found: Sequence[Trend]) -> Iterator[str]:
    """Of each page and machine without a trend: how many runs there are, and what is missing."""
    places = dict.fromkeys((trend.page, trend.machine) for trend in found)
    for name, where in places:
        mine = [trend for trend in found if (trend.page, trend.machine) == (name, where)]
        if any(len(trend.runs) >= FEWEST for trend in mine):
            continue
        n = len(mine)
        said = "one complete run" if n == 1 else f"{n} complete runs, no two of equal parameters"
        yield f"{name.replace('_', ' ').capitalize()} on {where}: {said}."


def _are_alike(one: Evidence, other: Evidence) -> bool:
    if (page(one), machine(one)) != (page(other), machine(other)):
        return False
    return not any(unequal_parameters(other, one)) and text_of(one) == text_of(other)


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
        unit = known[0][1].unit
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
