"""What must hold between the numbers of a run: checked whenever its evidence is read.

Hashes tell that files are as they were written; identities tell that they were written right. Each
page has its own, in a module of its own.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import nbformat

from psannlm.evidence.executed import is_complete
from psannlm.evidence.runs import Evidence, EvidenceError, Refused, all_runs
from psannlm.pages.memory import bounds as memory_identities
from psannlm.pages.peer import bounds as peer_identities
from psannlm.pages.shootout import identities as shootout_identities
from psannlm.pages.throughput import bounds as throughput_identities
from psannlm.pages.tiny_corpus import bounds as training_identities
from psannlm.pages.validation import bounds as validation_identities

PROBLEMS: Mapping[str, Callable[[Evidence], Iterator[str]]] = {
    "validation": validation_identities.problems,
    "throughput": throughput_identities.problems,
    "memory": memory_identities.problems,
    "tiny_corpus": training_identities.problems,
    "shootout": shootout_identities.problems,
    "peer": peer_identities.problems,
}
"""Of each notebook: what its complete run states wrongly, file and row first."""


def checked_runs(reports: Path) -> Iterator[Evidence | Refused]:
    """Every run folder, those refused whose hashes or identities fail."""
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
        EvidenceError: Names the run, the file, the row and the identity that fails.
    """
    if not run.is_complete:
        return
    name = f"{run.manifest['notebook']}.ipynb"
    if not is_complete(nbformat.read(run.folder / name, as_version=4)):
        raise EvidenceError(f"{run.name}: {name} did not run to its end")
    for problem in PROBLEMS[run.manifest["notebook"]](run):
        raise EvidenceError(f"{run.name}: {problem}")
