"""How noisy a machine is, for times whose own run measures nothing twice."""

from collections.abc import Iterable
from typing import Any

from psannlm.evidence.runs import Evidence, Refused
from psannlm.evidence.table import NOISE_FLOOR
from psannlm.pages.registry import pages


def machine_floor(runs: Iterable[Evidence | Refused], like: Evidence) -> float | None:
    """The widest noise floor of the newest run like another: device, torch, preset.

    Args:
        runs: To choose from, oldest first.
        like: What the run has these three in common with.

    Returns:
        That of the first page whose rows state one; None where no run of it is alike, or it
        measured nothing twice.
    """
    complete = [run for run in runs if isinstance(run, Evidence) and run.is_complete]
    column = NOISE_FLOOR.name
    page = next((page for page in pages().values() if column in page.tables[0].names), None)
    alike = [
        run
        for run in complete
        if page and run.manifest["notebook"] == page.name and _kind(run) == _kind(like)
    ]
    if page is None or not alike:
        return None
    floors = (row.values.get(column) for row in page.rows(alike[-1]))
    return max((floor for floor in floors if floor is not None), default=None)


def _kind(run: Evidence) -> tuple[Any, ...]:
    environment = run.manifest["environment"]
    packages = environment["software"]["packages"]
    return environment["device"], packages["torch"], run.manifest["preset"]
