"""How figures are drawn: panels of SVG that take the colours of the page around them.

The only module that knows the drawing library; what a page draws stands in a module of its own. A
base has one colour and one marker, here, for every page; so has an arm of a shootout.
"""

import io
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from typing import Any, Literal, get_args

import matplotlib.pyplot as plt
import seaborn as sns
from cycler import cycler
from matplotlib import ticker
from matplotlib.axes import Axes as Axes
from matplotlib.axis import Axis

from psannlm.config.network import Nonlinearity
from psannlm.model.bases import BASES

INK, GRID = "#010203", "#040506"  # become the page's own text and border colours
QUIET = "#8a8a8a"  # of what stands beside the bases; legible on light and on dark
MARKERS = "osD^XPv*<>"
DASHES = ("-", "--", "-.", ":")
COLOURS = (0, 1, 2, 3, 5, 9, 4, 6, 7, 8)
"""Of seaborn's colour-blind palette, those first that are told apart as thin lines on white."""

PLAIN, *OTHERS = get_args(Nonlinearity)  # an arm with the first is the base `transformer`

DRAWING = re.compile(r"<svg\b.*?</svg>", re.DOTALL)
IDENTIFIER = re.compile(r'\sid="([^"]*)"')
USE = re.compile(r'(url\(#|href="#)([^)"]+)')
COORDINATE = re.compile(r'\s(?:d|x|y|x1|x2|y1|y2|width|height|transform|points)="[^"]*"')
DIGITS = re.compile(r"(\.\d\d)\d+")
METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
FONTS = re.compile(r"font-family: [^;\"]*\binherit(?:; )?")  # a list with inherit in it is void
GAP = re.compile(r">\s+<")

STYLE: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), GRID),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "svg.fonttype": "none",
    "font.size": 10,
    "grid.linewidth": 0.5,
    "axes.prop_cycle": cycler(color=sns.color_palette("colorblind")),
}

Draw = Callable[[Axes], None]


@dataclass(frozen=True)
class Figure:
    """Drawings with one caption; shows itself in a notebook."""

    panels: Mapping[str, str] = field(repr=False)  # SVG text of each panel, by its name
    png: bytes = field(repr=False)  # all panels as pixels, for viewers that drop SVG
    caption: str

    @property
    def html(self) -> str:
        """Panels, side by side where there is room, and the caption."""
        note = f"<figcaption>{escape(self.caption)}</figcaption>"
        return f'<figure><div class="panels">{"".join(self.panels.values())}</div>{note}</figure>'

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return {"text/html": self.html} | ({"image/png": self.png} if self.png else {})


def palette(names: Sequence[str] = tuple(BASES)) -> dict[str, Any]:
    """Colour of each base and of the arms in `names`, distinguishable by the colour-blind.

    An arm that is a nonlinearity of the transformer has its own, the plain one the transformer's.
    """
    colours = sns.color_palette("colorblind")
    return {name: colours[COLOURS[at % len(COLOURS)]] for name, at in _places(names).items()}


def markers(names: Sequence[str] = tuple(BASES)) -> dict[str, str]:
    """Marker of each base and of the arms in `names`, as stable as their colours."""
    return {name: MARKERS[at % len(MARKERS)] for name, at in _places(names).items()}


def _places(names: Sequence[str]) -> dict[str, int]:
    """Where each base and each of `names` stands in the fixed order of colours and markers."""
    known = dict.fromkeys([*BASES, *OTHERS, *(name for name in names if name != PLAIN)])
    places = {name: at for at, name in enumerate(known) if name in BASES or name in names}
    return places | ({PLAIN: places["transformer"]} if PLAIN in names else {})


def shades(names: Sequence[str], *, grey: Sequence[str] = ()) -> dict[str, Any]:
    """Colour of each part of a whole, in their order; those of `grey` step back behind the rest."""
    bright = [name for name in names if name not in grey]
    colours = dict(zip(bright, sns.color_palette("husl", len(bright)), strict=True))
    quiet = sns.color_palette("Greys", len(grey) + 2)[1:-1]
    colours |= dict(zip(grey, quiet, strict=True))
    return {name: colours[name] for name in names}


