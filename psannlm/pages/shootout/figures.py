"""The figures of the shootout page: differences, losses on the way, and the controls."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from psannlm.evidence import figures as drawing
from psannlm.evidence.figures import QUIET, Axes, Figure, compose
from psannlm.evidence.page import Tables
from psannlm.evidence.table import plain_rows
from psannlm.pages.shootout.arms import all_arms
from psannlm.pages.shootout.prose import Row, compared
from psannlm.pages.shootout.records import ShootoutConfig
from psannlm.pages.shootout.tables import BUDGETS, SURE
from psannlm.train.pretrained import HIGH, LOW, PARTS

SHORT_FROM = 10_000  # numbers of an axis beyond it are shortened: tokens and FLOPs, not seconds
CUT = 0.25  # share of the course whose losses may be cut off at the top, so that its end is legible

AXES = {"tokens": "tokens trained on", "flops": "FLOPs", "seconds": "time of steps, s"}
RINGS: dict[str, Any] = {"s": 16, "facecolors": "none"}  # single trainings
LOSS = "validation loss, nats per token"


def all_figures(tables: Tables, config: ShootoutConfig) -> dict[str, Figure]:
    """Every figure of the page, by name."""
    return {
        "forest": forest(tables, config.baseline),
        "curves": curves(tables),
        "scales": scales(tables["scales.csv"], tables["single scales"]),
        "ablation": ablation(tables["ablation.csv"]),
        "learned": learned(tables["learned.csv"]),
    }


def _styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each arm, in the order that all pages share, whatever their place."""
    asked = list(names)
    arms = [name for name in dict.fromkeys([*all_arms(), *asked]) if name in asked]
    colours, signs = drawing.palette(arms), drawing.markers(arms)
    return {arm: {"color": colours[arm], "marker": signs[arm]} for arm in arms}


def _refused(tables: Tables) -> list[str]:
    """Arms without a place: they are left out of figures that compare."""
    return [row["base"] for row in plain_rows(tables["summary.csv"]) if row["refused"]]


def _left_out(tables: Tables) -> str:
    names = _refused(tables)
    return f" Left out, because refused a place: {', '.join(names)}." if names else ""


def forest(tables: Tables, baseline: str) -> Figure:
    """Paired differences of every arm to the baseline, over seeds and over documents."""
    rows = {row["base"]: row for row in compared(tables)}
    label = f"difference of validation loss to {baseline}"
    if not rows:
        return compose(label, {}, f"No arm has a difference to {baseline} that could be drawn.")
    shown = [rows[name] for name in _styles(rows)]
    seeds = paired_by_seed(tables["runs.csv"], baseline)
    return compose(
        label,
        {f"against {baseline}": partial(_forest, shown, seeds)},
        f"Validation loss of each arm less that of {baseline}, nats per token: left of "
        f"the line is better. Markers and coloured lines: mean over seeds with its "
        f"{SURE} interval. Grey lines below: the same mean with its interval over "
        f"documents. Small rings: single seeds.{_left_out(tables)}",
        high=1.4 + 0.5 * len(shown),
    )


