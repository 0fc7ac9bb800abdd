"""What the cells of results.ipynb call: the history of the runs that its parameters choose."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from IPython.display import HTML, Markdown

from psannlm import REPORTS
from psannlm.config.parse import nearest, parse
from psannlm.config.schema import ConfigError, Strict
from psannlm.evidence.runs import PRESETS, Evidence, Refused
from psannlm.evidence.session import given_parameters, running_notebook
from psannlm.pages.registry import pages
from psannlm.publish import history, regressions, trends
from psannlm.publish.run_facts import bases_of, machine, page, runs_table
from psannlm.run.check import checked_runs

NAME = "results"
"""Of the notebook."""


class ResultsConfig(Strict):
    """Everything that notebooks/results.ipynb may vary; an empty name chooses all."""

    page: str
    base: str
    machine: str
    preset: str
    reports: str
    """Folder that holds run folders; empty for the project's own."""


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
        asked = {name: value for name, value in self.config if value and name != "reports"}
        said = ", ".join(f"{name} {value}" for name, value in asked.items()) or "everything"
        return Markdown(f"Chosen: {said}; {len(self.chosen)} of {len(self.runs)} runs.")

    def all_runs(self) -> HTML:
        """The table of runs."""
        return HTML(history.all_runs(runs_table(self.chosen)))

    def best(self) -> HTML:
        """The table of best numbers."""
        return HTML(history.best(self._rows(history.best_numbers(self.runs))))

    def trends(self) -> Markdown:
        """Figures of what was run at least twice, and a list of what was not."""
        return Markdown(history.trend(trends.trends(self.chosen), self.config.base))

    def regressions(self) -> Markdown:
        """How many numbers changed, and the table of them."""
        rows = self._rows(regressions.regressions(self.runs))
        return Markdown(f"{regressions.summary(rows)}\n\n{history.regressed(rows)}")

    def _has(self, run: Evidence) -> bool:
        asked = self.config
        return (
            asked.page in ("", page(run))
            and asked.machine in ("", machine(run))
            and asked.preset in ("", run.manifest["preset"])
            and (not asked.base or asked.base in bases_of(run))
        )

    def _rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """Rows of a table that were asked for; a cell may name several bases."""
        for name, value in self.config:
            if value and name != "reports":
                fits = [value in (v if isinstance(v, tuple) else (v,)) for v in table[name]]
                table = table[pd.Series(fits, index=table.index, dtype=bool)]
        return table


def start() -> Results:
    """Check the parameters of the notebook that calls this, then read the runs.

    Raises:
        ConfigError: A parameter is unknown, or names what there is not; all are listed.
    """
    given = given_parameters(NAME, running_notebook(NAME).user_ns)
    return results(parse(ResultsConfig, given, source=f"parameters of {NAME}.ipynb"))


def results(config: ResultsConfig) -> Results:
    """The chosen part of the history.

    Raises:
        ConfigError: There is no such folder, page, base, machine or preset; all are listed.
    """
    folder = Path(config.reports) if config.reports else REPORTS
    problems = []
    if config.reports and not folder.is_dir():
        problems.append(
            f"reports: no such folder {config.reports!r}; name one that holds run folders, "
            "or leave it empty for the project's own"
        )
    runs = list(checked_runs(folder))
    problems += _unknown(config, runs)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"parameters of {NAME}.ipynb:\n{listed}")
    return Results(config, runs)


def _unknown(config: ResultsConfig, runs: Collection[Evidence | Refused]) -> Iterator[str]:
    """Names that are not among what there is."""
    sound = [run for run in runs if isinstance(run, Evidence)]
    known = {
        "page": list(dict.fromkeys([*pages(), *map(page, sound)])),
        "base": list(dict.fromkeys(base for run in sound for base in bases_of(run))),
        "machine": list(dict.fromkeys(map(machine, sound))),
        "preset": list(PRESETS),
    }
    for name, there in known.items():
        value = getattr(config, name)
        if value and value not in there:
            near = nearest(value, there) or "."
            listed = ", ".join(there) or "none, for there is no run yet"
            yield f"{name}: unknown {name} {value!r}{near} There are: {listed}"
