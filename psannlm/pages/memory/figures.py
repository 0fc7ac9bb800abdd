"""The figures of the memory page: what a step needs part by part, and its growth with its size."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import pandas as pd

from psannlm.evidence.figures import (
    INK,
    MARKERS,
    Axes,
    Draw,
    Figure,
    compose,
    palette,
    shades,
    show_short,
)
from psannlm.pages.memory.config import MemoryConfig
from psannlm.pages.memory.tables import PEAK, kinds_of, main_rows
from psannlm.pages.memory.worker import DEFAULT

STATE = ("parameters", "optimizer")
"""Parts that are there all the time, whatever the batch."""

COLUMNS = {
    "saved": ("saved_mib", "activation memory, MiB"),
    "peak": ("peak_allocated_mib", f"{PEAK}, MiB"),
}
"""Of what can be drawn against the size of a step: its column, and its name on an axis."""

MOST_KINDS = 7
"""Kinds of saved tensors that are told apart; smaller ones are drawn together."""

OTHERS = "saved: others"
REST = "more at the peak"
"""What another moment of the step, or working memory, needs beyond the loss."""


def breakdown(table: pd.DataFrame, config: MemoryConfig) -> Figure:
    """Predicted bytes part by part, checkpointing off beside on, with the measured peak.

    Args:
        table: Rows of memory.json.
        config: Of the run.
    """
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
    """MiB of each predicted part of a row, in the order in which they are stacked.

    Together they are the predicted peak.

    Args:
        row: Of memory.json.
        kinds: Of saved tensors, those first that are told apart.
    """
    apart, sizes = kinds[:MOST_KINDS], row["predicted_kinds_mib"]
    found = {name: row[f"predicted_{name}_mib"] for name in STATE}
    found |= {f"saved: {kind}": sizes.get(kind, 0.0) for kind in apart}
    if len(kinds) > MOST_KINDS:
        found[OTHERS] = sum(sizes.get(kind, 0.0) for kind in kinds[MOST_KINDS:])
    found["logits"] = row["predicted_logits_mib"]
    found = {name: 0.0 if pd.isna(size) else size for name, size in found.items()}
    peak = row["predicted_peak_mib"]
    found[REST] = 0.0 if pd.isna(peak) else max(peak - sum(found.values()), 0.0)
    return found


def _stacks(rows: pd.DataFrame, kinds: list[str], axes: Axes) -> None:
    stacks = [parts(row, kinds) for row in rows.to_dict("records")]
    names = list(stacks[0]) if stacks else []
    colours = shades(names, grey=(*STATE, REST))
    left = [0.0] * len(stacks)
    for name in names:
        sizes = [stack[name] for stack in stacks]
        axes.barh(range(len(stacks)), sizes, left=left, color=colours[name], label=name)
        left = [before + size for before, size in zip(left, sizes, strict=True)]
    peaks = rows["peak_allocated_mib"].astype(float)
    axes.plot(
        peaks,
        range(len(peaks)),
        linestyle="",
        marker="D",
        markersize=5,
        color=INK,
        markerfacecolor="none",
        label="measured peak",
    )
    switches = ["on" if on else "off" for on in rows["grad_checkpoint"]]
    labels = [f"{base}, {on}" for base, on in zip(rows["base"], switches, strict=True)]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("MiB, checkpointing off and on")
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()


def growth(table: pd.DataFrame, config: MemoryConfig, what: Literal["saved", "peak"]) -> Figure:
    """Bytes against batch tokens and against context, off and on; no panel without a curve.

    Args:
        table: Rows of memory.json.
        config: Of the run.
        what: What is drawn.
    """
    good = table[(table["status"] == "ok") & (table["variant"] == DEFAULT)]
    curves = {
        "batch tokens": good[good["context_length"] == config.context_length],
        "context": good[good["batch_tokens"] == config.batch_tokens[0]],
    }
    columns = {"batch tokens": "batch_tokens", "context": "context_length"}
    column, name = COLUMNS[what]
    panels: dict[str, Draw] = {}
    for by, rows in curves.items():
        for precision, mine in rows.groupby("amp", sort=False):
            mine = mine[mine[column].notna()]
            if mine[columns[by]].nunique() > 1:
                panels[f"{precision}, by {by}"] = partial(
                    _lines, mine, columns[by], by, column, name
                )
    if not panels:
        return compose(
            name, panels, f"No other batch or context was measured: {name} has no curve."
        )
    return compose(
        f"{name} by batch tokens and context",
        panels,
        f"{name[0].upper()}{name[1:]}, counted or measured: solid lines without checkpointing, "
        f"dotted ones with it. By batch tokens at a context of {config.context_length:,}; "
        f"by context at {config.batch_tokens[0]:,} tokens a step. "
        "Sizes that did not fit have no point, and a row in the table that says so.",
    )


def _lines(rows: pd.DataFrame, x: str, by: str, column: str, name: str, axes: Axes) -> None:
    colours = palette(list(rows["base"]))
    for (base, on), line in rows.groupby(["base", "grad_checkpoint"], sort=False):
        line = line.sort_values(x)
        axes.plot(
            line[x].astype(float),
            line[column].astype(float),
            label=f"{base}, {'on' if on else 'off'}",
            color=colours[base],
            marker=MARKERS[list(colours).index(base) % len(MARKERS)],
            markersize=4,
            linestyle=":" if on else "-",
        )
    axes.set_ylim(0, 1.08 * rows[column].astype(float).max())
    axes.set_xlim(left=0)
    show_short(axes.xaxis)
    axes.set_xlabel(by)
    axes.set_ylabel(name)