def show_short(axis: Axis) -> None:
    """Numbers of an axis as 10 k, 2 M."""
    axis.set_major_formatter(ticker.EngFormatter())


def show_percent(axis: Axis) -> None:
    """Shares of an axis as percent."""
    axis.set_major_formatter(ticker.PercentFormatter(1))


def show_few(axis: Axis) -> None:
    """At most five numbers on an axis, for long ones."""
    axis.set_major_locator(ticker.MaxNLocator(5))


def show_log(
    axes: Axes, side: Literal["x", "y"], low: float, high: float, subs: Sequence[float] = (1.0,)
) -> None:
    """A logarithmic axis from `low` to `high`; plain numbers at these multiples of every decade."""
    axes.set(**{f"{side}scale": "log", f"{side}lim": (low, high)})
    axis = getattr(axes, f"{side}axis")
    axis.set_major_locator(ticker.LogLocator(subs=subs))
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))


def beside_bar(axes: Axes, text: str, x: float, y: float, **style: Any) -> None:
    """A number at the end of a horizontal bar."""
    axes.annotate(text, (x, y), xytext=(4, 0), textcoords="offset points", va="center", **style)


def compose(label: str, panels: Mapping[str, Draw], caption: str, *, high: float = 3.4) -> Figure:
    """Draw each panel as an SVG of its own, `high` inches, and all of them as pixels.

    The label says what is shown to those who cannot see it. No panels make a figure of its
    caption alone.
    """
    if not panels:
        return Figure({}, b"", caption)
    with plt.rc_context(STYLE | {"svg.hashsalt": label}):
        drawn = {name: _panel(label, name, draw, high) for name, draw in panels.items()}
        rows, columns = shape = math.ceil(len(panels) / 2), min(len(panels), 2)
        size = (5 * columns, high * rows)
        canvas, grid = plt.subplots(*shape, squeeze=False, layout="constrained", figsize=size)
        for axes, (name, draw) in zip(grid.flat, panels.items(), strict=False):
            draw(axes)
            axes.set_title(name, fontsize="medium")
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize="x-small")
        for empty in list(grid.flat)[len(panels) :]:
            empty.remove()
        out = io.BytesIO()
        canvas.savefig(out, format="png", dpi=72, facecolor="white")
        plt.close(canvas)
    return Figure(drawn, out.getvalue(), caption)


def _panel(label: str, title: str, draw: Draw, high: float) -> str:
    """The drawing as text that inherits colours and font from the page around it."""
    canvas, axes = plt.subplots(layout="constrained", figsize=(4.4, high))
    draw(axes)
    axes.set_title(title, fontsize="medium")
    handles, names = axes.get_legend_handles_labels()
    if handles:
        canvas.legend(handles, names, loc="outside lower center", ncols=2, fontsize="small")
    out, label = io.StringIO(), f"{label}: {title}"
    canvas.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(canvas)
    text = "<svg" + out.getvalue().partition("<svg")[2]
    text = text.replace(INK, "currentColor").replace(GRID, "var(--pst-color-border, #bbb)")
    text = text.replace("sans-serif", "inherit")
    text = slim(text, f"d{sha256(label.encode()).hexdigest()[:8]}")
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def with_unique_ids(html: str, page: str) -> str:
    """The HTML with every drawing slim, and its names told apart from those of all others.

    `page` distinguishes this HTML from other pieces of the same page.
    """
    numbers = itertools.count(1)
    return DRAWING.sub(lambda drawing: slim(drawing[0], f"{page}-{next(numbers)}"), html)


def slim(drawing: str, prefix: str) -> str:
    """One SVG without names that nothing refers to, gaps and digits below a hundredth point.

    The prefix begins the names that are left.
    """
    used = {name for _, name in USE.findall(drawing)}
    drawing = IDENTIFIER.sub(
        lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", drawing
    )
    drawing = USE.sub(lambda found: f"{found[1]}{prefix}-{found[2]}", drawing)
    drawing = GAP.sub("><", FONTS.sub("", METADATA.sub("", drawing)))
    return COORDINATE.sub(
        lambda place: " " + " ".join(DIGITS.sub(r"\1", place[0]).split()), drawing
    )
