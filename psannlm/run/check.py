"""Runs as all else reads them: checked, how noisy their machine was, and a row measured again."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import nbformat

from psannlm import REPORTS
from psannlm.config.schema import ConfigError
from psannlm.evidence import verify
from psannlm.evidence.notebook import is_complete
from psannlm.evidence.page import Page, RerunRequest, run_info
from psannlm.evidence.runs import (
    MANIFEST,
    Evidence,
    EvidenceError,
    Refused,
    all_runs,
    load,
    with_machines,
)
from psannlm.evidence.table import NOISE_FLOOR, Row
from psannlm.pages.registry import pages
from psannlm.places import public
from psannlm.rerun import difference, outcome
from psannlm.rerun.outcome import Outcome, key_text


def checked_runs(reports: Path) -> list[Evidence | Refused]:
    """Every run folder, those refused whose hashes or numbers are wrong; machines have names."""
    return with_machines(_checked(reports))


def _checked(reports: Path) -> Iterator[Evidence | Refused]:
    for run in all_runs(reports):
        try:
            if isinstance(run, Evidence):
                check(run)
            yield run
        except EvidenceError as error:
            yield Refused(run.folder, public(str(error)))


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

    The widest noise floor of the newest run, the last of `runs`, that has machine, torch and preset
    in common with `like`; None where there is none, or it measured nothing twice.
    """
    *others, last = with_machines([*runs, like])

    def kind(run: Evidence | Refused) -> tuple[Any, ...]:
        assert isinstance(run, Evidence)
        software = run.manifest["environment"]["software"]
        return run.machine, software["packages"]["torch"], run.manifest["preset"]

    column = NOISE_FLOOR.name
    page = next(page for page in pages().values() if column in page.tables[0].names)
    complete = (run for run in others if isinstance(run, Evidence) and run.is_complete)
    ours = (run for run in complete if run.manifest["notebook"] == page.name)
    alike = [run for run in ours if kind(run) == kind(last)]
    floors = (row.values.get(column) for run in alike[-1:] for row in page.rows(run))
    return max((floor for floor in floors if floor is not None), default=None)


def rerun(
    folder: Path,
    number: int = 1,
    *,
    repeats: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Measure a published row again, as its run did, and hold it to what that run predicts.

    Nothing is written but temporary files and, for trainings, the cache of tokens.

    ConfigError says what is missing: run, row, device or text; or what is wrong with the run.

    Args:
        folder: Of the run.
        number: Of the row in its table, from 1.
        repeats: Fresh processes, or seeds of trainings; None for what is usual of the page.
        say: Told, in a sentence, what begins.
    """
    if repeats is not None and repeats < 1:
        raise ConfigError(f"repeats must be at least 1, got {repeats}")
    run = sound_run(folder)
    page = pages()[run.manifest["notebook"]]
    if page.repeats_once and repeats not in (None, 1):
        rule = f"repeats must be 1 on the page {page.name}, whose rows are one value each"
        raise ConfigError(f"{rule}, got {repeats}; leave --repeats out")
    row = row_of(page, run, number)
    outcome.refuse_other_text(run)
    here = difference.environment_diff(run)
    say(f"row {number} of {row.file}, run {run.name}, page {page.name}: {key_text(page, row)}")
    info = run_info(page, run)
    # As many repeats as were published, up to what is usual.
    processes = sum(row.values.get(name) or 0 for name in ("n_ok", "n_failed"))
    published = processes or row.values.get("n_seeds") or 1
    request: RerunRequest[Any] = RerunRequest(
        config=info.config.model_copy(update={"device": here.device.type}),
        device=here.device,
        repeats=repeats or min(published, page.usual_repeats),
        say=say,
        floor=machine_floor(all_runs(run.folder.parent.parent), run) or 0.0,
        no_verdict=here.no_verdict,
        same_digits=here.same_digits,
    )
    new = page.measure_again(row, request, info.records)
    found = outcome.compared(page, row, request, info.records, new)
    return Outcome(page, row, found, difference.after(here))


def sound_run(folder: Path, *, reports: Path = REPORTS) -> Evidence:
    """The complete run in a folder, its hashes and numbers checked; else ConfigError says why not.

    Where it is no run folder, those below `reports` are named.
    """
    if not (folder / MANIFEST).is_file():
        names = (f"{one.folder.parent.name}/{one.folder.name}" for one in all_runs(reports))
        there = f"there are, below {reports.name}/: {', '.join(names) or 'none'}"
        raise ConfigError(f"{folder} is no run folder; {there}")
    run = load(folder.resolve())
    if not run.is_complete:
        state = f"is not complete ({run.manifest['status']}), so it publishes no rows"
        raise ConfigError(f"{run.name} {state}; name a complete run")
    check(run)
    return run


def row_of(page: Page[Any, Any], run: Evidence, number: int) -> Row:
    """A row of a run by its number; ConfigError tells those there are."""
    rows = page.rows(run)
    if not 1 <= number <= len(rows):
        listed = "\n".join(f"  {row.number}: {key_text(page, row)}" for row in rows)
        asked = f"row must be from 1 to {len(rows)} in {run.name}, got {number}"
        raise ConfigError(f"{asked}; its rows are:\n{listed}")
    return rows[number - 1]
