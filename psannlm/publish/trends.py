"""How the main numbers of a page went over time: series of runs that were asked the same."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from textwrap import fill
from typing import NamedTuple

import numpy as np

from psannlm.evidence.figures import Axes, Draw, Figure, compose, markers, palette, show_short
from psannlm.evidence.runs import Evidence, Refused
from psannlm.evidence.table import Number
from psannlm.publish import run_facts
from psannlm.publish.run_facts import machine, page

FEWEST = 2  # runs of equal parameters below which there is no trend
MOST_TICKS = 4
TITLE_WIDTH = 50  # characters of a line above a panel
MOST_PANELS = 4  # of a figure; what else was measured is in the table of best numbers and in files


class Trend(NamedTuple):
    """Runs of one page on one machine, of equal parameters, oldest first."""

    page: str
    machine: str
    runs: Sequence[Evidence]

    @property
    def title(self) -> str:
        """The page and the machine, in words."""
        return f"{self.page.replace('_', ' ').capitalize()} on {self.machine}"

    @property
    def moments(self) -> list[str]:
        """When each run began, to the minute, in UTC."""
        return [run_facts.started(run) for run in self.runs]

    def series(self, only: str = "") -> dict[tuple[str, str], dict[str, list[Number | None]]]:
        """Main numbers by quantity and setting, then base: one a run, None where there is none."""
        found: dict[tuple[str, str], dict[str, list[Number | None]]] = {}
        for at, run in enumerate(self.runs):
            for number in run_facts.main_numbers(run):
                if only in ("", number.base):
                    name, base, setting = number.key
                    empty: list[Number | None] = [None] * len(self.runs)
                    found.setdefault((name, setting), {}).setdefault(base, empty)[at] = number
        return found


def trends(runs: Sequence[Evidence | Refused]) -> list[Trend]:
    """Of each page and machine the groups of runs with equal parameters, lone runs too."""
    groups: list[list[Evidence]] = []
    for run in run_facts.complete_runs(runs):
        if group := next((group for group in groups if _are_alike(group[0], run)), None):
            group.append(run)
        else:
            groups.append([run])
    found = [Trend(page(group[0]), machine(group[0]), group) for group in groups]
    return sorted(found, key=lambda trend: (trend.page, trend.machine))


def _are_alike(one: Evidence, other: Evidence) -> bool:
    facts = [(page(run), machine(run), run_facts.text_of(run)) for run in (one, other)]
    return facts[0] == facts[1] and not any(run_facts.unequal_parameters(other, one))


def sentences(found: Sequence[Trend]) -> Iterator[str]:
    """Of each page and machine without a trend: how many runs there are, and what is missing."""
    places: dict[str, list[Trend]] = {}
    for trend in found:
        places.setdefault(trend.title, []).append(trend)
    for title, mine in places.items():
        if all(len(trend.runs) < FEWEST for trend in mine):
            many = f"{len(mine)} complete runs, no two of equal parameters"
            yield f"{title}: {many if len(mine) > 1 else 'one complete run'}."


def figures(trends: Sequence[Trend], base: str = "") -> Iterator[Figure]:
    """One figure a trend of enough runs: a panel a quantity and setting, a line a base, or one."""
    for trend in trends:
        found = trend.series(base)
        if len(trend.runs) < FEWEST or not found:
            continue
        panels: dict[str, Draw] = {}
        for key, lines in list(found.items())[:MOST_PANELS]:
            title = fill(", ".join(filter(None, key)), TITLE_WIDTH)
            panels[title] = partial(_lines, lines, trend.moments)
        name, preset = trend.title, run_facts.preset(trend.runs[0])
        yield compose(
            f"{name}, run after run",
            panels,
            f"{name}, preset {preset}: {len(trend.runs)} complete runs of equal parameters, from "
            f"{trend.moments[0]} to {trend.moments[-1]} UTC, set side by side whatever time lies "
            "between. Bars are the intervals that the runs state. A step from one run to the next "
            "is a change only where the table of regressions says so.",
        )


def _lines(
    lines: Mapping[str, Sequence[Number | None]], moments: Sequence[str], axes: Axes
) -> None:
    colours, shapes = palette(list(lines)), markers(list(lines))
    unit = ""
    for i, (base, numbers) in enumerate(lines.items()):
        known = [(at, n) for at, n in enumerate(numbers) if n and n.value is not None]
        if not known:
            continue
        unit = known[0][1].unit
        stated = [(at, n.value, n.low, n.high) for at, n in known]
        at, values, *ends = np.array(stated, dtype=float).T
        at += (i - (len(lines) - 1) / 2) * 0.06  # bars of several bases stand side by side
        reach = np.nan_to_num(np.abs(ends - values))  # an interval that is unknown has no length
        style = {"label": base, "color": colours[base], "marker": shapes[base]}
        axes.errorbar(at, values, reach, capsize=3, **style)
    ticks = range(0, len(moments), math.ceil(len(moments) / MOST_TICKS))
    axes.set_xticks(ticks, [moments[at].replace(" ", "\n") for at in ticks])
    axes.set_xlim(-0.5, len(moments) - 0.5)
    show_short(axes.yaxis)
    axes.set_ylabel(unit)
