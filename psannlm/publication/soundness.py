"""Whether the evidence and what is claimed of it are sound: refused runs, and claims that fail."""

from collections.abc import Sequence
from pathlib import Path

from psannlm import REPORTS
from psannlm.publication import claims
from psannlm.report.identities import checked_runs
from psannlm.report.runs import Evidence, Refused


def problems(reports: Path = REPORTS) -> list[str]:
    """Every run that is refused, with the reason, and every claim that its evidence denies.

    Args:
        reports: Where run folders live; claims are about those that the project keeps.
    """
    return problems_of(list(checked_runs(reports)), claims.claims_about(reports))


def problems_of(runs: Sequence[Evidence | Refused], path: Path | None) -> list[str]:
    """The same, of runs that were checked already, and of the claims in a file if there is one."""
    refused = [f"left out of the book: {run.reason}" for run in runs if isinstance(run, Refused)]
    return refused + (claims.problems(path, runs) if path else [])
