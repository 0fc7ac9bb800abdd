"""The figure of the validation page: how near each measure comes to its bound."""

from collections.abc import Sequence
from functools import partial

from psannlm.checks.findings import Finding
from psannlm.evidence.figures import QUIET, Axes, Figure, compose, markers, palette, show_log

LEAST, MOST = 1e-4, 10.0  # where the axis ends; what lies beyond is drawn at its end


def bound_ratios(findings: Sequence[Finding]) -> Figure:
    """Every measure by the share of its bound, a row a check, a marker a base."""
    judged = [finding for finding in findings if finding.measures]
    panels = {"measures": partial(_strains, judged)} if judged else {}
    return compose(
        "measures relative to their bounds by check and base",
        panels,
        "Every measure relative to its bound, on a logarithmic scale: at 1 lies the bound, right "
        "of it a check fails. Where the bound is the least that is allowed, it is the bound "
        f"relative to the measure. What lies below {LEAST:g} or above {MOST:g} is drawn at that "
        "end.",
        high=4.2,
    )


def _strains(findings: Sequence[Finding], axes: Axes) -> None:
    checks = list(dict.fromkeys(finding.check for finding in findings))
    bases = list(dict.fromkeys(finding.base for finding in findings))
    colours, shapes = palette(bases), markers(bases)
    axes.axvline(1.0, color=QUIET, linestyle="--", label="bound")
    for i, base in enumerate(bases):
        shift = (i - (len(bases) - 1) / 2) * 0.8 / len(bases)
        points = [(m, f.check) for f in findings if f.base == base for m in f.measures]
        axes.scatter(
            [min(max(m.bound_ratio, LEAST), MOST) for m, _ in points],
            [checks.index(check) + shift for _, check in points],
            label=base,
            color=colours[base],
            marker=shapes[base],
            s=18,
            clip_on=False,
        )
    axes.set_yticks(range(len(checks)), checks)
    axes.set_ylim(len(checks) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    show_log(axes, "x", LEAST, MOST)
    axes.set_xlabel("value relative to its bound")
