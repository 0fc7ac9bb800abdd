"""The figure of the comparison with the published package: ratios by base, with intervals."""

from functools import partial

import pandas as pd

from psannlm.bench.statistics import CONFIDENCE
from psannlm.evidence.figures import QUIET, Axes, Draw, Figure, compose, markers, palette
from psannlm.pages.peer.records import OURS, SAVED, WORK


def ratios(rows: pd.DataFrame) -> Figure:
    """Ours to the published package's, a mark a base and setting, a panel a work and precision."""
    ours = rows[(rows["side"] == OURS) & (rows["status"] == "ok") & rows["ratio"].notna()]
    panels: dict[str, Draw] = {}
    for (work, precision), mine in ours.groupby(["work", "precision"], sort=False):
        of = "bytes" if work == SAVED else "speed"
        panels[f"{WORK.show(work)}, {precision}"] = partial(_marks, mine, of)
    return compose(
        "ours to the published package by base and setting",
        panels,
        "Ratio of ours to the published package's: above 1 ours is faster, and of what is saved "
        "for backward, below 1 ours saves less. The filled mark is each package with its fastest "
        f"choices, the open one each by its defaults. Bars are {CONFIDENCE:.0%} bootstrap "
        "intervals over fresh processes, paired by block; bytes have none."
        if panels
        else "No base of either package could be compared; the tables have the reasons.",
        high=3.0,
    )


def _marks(rows: pd.DataFrame, of: str, axes: Axes) -> None:
    bases = list(dict.fromkeys(rows["base"]))
    settings = list(dict.fromkeys(rows["setting"]))
    colours, shapes = palette(bases), markers(bases)
    for row in rows.itertuples():
        shift = settings.index(row.setting) - (len(settings) - 1) / 2
        axes.errorbar(
            row.ratio,
            bases.index(row.base) + 0.24 * shift,
            xerr=[[row.ratio - row.ratio_low], [row.ratio_high - row.ratio]],
            color=colours[row.base],
            marker=shapes[row.base],
            markerfacecolor=colours[row.base] if row.setting == "best" else "none",
            linestyle="",
            capsize=3,
        )
    for setting in settings:
        face = QUIET if setting == "best" else "none"
        axes.plot(
            [], [], label=setting, color=QUIET, marker="o", markerfacecolor=face, linestyle=""
        )
    axes.axvline(1, color=QUIET, linestyle="--", linewidth=1)
    axes.set_xlim(0, 1.1 * max(1.0, rows["ratio"].max(), rows["ratio_high"].fillna(0).max()))
    axes.set_ylim(-0.5, len(bases) - 0.5)
    axes.set_yticks(range(len(bases)), bases)
    axes.set_xlabel(f"ours / published, {of}")
    axes.invert_yaxis()
