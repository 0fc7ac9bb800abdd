"""The best number published of each page, base, machine and preset, and the run it came from."""

from collections.abc import Sequence

import pandas as pd

from psannlm.evidence.runs import Evidence, Refused
from psannlm.evidence.text import UNKNOWN
from psannlm.publish.numbers import Number, numbers_of
from psannlm.publish.run_facts import complete_runs, machine, page, shape

COLUMNS = (
    "page", "base", "number", "best", "setting", "machine", "preset", "run", "row", "runs",
    "network",
)  # fmt: skip


def best_numbers(runs: Sequence[Evidence | Refused]) -> pd.DataFrame:
    """One row a page, base, machine, preset and setting, as people read it; the main numbers only.

    Best is chosen among runs that asked the same of networks of one shape: a smaller network is
    faster, and no better for it. Of equals the oldest stands.
    """
    groups: dict[tuple[str, ...], list[Number]] = {}
    for run in complete_runs(runs):
        for number in numbers_of(run):
            if number.is_main and number.value is not None:
                asked = (page(run), machine(run), str(run.manifest["preset"]), shape(run))
                groups.setdefault((*asked, *number.key), []).append(number)
    rows = [_row(group) for group in groups.values()]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def best_of(numbers: Sequence[Number]) -> Number:
    """The best of numbers of one quantity; of equals the first."""
    sign = 1 if numbers[0].quantity.higher_is_better else -1
    return max(numbers, key=lambda number: sign * (number.value or 0.0))


def _row(numbers: Sequence[Number]) -> dict[str, object]:
    best = best_of(numbers)
    run = best.run
    return {
        "page": page(run),
        "base": best.base,
        "machine": machine(run),
        "preset": run.manifest["preset"],
        "number": best.quantity.name,
        "setting": best.setting or UNKNOWN,
        "best": best.shown,
        "run": run.manifest["run"],
        "row": "all" if best.row is None else best.row,
        "runs": len(numbers),
        "network": shape(run),
    }
