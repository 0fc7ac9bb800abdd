"""The figures of the shootout page on its controls: initial scale, ablation, what was learned."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from psannlm.evidence.figures import (
    INK,
    QUIET,
    Axes,
    Draw,
    Figure,
    compose,
    markers,
    palette,
    show_few,
)
from psannlm.pages.shootout.figures import ordered
from psannlm.pages.shootout.records import Setting
from psannlm.pages.shootout.tables import Shootout
from psannlm.pages.shootout.views import SURE
from psannlm.train.learned import HIGH, LOW, PARTS


def scales(shootout: Shootout, asked: Mapping[str, Any]) -> Figure:
    """Validation loss of each arm by its initial scale."""
    table = shootout.scales[shootout.scales["val_loss"].notna()]
    label = "validation loss by initial scale"
    if table.empty:
        return compose(label, {}, "No arm was trained at other initial scales.")
    return compose(
        label,
        {"by initial scale": partial(_scales, table, single_seeds(shootout, asked))},
        "Final validation loss by the initial scale: f where the "
        "nonlinearity has one, else a factor of the standard deviation of all initial weights. "
        "Lines are means over seeds, rings single seeds, all at the learning rate that the tuning "
        "has chosen. Where gelu_scaled falls as the sine does, the gain is what helps; where the "
        "sine stays lower at every scale, it is more than that.",
        high=3.8,
    )


def single_seeds(shootout: Shootout, asked: Mapping[str, Any]) -> pd.DataFrame:
    """Loss of every single training behind the means of the scales: a row a training."""
    summary = shootout.summary
    has_frequency = dict(zip(summary["base"], summary["sine_frequency"].notna(), strict=True))
    rows = []
    for row in shootout.scales.to_dict("records"):
        start = asked["sine_frequency"], asked["init_std"] * row["scale"]
        if has_frequency[row["base"]]:
            start = row["scale"], asked["init_std"]
        wanted = Setting(row["learning_rate"], *start, tuple(asked["learnable"]))
        rows += [
            {"base": record.arm, "scale": row["scale"], "val_loss": record.val_loss}
            for record in shootout.records
            if (record.arm, record.setting, record.status) == (row["base"], wanted, "ok")
            and record.seed in asked["seeds"][: asked["side_seeds"]]
        ]
    return pd.DataFrame(rows, columns=["base", "scale", "val_loss"])


def _scales(table: pd.DataFrame, singles: pd.DataFrame, axes: Axes) -> None:
    names = ordered(list(table["base"]))
    colours, signs = palette(names), markers(names)
    for arm in names:
        mine = table[table["base"] == arm].sort_values("scale")
        axes.plot(
            mine["scale"],
            mine["val_loss"].astype(float),
            label=arm,
            color=colours[arm],
            marker=signs[arm],
            markersize=6,
        )
        rings = singles[singles["base"] == arm]
        axes.plot(
            rings["scale"],
            rings["val_loss"],
            linestyle="",
            marker="o",
            markersize=4,
            markerfacecolor="none",
            color=colours[arm],
        )
    axes.set_xscale("log")
    at = sorted(set(table["scale"]))
    axes.set_xticks(at, [f"{scale:g}" for scale in at])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("initial scale")
    axes.set_ylabel("validation loss, nats per token")


def ablation(shootout: Shootout) -> Figure:
    """Difference of each subset of learned parameters to all of them learned."""
    table = shootout.ablation[shootout.ablation["val_loss"].notna()]
    label = "the damped sine with some of its parameters frozen"
    panels: dict[str, Draw] = {
        str(base): partial(_ablation, str(base), rows)
        for base, rows in table.groupby("base", sort=False)
    }
    if not panels:
        return compose(label, {}, "No arm was trained with parameters of its sine frozen.")
    return compose(
        label,
        panels,
        "Validation loss with only the named parameters of the damped sine learned, the others "
        "frozen at their start, less that with all learned, nats per token: right of the line, "
        f"learning all helps. A is amplitude, f frequency, d decay. Lines are {SURE} "
        "intervals over seeds.",
        high=1.2 + 0.3 * table["learnable"].nunique(),
    )


def _ablation(base: str, rows: pd.DataFrame, axes: Axes) -> None:
    colour, sign = palette([base])[base], markers([base])[base]
    axes.axvline(0, color=INK, linewidth=1)
    for y, row in enumerate(rows.to_dict("records")):
        is_all = row["verdict"] == "baseline"
        axes.hlines(y, row["difference_low"], row["difference_high"], color=colour, linewidth=2)
        axes.plot(0 if is_all else row["difference"], y, marker=sign, color=colour, markersize=6)
    axes.set_yticks(range(len(rows)), [_letters(subset) for subset in rows["learnable"]])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    show_few(axes.xaxis)
    axes.set_xlabel("nats per token, less is better")
    axes.grid(visible=False, axis="y")


def _letters(subset: str) -> str:
    """A subset of learned parameters by its letters."""
    return " ".join(letter for part, letter in PARTS.items() if part in subset) or "none"


def learned(shootout: Shootout) -> Figure:
    """Learned amplitude, frequency and decay of each arm by layer, beside their start."""
    table = shootout.learned
    label = "learned parameters of nonlinearities by layer"
    panels: dict[str, Draw] = {
        f"{part} {letter}": partial(_learned, table[table["part"] == part], letter)
        for part, letter in PARTS.items()
        if (table["part"] == part).any()
    }
    if not panels:
        return compose(label, {}, "No arm has learned parameters in its nonlinearity.")
    return compose(
        label,
        panels,
        "Parameters of the nonlinearities by layer, averaged over seeds: markers are means over "
        f"features after the training, lines hold the {HIGH - LOW:.0%} in the middle, grey dashes "
        "are where they started.",
        high=3.2,
    )


def _learned(rows: pd.DataFrame, letter: str, axes: Axes) -> None:
    names, layers = ordered(list(rows["base"])), list(dict.fromkeys(rows["layer"]))
    colours, signs = palette(names), markers(names)
    shifts = np.linspace(-0.3, 0.3, len(names) + 2)[1:-1]
    for arm, shift in zip(names, shifts, strict=True):
        mine = rows[rows["base"] == arm].groupby("layer", sort=False)
        means = mine[["before", "after", "low", "high"]].mean()
        x = np.array([layers.index(layer) for layer in means.index]) + shift
        axes.hlines(means["before"], x - 0.12, x + 0.12, color=QUIET, linewidth=2)
        axes.vlines(x, means["low"], means["high"], color=colours[arm], linewidth=1.4)
        axes.plot(x, means["after"], linestyle="", marker=signs[arm], markersize=5,
                  color=colours[arm], label=arm)  # fmt: skip
    axes.set_xticks(range(len(layers)), [str(layer) for layer in layers])
    axes.set_xlim(-0.5, len(layers) - 0.5)
    axes.set_xlabel("layer")
    axes.set_ylabel(letter)
