"""Whether evidence, claims and the figures beside them are sound: what a build refuses, by name."""

from collections.abc import Sequence
from pathlib import Path

from psannlm import REPORTS
from psannlm.corpora import corpus
from psannlm.evidence.runs import Evidence, Refused
from psannlm.publish import claims, published
from psannlm.run.check import checked_runs


def problems(reports: Path = REPORTS) -> list[str]:
    """Every run that is refused, every claim that its evidence denies, every altered file.

    Args:
        reports: Where run folders live; claims are about those that the project keeps.
    """
    return problems_of(list(checked_runs(reports)), claims.claims_about(reports))


def problems_of(runs: Sequence[Evidence | Refused], path: Path | None) -> list[str]:
    """The same, of runs that were checked already.

    Args:
        runs: All runs.
        path: File of the claims about them; None of runs that are not the project's, and then
            nothing but the runs is looked at.
    """
    refused = [f"left out of the book: {run.reason}" for run in runs if isinstance(run, Refused)]
    if path is None:
        return refused
    return [*refused, *claims.problems(path, runs), *published.problems(), *corpus.altered_files()]
