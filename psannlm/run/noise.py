"""How noisy a machine is, for times whose own run measures nothing twice."""

from collections.abc import Iterable
from typing import Any

from psannlm.evidence.rows import rows_of
from psannlm.evidence.runs import Evidence, Refused


def machine_floor(runs: Iterable[Evidence | Refused], like: Evidence) -> float | None:
    """The widest noise floor of the newest throughput run like another: device, torch, preset.

    Args:
        runs: To choose from, oldest first.
        like: What the throughput run has these three in common with.

    Returns:
        None where there is no such run, or it measured nothing twice.
    """
    alike = [
        run
        for run in runs
        if isinstance(run, Evidence)
        and run.is_complete
        and run.manifest["notebook"] == "throughput"
        and _kind(run) == _kind(like)
    ]
    if not alike:
        return None
    floors = (row.values["noise_floor"] for row in rows_of(alike[-1]))
    return max((floor for floor in floors if floor is not None), default=None)


def _kind(run: Evidence) -> tuple[Any, ...]:
    environment = run.manifest["environment"]
    packages = environment["software"]["packages"]
    return environment["device"], packages["torch"], run.manifest["preset"]
