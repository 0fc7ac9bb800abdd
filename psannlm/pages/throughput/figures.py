"""The figures of the throughput page: speed by batch, and the share of the measured ceiling."""

from functools import partial

import numpy as np
import pandas as pd

from psannlm.bench.statistics import CONFIDENCE
from psannlm.evidence import figures
from psannlm.evidence.figures import Axes, Draw, Figure
from psannlm.pages.throughput.records import MODE
from psannlm.pages.throughput.tables import EMULATED, compared_rows


def speed(table: pd.DataFrame) -> Figure:
    """Tokens per second against batch tokens, a line a base, a panel a mode and precision."""
    shown = table[table["verdict"] != EMULATED]
    panels: dict[str, Draw] = {
        f"{MODE.show(mode)}, {precision}": partial(_speed_lines, rows[rows["status"] == "ok"])
        for (mode, precision), rows in shown.groupby(["mode", "precision"], sort=False)
    }
    return figures.compose(
        "tokens per second by base and batch tokens",
        panels,
        f"Median tokens per second over fresh processes; bars are {CONFIDENCE:.0%} bootstrap "
        "intervals. The open marker is the baseline measured a second time: its distance from the "
        "filled one is noise. Points of one batch are set side by side.",
    )


def _speed_lines(rows: pd.DataFrame, axes: Axes) -> None:
    batches, labels = sorted(rows["batch_tokens"].unique()), list(dict.fromkeys(rows["label"]))
    colours, markers = figures.palette(list(rows["base"])), figures.markers(list(rows["base"]))
    for i, label in enumerate(labels):
        line = rows[rows["label"] == label].sort_values("batch_tokens")
        base = line["base"].iloc[0]
        shift = (i - (len(labels) - 1) / 2) * 0.08
        x = [batches.index(tokens) + shift for tokens in line["batch_tokens"]]
        speed = line["tokens_per_s"].to_numpy(float)
        reach = np.abs([speed - line["tokens_per_s_low"], line["tokens_per_s_high"] - speed])
        again = label != base
        axes.errorbar(
            x,
            speed,
            reach.astype(float),
            label=label,
            color=colours[base],
            marker=markers[base],
            markerfacecolor="none" if again else colours[base],
            linestyle=":" if again else "-",
            capsize=3,
        )
    axes.set_xticks(range(len(batches)), [f"{tokens:,}" for tokens in batches])
    axes.set_xlim(-0.5, max(len(batches), 1) - 0.5)
    axes.set_ylim(0, 1.08 * rows["tokens_per_s_high"].max() if len(rows) else 1)
    figures.show_short(axes.yaxis)
    axes.set_xlabel("batch tokens")
    axes.set_ylabel("tokens/s")


def ceiling(table: pd.DataFrame) -> Figure:
    """Share of the measured matmul rate that each base reaches at its best batch."""
    best = compared_rows(table).sort_values("mfu", ascending=False)
    best = best.drop_duplicates(["base", "mode", "precision"])
    panels: dict[str, Draw] = {}
    shown = table[table["verdict"] != EMULATED]
    for (mode, precision), _ in shown.groupby(["mode", "precision"], sort=False):
        bars = best[(best["mode"] == mode) & (best["precision"] == precision)]
        panels[f"{MODE.show(mode)}, {precision}"] = partial(_share_bars, bars, str(precision))
    return figures.compose(
        "share of the measured matmul ceiling by base",
        panels,
        "Matrix-product FLOPs per second at each base's best batch, as a share of the fastest "
        "square matrix product measured in the same run: what is left is spent on norms, "
        "nonlinearities, attention's softmax, memory traffic and start-up.",
        high=2.4,
    )


def _share_bars(bars: pd.DataFrame, precision: str, axes: Axes) -> None:
    colours = figures.palette(list(bars["base"]))
    at = range(len(bars))
    axes.barh(at, bars["mfu"].astype(float), color=[colours[base] for base in bars["base"]])
    for y, share in zip(at, bars["mfu"], strict=True):
        figures.beside_bar(axes, f"{share:.0%}", share, y)
    axes.set_yticks(at, bars["base"])
    axes.set_xlim(0, 1)
    figures.show_percent(axes.xaxis)
    axes.set_xlabel(f"share of the {precision} matmul rate")
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()