def paired_by_seed(runs: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Validation loss of every arm less the baseline's: a row a seed, a column an arm."""
    good = runs[runs["status"] == "ok"].astype({"val_loss": float})
    losses = good.pivot(index="seed", columns="base", values="val_loss")
    return losses.sub(losses[baseline], axis=0)


def _forest(rows: Sequence[Row], seeds: pd.DataFrame, axes: Axes) -> None:
    styles = _styles(row["base"] for row in rows)
    labels = []
    for y, row in enumerate(rows):
        name, low, twin = row["base"], row["documents_low"], row["same_as"]
        labels.append(f"{name}\n(same as {twin})" if twin else str(name))
        if low is not None:
            axes.hlines(y + 0.2, low, row["documents_high"], color=QUIET, linewidth=2)
        rings = seeds[name].dropna()
        axes.scatter(rings, [y - 0.2] * len(rings), edgecolors=styles[name]["color"], **RINGS)
    _differences(rows, labels, axes)


def _differences(rows: Sequence[Row], labels: Sequence[str], axes: Axes) -> None:
    """A line below another: a difference with its interval over seeds, left of zero is better."""
    styles = _styles(row["base"] for row in rows)
    axes.axvline(0, color=drawing.INK, linewidth=1)
    for y, row in enumerate(rows):
        style, low, high = styles[row["base"]], row["difference_low"], row["difference_high"]
        if low is not None:
            axes.hlines(y, low, high, color=style["color"], linewidth=2.2)
        at = row["difference"] or 0.0  # of what others are compared with, zero
        axes.plot(at, y, markersize=6.5, **style)
    axes.set_yticks(range(len(rows)), labels)
    axes.set(xlabel="nats per token, less is better", ylim=(len(rows) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")


def curves(tables: Tables) -> Figure:
    """Validation loss against tokens, FLOPs and seconds: mean and span of the seeds."""
    table = tables["curves.csv"]
    table = table[~table["base"].isin(_refused(tables))]
    label = "validation loss by tokens, FLOPs and seconds"
    if table.empty:
        return compose(label, {}, f"No curve of a loss was recorded.{_left_out(tables)}")
    return compose(
        label,
        {f"by {BUDGETS[by]}": partial(_curves, over_seeds(table, by), AXES[by]) for by in AXES},
        "Loss on the whole validation split, nats per token: the lower curve is better. Lines are "
        "means over seeds, bands reach from the least to the greatest; solid: bases, dashed: the "
        "transformer with other nonlinearities. Higher losses of the first quarter are cut off at "
        "the top. On the way every arm is inside its own schedule: only ends are what a training "
        f"of that length gives.{_left_out(tables)}",
        high=3.8,
    )


def over_seeds(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """One row an arm and evaluation: mean place on the axis; mean, least and greatest loss."""
    groups = table.astype({by: float, "val_loss": float}).groupby(["base", "step"], sort=False)
    loss = {"mean": ("val_loss", "mean"), "low": ("val_loss", "min"), "high": ("val_loss", "max")}
    return groups.agg(at=(by, "mean"), **loss).reset_index().sort_values(["base", "at"])


def _curves(points: pd.DataFrame, name: str, axes: Axes) -> None:
    for arm, style in _styles(points["base"]).items():
        mine = points[points["base"] == arm]
        band = {"color": style["color"], "alpha": 0.15, "linewidth": 0}
        axes.fill_between(mine["at"], mine["low"], mine["high"], **band)
        line = style | {"linestyle": "--" if arm in drawing.OTHERS else "-", "linewidth": 1.2}
        axes.plot(mine["at"], mine["mean"], label=arm, markersize=3.5, **line)
    shown = points[points["at"] >= CUT * points["at"].max()]
    low, high = shown["low"].min(), shown["high"].max()
    room = 0.06 * (high - low) or 0.05
    axes.set(xlabel=name, ylabel=LOSS, ylim=(low - room, high + room))
    axes.set_xlim(left=0)
    if points["at"].max() >= SHORT_FROM:
        drawing.show_short(axes.xaxis)


def scales(table: pd.DataFrame, singles: pd.DataFrame) -> Figure:
    """Validation loss of each arm by its initial scale: means over seeds, and single trainings."""
    table = table[table["val_loss"].notna()]
    label = "validation loss by initial scale"
    if table.empty:
        return compose(label, {}, "No arm was trained at other initial scales.")
    return compose(
        label,
        {"by initial scale": partial(_scales, table, singles)},
        "Final validation loss by the initial scale: f where the nonlinearity has one, else a "
        "factor of the standard deviation of all initial weights. Lines are means over seeds, "
        "rings single seeds, all at the learning rate that the tuning has chosen. Where "
        "gelu_scaled falls as the sine does, the gain is what helps; where the sine stays lower at "
        "every scale, it is more than that.",
        high=3.8,
    )


def _scales(table: pd.DataFrame, singles: pd.DataFrame, axes: Axes) -> None:
    for arm, style in _styles(table["base"]).items():
        mine = table[table["base"] == arm].sort_values("scale")
        losses = mine["val_loss"].astype(float)
        axes.plot(mine["scale"], losses, label=arm, markersize=6, **style)
        rings = singles[singles["base"] == arm]
        axes.scatter(rings["scale"], rings["val_loss"], edgecolors=style["color"], **RINGS)
    at = sorted(set(table["scale"]))
    axes.set(xlabel="initial scale", ylabel=LOSS, xscale="log")
    axes.set_xticks(at, [f"{scale:g}" for scale in at])
    axes.set_xticks([], minor=True)


def ablation(table: pd.DataFrame) -> Figure:
    """Difference of each subset of learned parameters to all of them learned."""
    table = table.dropna(subset="val_loss")
    label = "the damped sine with some of its parameters frozen"
    if table.empty:
        return compose(label, {}, "No arm was trained with parameters of its sine frozen.")
    groups = table.groupby("base", sort=False)
    return compose(
        label,
        {str(base): partial(_ablation, plain_rows(rows)) for base, rows in groups},
        "Validation loss with only the named parameters of the damped sine learned, the others "
        "frozen at their start, less that with all learned, nats per token: right of the line, "
        f"learning all helps. A is amplitude, f frequency, d decay. Lines are {SURE} "
        "intervals over seeds.",
        high=1.2 + 0.3 * table["learnable"].nunique(),
    )


def _ablation(rows: Sequence[Row], axes: Axes) -> None:
    subsets = [[PARTS[part] for part in PARTS if part in row["learnable"]] for row in rows]
    _differences(rows, [" ".join(letters) or "none" for letters in subsets], axes)
    drawing.show_few(axes.xaxis)


def learned(table: pd.DataFrame) -> Figure:
    """Learned amplitude, frequency and decay of each arm by layer, beside their start."""
    label = "learned parameters of nonlinearities by layer"
    if table.empty:
        return compose(label, {}, "No arm has learned parameters in its nonlinearity.")
    return compose(
        label,
        {
            f"{part} {letter}": partial(_learned, table[table["part"] == part], letter)
            for part, letter in PARTS.items()
            if (table["part"] == part).any()
        },
        "Parameters of the nonlinearities by layer, averaged over seeds: markers are means over "
        f"features after the training, lines hold the {HIGH - LOW:.0%} in the middle, grey dashes "
        "are where they started.",
        high=3.2,
    )


def _learned(rows: pd.DataFrame, letter: str, axes: Axes) -> None:
    styles, layers = _styles(rows["base"]), list(dict.fromkeys(rows["layer"]))
    shifts = np.linspace(-0.3, 0.3, len(styles) + 2)[1:-1]
    for (arm, style), shift in zip(styles.items(), shifts, strict=True):
        mine = rows[rows["base"] == arm].groupby("layer", sort=False)
        means = mine[["before", "after", "low", "high"]].mean()
        x = np.array([layers.index(layer) for layer in means.index]) + shift
        axes.hlines(means["before"], x - 0.12, x + 0.12, color=QUIET, linewidth=2)
        axes.vlines(x, means["low"], means["high"], color=style["color"], linewidth=1.4)
        axes.plot(x, means["after"], label=arm, linestyle="", markersize=5, **style)
    axes.set_xticks(range(len(layers)), layers)
    axes.set(xlabel="layer", ylabel=letter, xlim=(-0.5, len(layers) - 0.5))
