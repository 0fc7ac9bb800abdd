"""The history: all runs, best numbers, trends and regressions, as a page, files and a notebook.

The cells of notebooks/results.ipynb call `start`, then the methods of `Results`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from IPython.display import HTML, Markdown

from psannlm import REPORTS
from psannlm.bench.statistics import FEWEST_REPEATS, SMALLEST_EFFECT
from psannlm.config.parse import nearest, parse
from psannlm.config.schema import ConfigError, Strict
from psannlm.evidence.notebook import given_parameters
from psannlm.evidence.runs import PRESETS, Evidence, Refused
from psannlm.evidence.session import running_notebook
from psannlm.evidence.table import Column, Number, Table, table_of
from psannlm.evidence.text import UNKNOWN, sortable
from psannlm.pages.registry import pages
from psannlm.publish import regressions, run_facts, trends
from psannlm.publish.run_facts import RUNS, complete_runs, machine, preset
from psannlm.run.check import checked_runs

NAME = "results"  # of the notebook that shows the history of chosen runs
FOLDER = "data/history"  # below book/results/: the history as files
COMMON = (
    *map(RUNS.__getitem__, ("run", "machine", "preset", "torch")),
    Column("commit", "Commit of the code that ran.", value=lambda r: r.manifest["git"]["commit"]),
    Column("path", "Folder of the run, from the project's.", value=lambda r: f"reports/{r.name}"),
    Column("row", "Number of the row in the run's own table, from 1."),
)
"""What every row of a history says of its run."""

FILTERS = ("page", "base", "bases", "machine")

QUESTION = """# History

**Question.** Which runs are there, what is the best of each, and did anything become worse from
one run to the next?

Every run whose folder lies under `reports/` is here, whatever became of it. What other pages show
is the newest complete run of the highest preset (gpu over cpu over smoke). A run that was altered,
or whose numbers contradict its samples, is refused: it is named here with the reason, and nothing
that it states is used."""

REGRESSIONS = f"""Of each page, preset and machine the newest complete run is held against the one
before it, row by row, only if machine, torch, settings, parameters and text are the same. A
speed, a time or a ratio has changed if the intervals do not meet and it moved by more than the
larger of both noise floors, and by more than {SMALLEST_EFFECT:.0%}; that takes
{FEWEST_REPEATS} processes on either side. Bytes, and the bits per byte of a training repeated from
the same seed, have no interval: they have changed beyond {SMALLEST_EFFECT:.0%}. Losses of a
shootout have changed if their intervals do not meet. A check passes or it does not."""

REST = """## Files

Every published row of every complete run, page by page, each with its machine, preset, \
torch, code, run folder and the number of the row in its run: {links}. Where there is no run yet, \
a file has its head alone.

The same tables and figures for a choice of runs, on any machine:
`papermill notebooks/results.ipynb out.ipynb -p page throughput`. That notebook measures nothing.

## What this does not show

- Why a number moved: the table of runs names the code of each run, and no more.
- One machine beside another, or one version of torch beside another: they are never compared here.
- That nothing became worse where nothing could be compared.
- A slow drift, each step of it within its bound, or a drop between two older runs: the trends show
  them, no verdict does.
- Many rows are compared at once, each against its own bound: with 95% intervals and noise floors a
  lone regression among many rows can be chance. Measure it again before believing it.
