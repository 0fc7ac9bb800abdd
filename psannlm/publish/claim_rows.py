"""Where a claim finds its rows: the newest complete run of a page, preset and device."""

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd

from psannlm.config.schema import Strict, Text
from psannlm.config.training import Preset
from psannlm.evidence.rows import TABLES, Row, rows_of
from psannlm.evidence.runs import Evidence, Refused

Page = Literal["validation", "throughput", "memory", "tiny_corpus", "shootout", "peer"]
OTHER = "other_"
"""Opens the names of columns of the row that stands beside."""


class Source(Strict):
    """Rows of one table of one run."""

    page: Page
    preset: Preset
    device: Text
    """As the manifest names it: a claim holds on the machine that it was made on."""

    file: str = ""
    """Another file of the run than the page's published table."""

    where: str = ""
    """Which rows, as pandas' `query` takes it; all of them if empty."""


class LatestRuns:
    """The runs that claims are held against."""

    def __init__(self, runs: Sequence[Evidence | Refused]) -> None:
        """Keep the runs that are sound, complete and whole.

        Args:
            runs: All runs; one restricted by `only` answers for nothing that it left out.
        """
        self._runs = [
            run
            for run in runs
            if isinstance(run, Evidence)
            and run.is_complete
            and not run.manifest["parameters"].get("only")
        ]

    def run(self, source: Source) -> Evidence:
        """The newest run of that page, preset and device.

        Raises:
            ValueError: There is none.
        """
        wanted = source.page, source.preset, source.device
        found = [run for run in self._runs if _kind(run) == wanted]
        if not found:
            raise ValueError(
                f"no complete run of {source.page}, preset {source.preset}, on {source.device}"
            )
        return max(found, key=lambda run: str(run.manifest["started_at"]))

    def rows(self, source: Source) -> list[Row]:
        """The rows that a source selects.

        Raises:
            ValueError: No run, no such file, no row, or a condition that cannot be read.
        """
        run = self.run(source)
        file = source.file or TABLES[source.page]
        if file not in run.manifest["artifacts"]:
            raise ValueError(f"{run.name} has no file {file}")
        try:
            rows = rows_of(run, source.where, file)
        except ValueError as error:
            raise ValueError(f"{run.name}, {file}: {error}") from None
        if not rows:
            raise ValueError(f"{run.name}, {file}: no row is selected by {source.where!r}")
        return rows


def joined(rows: Sequence[Row], beside: Row | None) -> pd.DataFrame:
    """The rows as a table whose index is their number, each with the row beside it."""
    other: dict[str, Any] = {}
    if beside is not None:
        other = {f"{OTHER}{name}": value for name, value in beside.values.items()}
    return pd.DataFrame(
        [dict(row.values) | other for row in rows], index=[row.number for row in rows]
    )


def _kind(run: Evidence) -> tuple[str, str, str]:
    manifest = run.manifest
    return manifest["notebook"], manifest["preset"], manifest["environment"]["device"]
