"""The history as files: every published row of every complete run, page by page, oldest first."""

from collections.abc import Mapping, Sequence

import pandas as pd

from psannlm.evidence.rows import table_of
from psannlm.evidence.runs import Evidence, Refused
from psannlm.pages.memory.tables import ROWS
from psannlm.pages.peer.tables import PEER
from psannlm.pages.shootout.tables import SUMMARY
from psannlm.pages.throughput.tables import COLUMNS
from psannlm.pages.tiny_corpus.tables import METRICS
from psannlm.publish.run_facts import complete_runs, machine, torch_version

VALIDATION = (
    "check", "base", "status", "measure", "value", "bound", "device", "seconds", "reason",
)  # fmt: skip
NESTED = ("predicted_kinds_mib",)
"""Columns that hold a table of their own, which stays with the run."""

OWN: Mapping[str, tuple[str, ...]] = {
    "throughput": COLUMNS,
    "memory": tuple(name for name in ROWS if name not in NESTED),
    "validation": VALIDATION,
    "tiny_corpus": METRICS,
    "shootout": SUMMARY,
    "peer": PEER,
}
"""Of each page: the columns of its table."""

COMMON = ("run", "machine", "preset", "torch", "commit", "path", "row")
"""What every row of a history says of its run; `row` is its number in the run's own table."""


def history(page: str, runs: Sequence[Evidence | Refused]) -> pd.DataFrame:
    """The rows of all complete runs of a page, with what tells their runs apart.

    Args:
        page: The name of a notebook.
        runs: All there are, oldest first.
    """
    columns = [*OWN[page], *(name for name in COMMON if name not in OWN[page])]
    frames = []
    for run in complete_runs(runs, page):
        manifest = run.manifest
        frame = table_of(run).astype(object)
        known = {
            "run": manifest["run"],
            "machine": machine(run),
            "preset": manifest["preset"],
            "torch": torch_version(run),
            "commit": manifest["git"]["commit"],
            "path": f"reports/{run.name}",
            "row": frame.index,
        }
        frames.append(frame.assign(**known).reindex(columns=columns).astype(object))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
