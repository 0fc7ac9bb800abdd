"""What must hold between the numbers of a run: checked whenever its evidence is read."""

from collections.abc import Iterator
from pathlib import Path

import nbformat

from psannlm.evidence import verify
from psannlm.evidence.executed import is_complete
from psannlm.evidence.runs import Evidence, EvidenceError, Refused, all_runs
from psannlm.pages.registry import pages


def checked_runs(reports: Path) -> Iterator[Evidence | Refused]:
    """Every run folder, those refused whose hashes or numbers are wrong."""
    for run in all_runs(reports):
        if isinstance(run, Refused):
            yield run
            continue
        try:
            check(run)
            yield run
        except EvidenceError as error:
            yield Refused(run.folder, str(error))


def check(run: Evidence) -> None:
    """Recompute what a complete run states.

    Raises:
        EvidenceError: Names the run, the file, the row and what is wrong with it.
    """
    if not run.is_complete:
        return
    name = run.manifest["notebook"]
    if name not in pages():
        raise EvidenceError(f"{run.name}: there is no page {name!r}")
    if not is_complete(nbformat.read(run.folder / f"{name}.ipynb", as_version=4)):
        raise EvidenceError(f"{run.name}: {name}.ipynb did not run to its end")
    for problem in verify.problems(pages()[name], run):
        raise EvidenceError(f"{run.name}: {problem}")