"""


def files(runs: Sequence[Evidence | Refused]) -> dict[str, str]:
    """The page and the files of the whole history, by their names in book/results/."""
    tables = {table_of_page(name).file: history(name, runs) for name in pages()}
    tables[RUNS.file] = run_facts.runs_table(runs)
    tables[regressions.REGRESSIONS.file] = regressions.regressions(runs)
    made = {"history.md": page(runs)}
    for file, table in tables.items():
        plain = table.map(lambda cell: " ".join(cell) if isinstance(cell, tuple) else cell)
        made[f"{FOLDER}/{file}"] = plain.to_csv(index=False, lineterminator="\n")
    return made


def page(runs: Sequence[Evidence | Refused]) -> str:
    """The page as Markdown."""
    names = ("runs", *pages(), "regressions")
    links = [f"{{download}}`{name}.csv <{FOLDER}/{name}.csv>`" for name in names]
    refused, complete = sum(isinstance(run, Refused) for run in runs), len(complete_runs(runs))
    found = Results(ResultsConfig(), runs)
    parts = [
        QUESTION,
        f"**{len(runs)} runs**: {complete} complete, {refused} refused, "
        f"{len(runs) - complete - refused} that failed or were interrupted.",
        "## Runs",
        found.all_runs().data,
        "## Best numbers",
        "Chosen only among runs that asked the same of networks of one shape; the interval is that "
        "of its run.",
        found.best().data,
        "## Trends",
        found.trends().data,
        "## Regressions",
        REGRESSIONS,
        found.regressions().data,
        REST.format(links=", ".join(links)),
    ]
    return "\n\n".join(parts)


def table_of_page(name: str) -> Table:
    """The history of a page as a file: every row of every complete run, without nested cells."""
    first = pages()[name].tables[0]
    own = [column for column in first.columns if not column.nested]
    names = [column.name for column in own]
    return Table(
        f"{name}.csv",
        f"Every row of every complete run, with device and code. {first.text}",
        (*own, *(column for column in COMMON if column.name not in names)),
    )


def history(name: str, runs: Sequence[Evidence | Refused]) -> pd.DataFrame:
    """The rows of all complete runs of a page, with what tells their runs apart."""
    columns, file = table_of_page(name).names, pages()[name].tables[0].file
    frames = []
    for run in complete_runs(runs, name):
        frame = table_of(run, file).astype(object)
        known = {column.name: column.value(run) for column in COMMON if column.value}
        frame = frame.assign(**known, row=frame.index)
        frames.append(frame.reindex(columns=columns).astype(object))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def best_numbers(runs: Sequence[Evidence | Refused]) -> pd.DataFrame:
    """One row a page, base, machine, preset and setting, as people read it; the main numbers only.

    Best is chosen among runs that asked the same of networks of one shape: a smaller network is
    faster, and no better for it. Of equals the oldest stands.
    """
    groups: dict[tuple[str, ...], list[Number]] = {}
    for run in complete_runs(runs):
        asked = (run_facts.page(run), machine(run), preset(run), run_facts.shape(run))
        for number in run_facts.main_numbers(run):
            if number.value is not None:
                groups.setdefault((*asked, *number.key), []).append(number)
    return pd.DataFrame([_best(group) for group in groups.values()])


def _best(numbers: Sequence[Number]) -> dict[str, object]:
    """The row of the best of numbers of one quantity; of equals the first."""
    sign = 1 if numbers[0].column.better == "higher" else -1
    best = max(numbers, key=lambda number: sign * (number.value or 0.0))
    run = best.run
    return {
        "page": run_facts.page(run),
        "base": best.base,
        "number": best.quantity,
        "best": best.shown,
        "setting": best.setting or UNKNOWN,
        "machine": machine(run),
        "preset": preset(run),
        "run": run.manifest["run"],
        "row": best.row.number if best.row else "all",
        "runs": len(numbers),
        "network": run_facts.shape(run),
    }


class ResultsConfig(Strict):
    """Everything that notebooks/results.ipynb may vary; an empty name chooses all."""

    page: str = ""
    base: str = ""
    machine: str = ""
    preset: str = ""
    reports: str = ""  # folder that holds run folders; empty for the project's own

    @property
    def asked(self) -> dict[str, str]:
        """What was chosen, by name."""
        return {name: value for name, value in self if value and name != "reports"}

    def chooses(self, values: Mapping[str, Any]) -> bool:
        """Whether a run, or a row of a table, was asked for; a value may be several bases."""
        cells = ((values[name], value) for name, value in self.asked.items())
        return all(value in (v if isinstance(v, tuple) else (v,)) for v, value in cells)


class Results(NamedTuple):
    """The chosen part of the history; each of its tables is computed from all runs, then chosen."""

    config: ResultsConfig
    runs: Sequence[Evidence | Refused]

    @property
    def chosen(self) -> list[Evidence | Refused]:
        """The runs that were asked for; of refused ones nothing is known, so all of them."""
        return [run for run in self.runs if isinstance(run, Refused) or self._has(run)]

    def about(self) -> Markdown:
        """What was chosen, and how many runs that leaves."""
        said = ", ".join(f"{name} {value}" for name, value in self.config.asked.items())
        chosen = f"{len(self.chosen)} of {len(self.runs)} runs"
        return Markdown(f"Chosen: {said or 'everything'}; {chosen}.")

    def all_runs(self) -> HTML:
        """The table of runs."""
        none = "no run yet, `make report` makes the first"
        table = run_facts.runs_table(self.chosen)
        return HTML(sortable(table, "All runs, newest first", none=none, filters=FILTERS))

    def best(self) -> HTML:
        """The table of best numbers."""
        table = self._rows(best_numbers(self.runs))
        caption = "Best published number of each page, base, machine and preset"
        return HTML(sortable(table, caption, none="no complete run yet", filters=FILTERS))

    def trends(self) -> Markdown:
        """Figures of what was run at least twice, and a list of what was not."""
        found = trends.trends(self.chosen)
        drawn = [figure.html for figure in trends.figures(found, self.config.base)]
        lone = "\n".join(f"- {sentence}" for sentence in trends.sentences(found))
        said = "A trend needs two complete runs of one page on one machine with equal parameters."
        return Markdown("\n\n".join(part for part in (said, *drawn, lone) if part))

    def regressions(self) -> Markdown:
        """How many numbers changed, and the table of them."""
        rows = self._rows(regressions.regressions(self.runs))
        caption = "The newest run of each page against the one before it, what changed first"
        none = "there is nothing to compare yet"
        table = sortable(regressions.shown(rows), caption, none=none, filters=FILTERS)
        return Markdown(f"{regressions.summary(rows)}\n\n{table}")

    def _has(self, run: Evidence) -> bool:
        facts = {"page": run_facts.page(run), "base": run_facts.bases_of(run)}
        places = {"machine": run_facts.machine(run), "preset": run_facts.preset(run)}
        return self.config.chooses(facts | places)

    def _rows(self, table: pd.DataFrame) -> pd.DataFrame:
        return table.loc[[self.config.chooses(row) for row in table.to_dict("records")]]


def start() -> Results:
    """Check the parameters of the notebook that calls this, then read the runs."""
    given = given_parameters(NAME, running_notebook(NAME).user_ns)
    return results(parse(ResultsConfig, given, source=f"parameters of {NAME}.ipynb"))


def results(config: ResultsConfig) -> Results:
    """The chosen part of the history; ConfigError lists every name that there is not."""
    folder = Path(config.reports) if config.reports else REPORTS
    problems = []
    if config.reports and not folder.is_dir():
        way_out = "name one that holds run folders, or leave it empty for the project's own"
        problems.append(f"reports: no such folder {config.reports!r}; {way_out}")
    runs = checked_runs(folder)
    sound = [run for run in runs if isinstance(run, Evidence)]
    known = {
        "page": pages(),
        "base": dict.fromkeys(base for run in sound for base in run_facts.bases_of(run)),
        "machine": dict.fromkeys(map(run_facts.machine, sound)),
        "preset": PRESETS,
    }
    for name, value in config.asked.items():
        if value not in known[name]:
            near = nearest(value, known[name]) or "."
            listed = ", ".join(known[name]) or "none, for there is no run yet"
            problems.append(f"{name}: unknown {name} {value!r}{near} There are: {listed}")
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"parameters of {NAME}.ipynb:\n{listed}")
    return Results(config, runs)
