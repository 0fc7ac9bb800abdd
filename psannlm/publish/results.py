"""What the cells of results.ipynb call: the history of the runs that its parameters choose."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown

from psannlm import REPORTS
from psannlm.config.parse import nearest, parse
from psannlm.config.schema import ConfigError, Strict
from psannlm.evidence.runs import PRESETS, Evidence, Refused
from psannlm.evidence.session import given_parameters, running_notebook
from psannlm.pages.registry import pages
from psannlm.publish import history, regressions, run_facts, trends
from psannlm.run.check import checked_runs

NAME = "results"  # of the notebook


class ResultsConfig(Strict):
    """Everything that notebooks/results.ipynb may vary; an empty name chooses all."""

    page: str
    base: str
    machine: str
    preset: str
    reports: str  # folder that holds run folders; empty for the project's own

    @property
    def asked(self) -> dict[str, str]:
        """What was chosen, by name."""
        return {name: value for name, value in self if value and name != "reports"}

    def chooses(self, values: Mapping[str, Any]) -> bool:
        """Whether a run, or a row of a table, was asked for; a value may be several bases."""
        cells = ((values[name], value) for name, value in self.asked.items())
        return all(value in (v if isinstance(v, tuple) else (v,)) for v, value in cells)


@dataclass(frozen=True)
class Results:
    """The chosen part of the history; each of its tables is computed from all runs, then chosen."""

    config: ResultsConfig
    runs: list[Evidence | Refused]

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
        return HTML(history.all_runs(run_facts.runs_table(self.chosen)))

    def best(self) -> HTML:
        """The table of best numbers."""
        return HTML(history.best(self._rows(history.best_numbers(self.runs))))

    def trends(self) -> Markdown:
        """Figures of what was run at least twice, and a list of what was not."""
        return Markdown(history.trend(trends.trends(self.chosen), self.config.base))

    def regressions(self) -> Markdown:
        """How many numbers changed, and the table of them."""
        return Markdown(history.regressed(self._rows(regressions.regressions(self.runs))))

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
    runs = list(checked_runs(folder))
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
