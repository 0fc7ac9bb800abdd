"""The figures of the shootout page that compare arms: paired differences, and losses on the way."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from psannlm.evidence.figures import (
    INK,
    OTHERS,
    QUIET,
    Axes,
    Draw,
    Figure,
    compose,
    markers,
    palette,
    show_short,
)
from psannlm.pages.shootout.arms import all_arms
from psannlm.pages.shootout.prose import compared
from psannlm.pages.shootout.tables import Shootout
from psannlm.pages.shootout.views import BUDGETS, SURE, text

SHORT_FROM = 10_000
"""Numbers of an axis are shortened that go beyond it: tokens and FLOPs, not seconds."""

CUT = 0.25
"""Share of the course whose losses may be cut off at the top, so that its end can be read."""

AXES = {"tokens": "tokens trained on", "flops": "FLOPs", "seconds": "time of steps, s"}
"""What losses are drawn against, by the column of the curves."""


def ordered(names: Sequence[str]) -> list[str]:
    """Arms in the order that all pages share, whatever their place."""
    known = list(all_arms())
    return sorted(dict.fromkeys(names), key=lambda n: known.index(n) if n in known else len(known))


def refused(shootout: Shootout) -> list[str]:
    """Arms without a place: they are left out of figures that compare."""
    table = shootout.summary
    return [base for base, why in zip(table["base"], table["refused"], strict=True) if text(why)]


def _left_out(shootout: Shootout) -> str:
    names = refused(shootout)
    return f" Left out, because refused a place: {', '.join(names)}." if names else ""


def forest(shootout: Shootout, asked: Mapping[str, Any]) -> Figure:
    """Paired differences of every arm to the baseline, over seeds and over documents."""
    rows = {row["base"]: row for row in compared(shootout)}
    label = f"difference of validation loss to {asked['baseline']}"
    if not rows:
        return compose(
            label, {}, f"No arm has a difference to {asked['baseline']} that could be drawn."
        )
    shown = [rows[name] for name in ordered(list(rows))]
    seeds = paired_by_seed(shootout.runs, asked["baseline"])
    return compose(
        label,
        {f"against {asked['baseline']}": partial(_forest, shown, seeds)},
        f"Validation loss of each arm less that of {asked['baseline']}, nats per token: left of "
        f"the line is better. Markers and coloured lines: mean over seeds with its "
        f"{SURE} interval. Grey lines below: the same mean with its interval over "
        f"documents. Small rings: single seeds.{_left_out(shootout)}",
        high=1.4 + 0.5 * len(shown),
    )


def paired_by_seed(runs: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Validation loss of every arm less the baseline's: a row a seed, a column an arm."""
    good = runs[runs["status"] == "ok"].astype({"val_loss": float})
    losses = good.pivot(index="seed", columns="base", values="val_loss")
    return losses.sub(losses[baseline], axis=0) if baseline in losses else losses.iloc[:0]


def _forest(rows: list[Mapping[Any, Any]], seeds: pd.DataFrame, axes: Axes) -> None:
    names = [row["base"] for row in rows]
    colours, signs = palette(names), markers(names)
    axes.axvline(0, color=INK, linewidth=1)
    for y, row in enumerate(rows):
        name = row["base"]
        low, high = row["difference_low"], row["difference_high"]
        axes.hlines(y, low, high, color=colours[name], linewidth=2.4)
        axes.plot(row["difference"], y, marker=signs[name], color=colours[name], markersize=7)
        axes.hlines(y + 0.2, row["documents_low"], row["documents_high"], color=QUIET, linewidth=2)
        points = seeds[name].dropna() if name in seeds else []
        axes.plot(
            points,
            [y - 0.2] * len(points),
            linestyle="",
            marker="o",
            markersize=4,
            markerfacecolor="none",
            color=colours[name],
        )
    axes.set_yticks(range(len(rows)), [_named(row) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("nats per token, less is better")
    axes.grid(visible=False, axis="y")


def _named(row: Mapping[Any, Any]) -> str:
    """An arm's name, below it whose network it is too."""
    twin = text(row["same_as"])
    return f"{row['base']}\n(same as {twin})" if twin else str(row["base"])


def curves(shootout: Shootout) -> Figure:
    """Validation loss against tokens, FLOPs and seconds: mean and span of the seeds."""
    table = shootout.curves[~shootout.curves["base"].isin(refused(shootout))]
    label = "validation loss by tokens, FLOPs and seconds"
    if table.empty:
        return compose(label, {}, f"No curve of a loss was recorded.{_left_out(shootout)}")
    panels: dict[str, Draw] = {
        f"by {BUDGETS[by]}": partial(_curves, over_seeds(table, by), name)
        for by, name in AXES.items()
    }
    return compose(
        label,
        panels,
        "Loss on the whole validation split, nats per token: the lower curve is better. Lines are "
        "means over seeds, bands reach from the least to the greatest; solid: bases, dashed: the "
        "transformer with other nonlinearities. Higher losses of the first quarter are cut off at "
        "the top. On the way every arm is inside its own schedule: only ends are what a training "
        f"of that length gives.{_left_out(shootout)}",
        high=3.8,
    )


def over_seeds(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """One row an arm and evaluation: mean place on the axis; mean, least and greatest loss."""
    groups = table.astype({by: float, "val_loss": float}).groupby(["base", "step"], sort=False)
    found = groups.agg(
        at=(by, "mean"),
        mean=("val_loss", "mean"),
        low=("val_loss", "min"),
        high=("val_loss", "max"),
    )
    return found.reset_index().sort_values(["base", "at"])


def _curves(points: pd.DataFrame, name: str, axes: Axes) -> None:
    names = ordered(list(points["base"]))
    colours, signs = palette(names), markers(names)
    for arm in names:
        mine = points[points["base"] == arm]
        axes.fill_between(mine["at"], mine["low"], mine["high"], color=colours[arm], alpha=0.15,
                          linewidth=0)  # fmt: skip
        axes.plot(
            mine["at"],
            mine["mean"],
            label=arm,
            color=colours[arm],
            marker=signs[arm],
            markersize=3.5,
            linewidth=1.2,
            linestyle="--" if arm in OTHERS else "-",
        )
    shown = points[points["at"] >= CUT * points["at"].max()]
    low, high = shown["low"].min(), shown["high"].max()
    room = 0.06 * (high - low) or 0.05
    axes.set_ylim(low - room, high + room)
    axes.set_xlim(left=0)
    if points["at"].max() >= SHORT_FROM:
        show_short(axes.xaxis)
    axes.set_xlabel(name)
    axes.set_ylabel("validation loss, nats per token")
