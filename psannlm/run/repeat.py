"""A published row measured again: from a run folder and a number to inside or outside."""

from collections.abc import Callable, Mapping
from pathlib import Path

from psannlm import REPORTS
from psannlm.config.schema import ConfigError
from psannlm.evidence.rows import Row, rows_of
from psannlm.evidence.runs import MANIFEST, Evidence, all_runs, load
from psannlm.pages.memory import rerun as memory_again
from psannlm.pages.peer import rerun as peer_again
from psannlm.pages.shootout import rerun as shootout_again
from psannlm.pages.throughput import rerun as throughput_again
from psannlm.pages.tiny_corpus import rerun as training_again
from psannlm.pages.validation import rerun as validation_again
from psannlm.rerun.asked import RerunRequest
from psannlm.rerun.outcome import Outcome, Repeat, key_text
from psannlm.rerun.surroundings import surroundings
from psannlm.run import check as identities

PAGES: Mapping[str, Callable[[Row, RerunRequest], Repeat]] = {
    "validation": validation_again.measure_again,
    "throughput": throughput_again.measure_again,
    "memory": memory_again.measure_again,
    "tiny_corpus": training_again.measure_again,
    "shootout": shootout_again.measure_again,
    "peer": peer_again.measure_again,
}
"""Of each page: what measures one of its rows again."""


def silent(_: str) -> None:
    """Tells nobody."""


def rerun(
    folder: Path,
    number: int = 1,
    *,
    repeats: int | None = None,
    say: Callable[[str], None] = silent,
) -> Outcome:
    """Measure a published row again, as its run did, and hold it to what that run predicts.

    Nothing is written but temporary files and, for trainings, the cache of tokens.

    Args:
        folder: Of the run.
        number: Of the row in its table, from 1.
        repeats: Fresh processes, or seeds of a shootout; None for what is usual of the page.
        say: Told, in a sentence, what begins.

    Raises:
        ConfigError: There is no such run or row, the run is refused or not complete, its device
            or its text is not here, or its page cannot be repeated row by row.
    """
    if repeats is not None and repeats < 1:
        raise ConfigError(f"repeats must be at least 1, got {repeats}")
    run = sound_run(folder)
    row = row_of(run, number)
    measure = PAGES.get(row.page)
    if measure is None:
        raise ConfigError(
            f"{run.name}: rows of the page {row.page} cannot be measured again one by one; "
            f"`python -m psannlm report --preset {run.manifest['preset']} --only {row.page}` "
            "measures the page"
        )
    found = surroundings(run)
    say(f"row {number} of {row.file}, run {run.name}, page {row.page}: {key_text(row)}")
    return Outcome(row, measure(row, RerunRequest(run, found, repeats, say)), found)


def sound_run(folder: Path, *, reports: Path = REPORTS) -> Evidence:
    """The complete run in a folder, its hashes and identities checked.

    Args:
        folder: Of the run.
        reports: Where the runs lie that the message names.

    Raises:
        ConfigError: It is no run folder, it was altered, its numbers contradict one another, or
            the run did not come to its end.
    """
    if not (folder / MANIFEST).is_file():
        names = [f"{p.parent.name}/{p.name}" for p in (r.folder for r in all_runs(reports))]
        raise ConfigError(
            f"{folder} is no run folder; there are, below {reports.name}/: "
            + (", ".join(names) or "none")
        )
    run = load(folder.resolve())
    if not run.is_complete:
        raise ConfigError(
            f"{run.name} is not complete ({run.manifest['status']}), so it publishes no rows; "
            "name a complete run"
        )
    identities.check(run)
    return run


def row_of(run: Evidence, number: int) -> Row:
    """A row of a run by its number.

    Raises:
        ConfigError: There is none of that number; the message tells those there are.
    """
    rows = rows_of(run)
    if not 1 <= number <= len(rows):
        listed = "\n".join(f"  {row.number}: {key_text(row)}" for row in rows)
        raise ConfigError(
            f"row must be from 1 to {len(rows)} in {run.name}, got {number}; "
            f"its rows are:\n{listed}"
        )
    return rows[number - 1]
