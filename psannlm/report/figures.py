"""The figures of the report, as SVG that takes the colours of the page around it.

The only module that draws. A base has one colour and one marker, here, for every page.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from html import escape
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import EngFormatter, PercentFormatter

from psannlm.bench.statistics import CONFIDENCE
from psannlm.config import Architecture
from psannlm.model.bases import BASES
from psannlm.report.views import MODES

# Stand-ins that become the page's own text and border colours.
INK, GRID = "#010203", "#040506"
MARKERS = "osD^vPX*<>"
DASHES = ("-", "--", "-.", ":")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=sns.color_palette("colorblind")),
}


Draw = Callable[[Axes], None]


@dataclass(frozen=True)
class Figure:
    """Drawings with one caption; shows itself in a notebook."""

    panels: Mapping[str, str] = field(repr=False)
    """SVG text of each panel, by its name."""

    png: bytes = field(repr=False)
    """All panels as pixels, for viewers that drop SVG."""

    caption: str

    @property
    def html(self) -> str:
        """Panels, side by side where there is room, and the caption."""
        note = f"<figcaption>{escape(self.caption)}</figcaption>"
        return f'<figure><div class="panels">{"".join(self.panels.values())}</div>{note}</figure>'

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return {"text/html": self.html, "image/png": self.png}


def palette(bases: Sequence[str] = tuple(BASES)) -> dict[str, Any]:
    """Colour of each base, distinguishable by the colour-blind; unknown bases get the rest."""
    known = list(dict.fromkeys([*BASES, *bases]))
    return dict(zip(known, sns.color_palette("colorblind", len(known)), strict=True))


def throughput_figure(table: pd.DataFrame) -> Figure:
    """Tokens per second against batch tokens, a line a base, a panel a mode and precision."""
    panels: dict[str, Draw] = {}
    for (mode, precision), rows in table.groupby(["mode", "precision"], sort=False):
        good = rows[rows["status"] == "ok"]
        panels[f"{MODES[str(mode)]}, {precision}"] = partial(_speed_lines, good)
    return _figure(
        "tokens per second by base and batch tokens",
        panels,
        f"Median tokens per second over fresh processes; bars are {CONFIDENCE:.0%} bootstrap "
        "intervals. "
        "The open marker is the baseline measured a second time: its distance from the filled one "
        "is noise. Points of one batch are set side by side.",
    )


def _speed_lines(rows: pd.DataFrame, axes: Axes) -> None:
    batches = sorted(rows["batch_tokens"].unique())
    labels = list(dict.fromkeys(rows["label"]))
    colours = palette(list(rows["base"]))
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
            marker=MARKERS[list(colours).index(base) % len(MARKERS)],
            markerfacecolor="none" if again else colours[base],
            linestyle=":" if again else "-",
            capsize=3,
        )
    axes.set_xticks(range(len(batches)), [f"{tokens:,}" for tokens in batches])
    axes.set_xlim(-0.5, max(len(batches), 1) - 0.5)
    axes.set_ylim(0, 1.08 * rows["tokens_per_s_high"].max() if len(rows) else 1)
    axes.yaxis.set_major_formatter(EngFormatter())
    axes.set_xlabel("batch tokens")
    axes.set_ylabel("tokens/s")


def ceiling_figure(table: pd.DataFrame) -> Figure:
    """Share of the measured matmul rate that each base reaches at its best batch."""
    best = table[(table["status"] == "ok") & (table["verdict"] != "noise floor")]
    best = best.sort_values("mfu", ascending=False)
    best = best.drop_duplicates(["base", "mode", "precision"])
    panels: dict[str, Draw] = {}
    for (mode, precision), _ in table.groupby(["mode", "precision"], sort=False):
        bars = best[(best["mode"] == mode) & (best["precision"] == precision)]
        panels[f"{MODES[str(mode)]}, {precision}"] = partial(_share_bars, bars, str(precision))
    return _figure(
        "share of the measured matmul ceiling by base",
        panels,
        "Matrix-product FLOPs per second at each base's best batch, as a share of the fastest "
        "square matrix product measured in the same run: what is left is spent on norms, "
        "nonlinearities, attention's softmax, memory traffic and start-up.",
        high=2.4,
    )


def _share_bars(bars: pd.DataFrame, precision: str, axes: Axes) -> None:
    colours = palette(list(bars["base"]))
    at = range(len(bars))
    axes.barh(at, bars["mfu"].astype(float), color=[colours[base] for base in bars["base"]])
    for y, share in zip(at, bars["mfu"], strict=True):
        axes.annotate(f" {share:.0%}", (share, y), va="center")
    axes.set_yticks(at, bars["base"])
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel(f"share of the {precision} matmul rate")
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()


def sine_figure() -> Figure:
    """The damped sine for several parameters, beside its derivative."""
    fields = Architecture.model_fields
    start = tuple(fields[f"sine_{p}"].default for p in ("amplitude", "frequency", "decay"))
    settings = [start, (1.0, 2.25, 0.01), (1.0, 1.0, 0.3), (1.5, 0.5, 0.1)]
    return _figure(
        "the damped sine and its derivative for four settings",
        {
            "s(z)": partial(_sine_curves, settings, slope=False),
            "ds/dz": partial(_sine_curves, settings, slope=True),
        },
        "The damped sine s(z) = A exp(-d |z|) sin(f z) and its derivative. Unlike GELU it is "
        "bounded, turns back, and passes gradient of either sign at every z.",
    )


def _sine_curves(settings: Sequence[tuple[float, ...]], axes: Axes, *, slope: bool) -> None:
    z = np.linspace(-12, 12, 801)
    for i, (a, f, d) in enumerate(settings):
        y = np.sin(f * z)
        if slope:
            y = f * np.cos(f * z) - d * np.sign(z) * np.sin(f * z)
        name = f"A = {a:g}, f = {f:g}, d = {d:g}" + (" (start)" if i == 0 else "")
        axes.plot(z, a * np.exp(-d * np.abs(z)) * y, label=name, linestyle=DASHES[i])
    axes.set_xlabel("pre-activation z")


def _figure(label: str, panels: Mapping[str, Draw], caption: str, *, high: float = 3.4) -> Figure:
    """Draw each panel as an SVG of its own, and all of them as pixels; `high` in inches."""
    with plt.rc_context(STYLE | {"svg.hashsalt": label}):
        drawn = {
            name: _panel(f"{label}: {name}", name, draw, high) for name, draw in panels.items()
        }
        columns = min(len(panels), 2)
        rows = math.ceil(len(panels) / 2)
        canvas, grid = plt.subplots(
            rows, columns, squeeze=False, layout="constrained", figsize=(5 * columns, high * rows)
        )
        for axes, (name, draw) in zip(grid.flat, panels.items(), strict=False):
            draw(axes)
            axes.set_title(name, fontsize="medium")
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize="x-small")
        out = io.BytesIO()
        canvas.savefig(out, format="png", dpi=72, facecolor="white")
        plt.close(canvas)
    return Figure(drawn, out.getvalue(), caption)


def _panel(label: str, title: str, draw: Draw, high: float) -> str:
    canvas, axes = plt.subplots(layout="constrained", figsize=(4.4, high))
    draw(axes)
    axes.set_title(title, fontsize="medium")
    handles, names = axes.get_legend_handles_labels()
    if handles:
        canvas.legend(handles, names, loc="outside lower center", ncols=2, fontsize="small")
    text = _svg(canvas, label)
    plt.close(canvas)
    return text


def _svg(canvas: Canvas, label: str) -> str:
    """The drawing as text that inherits colours and font from the page around it."""
    out = io.StringIO()
    canvas.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = text.replace(INK, "currentColor").replace(GRID, "var(--pst-color-border, #bbb)")
    text = text.replace("sans-serif", "inherit")
    safe = escape(label, quote=True)
    return text.replace("<svg ", f'<svg role="img" aria-label="{safe}" ', 1)
