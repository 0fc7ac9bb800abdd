"""Runs as all else reads them: what must hold between their numbers, how noisy a machine was."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import nbformat

from psannlm.evidence import verify
from psannlm.evidence.executed import is_complete
from psannlm.evidence.runs import Evidence, EvidenceError, Refused, all_runs
from psannlm.evidence.table import NOISE_FLOOR
from psannlm.pages.registry import pages


def checked_runs(reports: Path) -> Iterator[Evidence | Refused]:
    """Every run folder, those refused whose hashes or numbers are wrong."""
    for run in all_runs(reports):
        try:
            if isinstance(run, Evidence):
                check(run)
            yield run
        except EvidenceError as error:
            yield Refused(run.folder, str(error))


def check(run: Evidence) -> None:
    """Recompute what a complete run states; EvidenceError names run, file, row and problem."""
    if not run.is_complete:
        return
    name = run.manifest["notebook"]
    if name not in pages():
        raise EvidenceError(f"{run.name}: there is no page {name!r}")
    if not is_complete(nbformat.read(run.folder / f"{name}.ipynb", as_version=4)):
        raise EvidenceError(f"{run.name}: {name}.ipynb did not run to its end")
    for problem in verify.problems(pages()[name], run):
        raise EvidenceError(f"{run.name}: {problem}")


def machine_floor(runs: Iterable[Evidence | Refused], like: Evidence) -> float | None:
    """How noisy a machine is, for times whose own run measures nothing twice.

    The widest noise floor of the newest run, the last of `runs`, that has device, torch and preset
    in common with `like`; None where there is none, or it measured nothing twice.
    """

    def kind(run: Evidence) -> tuple[Any, ...]:
        ran = run.manifest["environment"]
        return ran["device"], ran["software"]["packages"]["torch"], run.manifest["preset"]

    column = NOISE_FLOOR.name
    page = next(page for page in pages().values() if column in page.tables[0].names)
    complete = (run for run in runs if isinstance(run, Evidence) and run.is_complete)
    ours = (run for run in complete if run.manifest["notebook"] == page.name)
    alike = [run for run in ours if kind(run) == kind(like)]
    floors = (row.values.get(column) for run in alike[-1:] for row in page.rows(run))
    return max((floor for floor in floors if floor is not None), default=None)
