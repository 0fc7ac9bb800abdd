"""The figures of the memory page: what a step needs part by part, and its growth with its size."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd

from psannlm.evidence import figures
from psannlm.evidence.figures import Axes, Draw, Figure, compose
from psannlm.pages.memory.records import DEFAULT, MemoryConfig
from psannlm.pages.memory.tables import MEASURED, PEAK, kinds_of, main_rows

NAMES = {"saved": "activation memory, MiB", "peak": f"{PEAK}, MiB"}  # on axes
STATE = ("parameters", "optimizer")  # parts that are there all the time, whatever the batch
MOST_KINDS = 7  # of saved tensors are told apart; smaller ones are drawn together
REST = "more at the peak"  # of another moment of the step, or working memory, than of the loss


def breakdown(table: pd.DataFrame, config: MemoryConfig) -> Figure:
    """Predicted bytes part by part, checkpointing off beside on, with the measured peak."""
    shown = main_rows(table[table["variant"] == DEFAULT], config)
    kinds = kinds_of(shown)  # of all panels, so that a kind has one colour
    panels: dict[str, Draw] = {
        str(precision): partial(_stacks, rows, kinds)
        for precision, rows in shown.groupby("amp", sort=False)
    }
    return compose(
        "predicted memory of a training step, part by part",
        panels,
        "Bars are predicted from the configuration, up to the peak that it predicts: what a step "
        "holds all the time (grey), and what is there beside it when the loss is computed, which "
        "is all that is saved for backward, by kind, and logits. Where backward, whose gradients "
        "take the place of saved tensors, or working memory needs more than that, the bar ends in "
        f"*{REST}*. The diamond is the measured {PEAK} over a whole step; what lies between it "
        "and the end of its bar is not predicted. A bar without one failed.",
        high=1.4 + 0.55 * shown["base"].nunique() * 2,
    )


def parts(row: Mapping[Any, Any], kinds: list[str]) -> dict[str, float]:
    """MiB of each predicted part of a row, as they are stacked; together the predicted peak.

    Of `kinds` of saved tensors the first are told apart.
    """
    sizes = row["predicted_kinds_mib"]
    found = {name: row[f"predicted_{name}_mib"] for name in STATE}
    found |= {f"saved: {kind}": sizes.get(kind, 0.0) for kind in kinds[:MOST_KINDS]}
    if len(kinds) > MOST_KINDS:
        found["saved: others"] = sum(sizes.get(kind, 0.0) for kind in kinds[MOST_KINDS:])
    found["logits"] = row["predicted_logits_mib"]
    found = {name: 0.0 if pd.isna(size) else size for name, size in found.items()}
    peak = row["predicted_peak_mib"]
    found[REST] = 0.0 if pd.isna(peak) else max(peak - sum(found.values()), 0.0)
    return found


def _stacks(rows: pd.DataFrame, kinds: list[str], axes: Axes) -> None:
    stacks = pd.DataFrame([parts(row, kinds) for row in rows.to_dict("records")])
    colours = figures.shades(list(stacks), grey=(*STATE, REST))
    left = stacks.cumsum(axis=1) - stacks
    for name in stacks:
        axes.barh(stacks.index, stacks[name], left=left[name], color=colours[name], label=name)
    peaks = rows["peak_allocated_mib"].astype(float)
    diamond: dict[str, Any] = {"marker": "D", "markersize": 5, "markerfacecolor": "none"}
    at = range(len(peaks))
    axes.plot(peaks, at, linestyle="", color=figures.INK, label="measured peak", **diamond)
    switches = rows["grad_checkpoint"].map({False: "off", True: "on"})
    axes.set_yticks(at, rows["base"] + ", " + switches)
    axes.set_xlabel("MiB, checkpointing off and on")
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()


def growth(table: pd.DataFrame, config: MemoryConfig, what: str) -> Figure:
    """Bytes, saved or peak, against batch tokens and context, off and on; none without a curve."""
    column, name = MEASURED[what], NAMES[what]
    good = table[(table["status"] == "ok") & (table["variant"] == DEFAULT) & table[column].notna()]
    by_batch = good[good["context_length"] == config.context_length]
    by_context = good[good["batch_tokens"] == config.batch_tokens[0]]
    panels: dict[str, Draw] = {
        f"{precision}, by {by}": partial(_lines, mine, x, by, column, name)
        for rows, x, by in (
            (by_batch, "batch_tokens", "batch tokens"),
            (by_context, "context_length", "context"),
        )
        for precision, mine in rows.groupby("amp", sort=False)
        if mine[x].nunique() > 1
    }
    if not panels:
        return Figure({}, b"", f"No other batch or context was measured: {name} has no curve.")
    return compose(
        f"{name} by batch tokens and context",
        panels,
        f"{name[0].upper()}{name[1:]}, counted or measured: solid lines without checkpointing, "
        f"dotted ones with it. By batch tokens at a context of {config.context_length:,}; "
        f"by context at {config.batch_tokens[0]:,} tokens a step. "
        "Sizes that did not fit have no point, and a row in the table that says so.",
    )


def _lines(rows: pd.DataFrame, x: str, by: str, column: str, name: str, axes: Axes) -> None:
    colours, markers = figures.palette(list(rows["base"])), figures.markers(list(rows["base"]))
    for (base, on), line in rows.groupby(["base", "grad_checkpoint"], sort=False):
        line = line.sort_values(x).astype({x: float, column: float})
        name_of, style = (f"{base}, on", ":") if on else (f"{base}, off", "-")
        [drawn] = axes.plot(line[x], line[column], style, label=name_of, color=colours[base])
        drawn.set(marker=markers[base], markersize=4)
    axes.set_ylim(0, 1.08 * rows[column].astype(float).max())
    axes.set_xlim(left=0)
    figures.show_short(axes.xaxis)
    axes.set_xlabel(by)
    axes.set_ylabel(name)
