"""How the main numbers of a page went over time: series of runs that were asked the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psannlm.evidence.runs import Evidence, Refused
from psannlm.publish.numbers import Number, numbers_of
from psannlm.publish.run_facts import (
    complete_runs,
    machine,
    page,
    started,
    text_of,
    unequal_parameters,
)

FEWEST = 2
"""Runs of equal parameters below which there is no trend."""


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
                if number.is_main and only in ("", number.base):
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
