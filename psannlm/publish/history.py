"""The history page: all runs, best numbers, trends and regressions, and the history as files."""

from collections.abc import Sequence

import pandas as pd

from psannlm.bench.statistics import FEWEST_REPEATS, SMALLEST_EFFECT
from psannlm.evidence.runs import Evidence, Refused
from psannlm.evidence.text import sortable
from psannlm.publish import (
    best_numbers,
    regressions,
    trend_figures,
    trends,
)
from psannlm.publish import (
    history_files as history,
)
from psannlm.publish.run_facts import complete_runs
from psannlm.publish.run_table import runs_table

FOLDER = "data/history"
"""Below book/results/: the history as files."""

QUESTION = """# History

**Question.** Which runs are there, what is the best of each, and did anything become worse from
one run to the next?

Every run whose folder lies under `reports/` is here, whatever became of it. What other pages show
is the newest complete run of the highest preset (gpu over cpu over smoke). A run that was altered,
or whose numbers contradict its samples, is refused: it is named here with the reason, and nothing
that it states is used."""

REGRESSIONS = f"""Of each page, preset and machine the newest complete run is held against the one
before it, row by row, only if machine model, torch, threads, parameters and text are the same. A
speed, a time or a ratio has changed if the intervals do not meet and it moved by more than the
larger of both noise floors, and by more than {SMALLEST_EFFECT:.0%}; that takes
{FEWEST_REPEATS} processes on either side. Bytes, and the bits per byte of a training repeated from
the same seed, have no interval: they have changed beyond {SMALLEST_EFFECT:.0%}. Losses of a
shootout have changed if their intervals do not meet. A check passes or it does not."""

LIMITS = """## What this does not show

- Why a number moved: the table of runs names the code of each run, and no more.
- One machine beside another, or one version of torch beside another: they are never compared here.
- That nothing became worse where nothing could be compared.
- A slow drift, each step of it within its bound, or a drop between two older runs: the trends show
  them, no verdict does.
- Many rows are compared at once, each against its own bound: with 95% intervals and noise floors a
  lone regression among many rows can be chance. Measure it again before believing it."""

READING = """The same tables and figures for a choice of runs, on any machine:
`papermill notebooks/results.ipynb out.ipynb -p page throughput`. That notebook measures nothing."""


def files(runs: Sequence[Evidence | Refused]) -> dict[str, str]:
    """The page and the files of the whole history, by their names in book/results/."""
    tables = {page: history.history(page, runs) for page in history.OWN}
    tables |= {"runs": runs_table(runs), "regressions": regressions.regressions(runs)}
    found = {f"{FOLDER}/{name}.csv": _csv(table) for name, table in tables.items()}
    return {"history.md": page(runs)} | found


def page(runs: Sequence[Evidence | Refused]) -> str:
    """The page as Markdown."""
    compared = regressions.regressions(runs)
    parts = [
        QUESTION,
        counted(runs),
        "## Runs",
        all_runs(runs_table(runs)),
        "## Best numbers",
        "Chosen only among runs that asked the same of networks of one shape; the interval is that "
        "of its run.",
        best(best_numbers.best_numbers(runs)),
        "## Trends",
        trend(trends.trends(runs)),
        "## Regressions",
        REGRESSIONS,
        regressions.summary(compared),
        regressed(compared),
        "## Files",
        _links(),
        READING,
        LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


def counted(runs: Sequence[Evidence | Refused]) -> str:
    """How many runs there are, and how many of them are used, in one sentence."""
    n_refused = sum(isinstance(run, Refused) for run in runs)
    n_complete = len(complete_runs(runs))
    others = len(runs) - n_complete - n_refused
    return (
        f"**{len(runs)} runs**: {n_complete} complete, {n_refused} refused, {others} that failed "
        "or were interrupted."
    )


def all_runs(table: pd.DataFrame) -> str:
    """HTML of the table of runs."""
    return sortable(
        table,
        "All runs, newest first",
        none="no run yet, `make report` makes the first",
        filters=("page", "bases", "machine"),
    )


def best(table: pd.DataFrame) -> str:
    """HTML of the table of best numbers."""
    return sortable(
        table,
        "Best published number of each page, base, machine and preset",
        none="no complete run yet",
        filters=("page", "base", "machine"),
    )


def trend(found: Sequence[trends.Trend], base: str = "") -> str:
    """Markdown of the figures of trends, and a list of what has none.

    Args:
        found: What there is over time.
        base: The only one drawn; all if empty.
    """
    drawn = [figure.html for figure in trend_figures.figures(found, base)]
    lone = "\n".join(f"- {sentence}" for sentence in trends.sentences(found))
    said = "A trend needs two complete runs of one page on one machine with equal parameters."
    return "\n\n".join(part for part in (said, *drawn, lone) if part)


def regressed(compared: pd.DataFrame) -> str:
    """HTML of the table of regressions."""
    return sortable(
        regressions.shown(compared),
        "The newest run of each page against the one before it, what changed first",
        none="there is nothing to compare yet",
        filters=("page", "base", "machine"),
    )


def _links() -> str:
    """Where the history can be had as files."""
    links = [
        f"{{download}}`{name}.csv <{FOLDER}/{name}.csv>`"
        for name in ("runs", *history.OWN, "regressions")
    ]
    return (
        "Every published row of every complete run, page by page, each with its machine, preset, "
        f"torch, code, run folder and the number of the row in its run: {', '.join(links)}. Where "
        "there is no run yet, a file has its head alone."
    )


def _csv(frame: pd.DataFrame) -> str:
    plain = frame.map(lambda value: " ".join(value) if isinstance(value, tuple) else value)
    text: str = plain.to_csv(index=False, lineterminator="\n")
    return text
