"""The sentences of the comparison with the published package, from what its run states."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from psannlm.bench.statistics import CONFIDENCE, FEWEST_REPEATS, SMALLEST_EFFECT
from psannlm.evidence.text import interval, number
from psannlm.pages.peer.tables import NOT_COMPARED, SAVED, Comparison
from psannlm.pages.peer.views import WORKS, package, pairs

SETTINGS = {
    "best": "each with the fastest settings it offers",
    "defaults": "each as it comes",
}
"""What people call a setting, the one that is told first first."""


def answer(found: Comparison, parameters: Mapping[str, Any]) -> str:
    """What the run found; every number is taken from its tables.

    Args:
        found: The tables of the run.
        parameters: Of the run.
    """
    both = pairs(found.rows)
    compared = both[(both["status"] == "ok") & (both["status_published"] == "ok")]
    lines = [
        *_speeds(compared[compared["work"] != SAVED], parameters),
        *_bytes(compared[compared["work"] == SAVED], parameters),
        *_failures(found),
    ]
    n_repeats = parameters["n_repeats"]
    if n_repeats < FEWEST_REPEATS:
        lines.append(
            f"With {_processes(n_repeats)} a row, no difference of speed is called one: a verdict "
            f"needs {FEWEST_REPEATS}. These numbers prove that the page runs, no more."
        )
    return "\n".join(f"- {line}" for line in lines)


def _processes(n: int) -> str:
    return f"{n} fresh process{'' if n == 1 else 'es'}"


def _speeds(compared: pd.DataFrame, parameters: Mapping[str, Any]) -> Iterator[str]:
    """A sentence a setting and precision: the ratio of every work and base."""
    for setting, name in SETTINGS.items():
        of_setting = compared[compared["setting"] == setting]
        for precision, rows in of_setting.groupby("precision", sort=False):
            said = "; ".join(
                f"{WORKS[str(work)]} " + ", ".join(_ratio(row) for row in mine.to_dict("records"))
                for work, mine in rows.groupby("work", sort=False)
            )
            yield (
                f"**Speed of ours to that of {package(parameters)}**, {name}, {precision} "
                f"({CONFIDENCE:.0%} intervals): {said}."
            )


def _ratio(row: Mapping[Any, Any]) -> str:
    ratio = interval(row["ratio"], row["ratio_low"], row["ratio_high"], ".2f")
    return f"**{row['base']}** {ratio} × ({row['verdict']})"


def _bytes(compared: pd.DataFrame, parameters: Mapping[str, Any]) -> Iterator[str]:
    """A sentence a setting and precision: what a training step keeps for backward."""
    for setting, name in SETTINGS.items():
        of_setting = compared[compared["setting"] == setting]
        for precision, rows in of_setting.groupby("precision", sort=False):
            said = "; ".join(
                f"**{row['base']}** {row['value']:,.1f} MiB against "
                f"{row['value_published']:,.1f} ({row['ratio']:.2f} ×, {row['verdict']})"
                for row in rows.to_dict("records")
            )
            yield (
                f"**Kept for backward**, ours against {package(parameters)}, {name}, {precision}: "
                f"{said}."
            )


def _failures(found: Comparison) -> Iterator[str]:
    rows = found.rows
    failed = rows[rows["status"] != "ok"]
    if failed.empty:
        return
    reasons = "; ".join(dict.fromkeys(str(reason) for reason in failed["reason"]))
    alone = int((rows["verdict"] == NOT_COMPARED).sum())
    without = f", which leaves {alone} of ours without a ratio" if alone else ""
    yield f"{len(failed)} of {len(rows)} rows failed{without}: {reasons}."


def reading(found: Comparison, parameters: Mapping[str, Any]) -> str:
    """How to read the tables: what was chosen, how both sides were measured, and the noise."""
    rows = found.rows
    lines = [
        "**Defaults** are what a package does when it is asked for nothing but the shape; **best** "
        "is the fastest that it offers for the same work. What each chose stands beside its rows.",
        f"**Noise.** Ours was measured twice under two names. The ratio of the two strayed from 1 "
        f"by up to {number(rows['noise_floor'].max(), '.1%')}, its interval included; a "
        f"difference within that of its own row, or below {SMALLEST_EFFECT:.0%}, is "
        "*not separated*.",
        f"**Replication.** Each row is {_processes(parameters['n_repeats'])}, in blocks "
        "shuffled anew, both packages in each block; intervals are over processes, ratios are "
        "paired within blocks. Both are timed by the same loop, in interpreters of their own with "
        "the same torch.",
        "**Kept for backward** are all storages that autograd keeps between forward and backward, "
        "each counted once, parameters left out. They are counted, not timed: there is no "
        "interval, and any difference is one.",
        "**Bases of one name** are two implementations of one idea; how far their sizes agree is "
        "in the column of parameters.",
    ]
    return "\n".join(f"- {line}" for line in lines)
