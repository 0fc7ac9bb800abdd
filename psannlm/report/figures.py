"""The figures of the report, as SVG that takes the colours of the page around it.

The only module that draws. A base has one colour and one marker, here, for every page.
"""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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

from psannlm.config import Architecture
from psannlm.model.bases import BASES

# Stand-ins that become the page's own text and border colours.
INK, GRID = "#010203", "#040506"
MARKERS = "osD^vPX*<>"
MODES = {"forward": "forward", "train_step": "training step"}


@dataclass(frozen=True)
class Figure:
    """A drawing with its caption; shows itself in a notebook."""

    svg: str
    png: bytes
    caption: str

    @property
    def html(self) -> str:
        """Drawing and caption."""
        return f"<figure>{self.svg}<figcaption>{escape(self.caption)}</figcaption></figure>"

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return {"text/html": self.html, "image/png": self.png}


def palette(bases: Sequence[str] = tuple(BASES)) -> dict[str, Any]:
    """Colour of each base, distinguishable by the colour-blind; unknown bases get the rest."""
    known = list(dict.fromkeys([*BASES, *bases]))
    return dict(zip(known, sns.color_palette("colorblind", len(known)), strict=True))


def throughput_figure(table: pd.DataFrame) -> Figure:
    """Tokens per second against batch tokens, a line a base, a panel a mode and precision."""
    panels = list(table[["mode", "precision"]].drop_duplicates().itertuples(index=False))
    with _drawing(len(panels), "tokens/s by base and batch tokens, with intervals") as drawing:
        for axes, (mode, precision) in zip(drawing.axes, panels, strict=True):
            rows = table[(table["mode"] == mode) & (table["precision"] == precision)]
            _speed_lines(axes, rows[rows["status"] == "ok"])
            axes.set_xlabel("batch tokens")
            axes.set_ylabel("tokens/s")
            axes.set_title(f"{MODES[mode]}, {precision}", fontsize="medium")
        _legend(drawing)
    return drawing.figure(
        "Median tokens per second over fresh processes; bars are 95% bootstrap intervals. "
        "The open marker is the baseline measured a second time: its distance from the filled one "
        "is noise. Points of one batch are set side by side."
    )


def _speed_lines(axes: Axes, rows: pd.DataFrame) -> None:
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
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(EngFormatter())


def ceiling_figure(table: pd.DataFrame) -> Figure:
    """Share of the measured matmul rate that each base reaches at its best batch."""
    rows = table[(table["status"] == "ok") & (table["verdict"] != "noise floor")]
    rows = rows.sort_values("mfu", ascending=False)
    rows = rows.drop_duplicates(["base", "mode", "precision"])
    panels = list(table[["mode", "precision"]].drop_duplicates().itertuples(index=False))
    with _drawing(len(panels), "share of the measured matmul ceiling by base", high=0.8) as drawing:
        for axes, (mode, precision) in zip(drawing.axes, panels, strict=True):
            bars = rows[(rows["mode"] == mode) & (rows["precision"] == precision)]
            colours = palette(list(bars["base"]))
            at = range(len(bars))
            axes.barh(at, bars["mfu"].astype(float), color=[colours[b] for b in bars["base"]])
            for y, share in zip(at, bars["mfu"], strict=True):
                axes.annotate(f" {share:.0%}", (share, y), va="center")
            axes.set_yticks(at, bars["base"])
            axes.set_xlim(0, 1)
            axes.xaxis.set_major_formatter(PercentFormatter(1))
            axes.set_xlabel(f"share of the {precision} matmul rate")
            axes.set_title(f"{MODES[mode]}, {precision}", fontsize="medium")
            axes.grid(visible=False, axis="y")
            axes.invert_yaxis()
    return drawing.figure(
        "Matrix-product FLOPs per second at each base's best batch, as a share of the fastest "
        "square matrix product measured in the same run: what is left is spent on norms, "
        "nonlinearities, attention's softmax, memory traffic and start-up."
    )


def sine_figure() -> Figure:
    """The damped sine for several parameters, beside its derivative."""
    z = np.linspace(-12, 12, 801)
    settings = [(1.0, 1.0, 0.01), (1.0, 2.25, 0.01), (1.0, 1.0, 0.3), (1.5, 0.5, 0.1)]
    start = Architecture.model_fields
    first = tuple(start[f"sine_{p}"].default for p in ("amplitude", "frequency", "decay"))
    with _drawing(2, "the damped sine and its derivative for four settings") as drawing:
        for i, (a, f, d) in enumerate(dict.fromkeys([first, *settings])):
            name = f"A = {a:g}, f = {f:g}, d = {d:g}" + (" (start)" if i == 0 else "")
            decay = np.exp(-d * np.abs(z))
            slope = a * decay * (f * np.cos(f * z) - d * np.sign(z) * np.sin(f * z))
            for axes, y in zip(drawing.axes, (a * decay * np.sin(f * z), slope), strict=True):
                axes.plot(z, y, label=name, linestyle=("-", "--", "-.", ":")[i % 4])
        for axes, name in zip(drawing.axes, ("s(z)", "ds/dz"), strict=True):
            axes.set_xlabel("pre-activation z")
            axes.set_ylabel(name)
        _legend(drawing)
    return drawing.figure(
        "The damped sine s(z) = A exp(-d |z|) sin(f z) and its derivative. Unlike GELU it is "
        "bounded, turns back, and passes gradient of either sign at every z."
    )


class _Drawing:
    """Panels while they are drawn, then the finished text and pixels."""

    def __init__(self, canvas: Canvas, axes: Sequence[Axes], label: str) -> None:
        self.canvas, self.axes, self.label = canvas, axes, label
        self.svg, self.png = "", b""

    def figure(self, caption: str) -> Figure:
        return Figure(self.svg, self.png, caption)


@contextmanager
def _drawing(n_panels: int, label: str, *, high: float = 1.0) -> Iterator[_Drawing]:
    """Panels in the style of the report; rendered when the block ends."""
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": label,
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
    with plt.rc_context(style):
        rows = math.ceil(n_panels / 2)
        columns = min(n_panels, 2)
        canvas, grid = plt.subplots(
            rows,
            columns,
            squeeze=False,
            layout="constrained",
            figsize=(4.4 * columns, 3.4 * high * rows),
        )
        for spare in list(grid.flat)[n_panels:]:
            spare.set_visible(False)
        drawing = _Drawing(canvas, list(grid.flat)[:n_panels], label)
        try:
            yield drawing
            drawing.svg = _svg(canvas, label)
            out = io.BytesIO()
            canvas.savefig(out, format="png", dpi=90, facecolor="white")
            drawing.png = out.getvalue()
        finally:
            plt.close(canvas)


def _legend(drawing: _Drawing) -> None:
    handles, names = drawing.axes[0].get_legend_handles_labels()
    columns = min(len(names), 3)
    drawing.canvas.legend(handles, names, loc="outside lower center", ncols=columns)


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
