"""Pieces of the written pages that are computed: history, costs, the sine's curves."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from psannlm import ROOT
from psannlm.config.network import Architecture
from psannlm.config.parse import parse, read_parameters
from psannlm.evidence.figures import DASHES, Axes, Figure, compose
from psannlm.evidence.runs import Evidence, Refused
from psannlm.model.bases import BASES, cost_of
from psannlm.model.cost import Shape
from psannlm.pages.throughput.config import ThroughputConfig
from psannlm.publish import history as history_page
from psannlm.publish import published_page


def computed(runs: Sequence[Evidence | Refused]) -> dict[str, str]:
    """Every piece, by the name of its file in book/results/."""
    sound = [run for run in runs if isinstance(run, Evidence)]
    return {
        "published.md": published_page.page(sound),
        "sine.md": f"{sine_figure().html}\n",
        "costs.md": costs(),
        **history_page.files(runs),
    }


TITLES = {"peer": "Against the published package"}
"""Of notebooks whose file is not called as people call them."""


def title(name: str) -> str:
    """What people call a notebook."""
    return TITLES.get(name, name.replace("_", " ").capitalize())


def costs() -> str:
    """What each base costs in the shape of the GPU sweep, computed from its parameter file."""
    path = ROOT / "params" / "gpu" / "throughput.yaml"
    config = parse(ThroughputConfig, read_parameters(path), source=str(path))
    shape = Shape(1, config.context_length)
    lines = [
        "| base | parameters | without embedding and head | forward, MFLOP a token "
        "| training step, MFLOP a token |",
        "|---|---:|---:|---:|---:|",
    ]
    for base in BASES:
        cost = cost_of(config.network_of(base), shape)
        ends = cost.parameters["embedding"] + cost.parameters["head"]
        forward = cost.model_flops / shape.total / 1e6
        lines.append(
            f"| {base} | {cost.n_parameters:,} | {cost.n_parameters - ends:,} "
            f"| {forward:.2f} | {3 * forward:.2f} |"
        )
    lines += [
        "",
        f"In the shape of `params/gpu/throughput.yaml`: d_model {config.d_model}, "
        f"{config.n_layers} layers, {config.n_heads} heads, d_mlp {config.d_mlp:,}, "
        f"vocabulary {config.vocab_size:,}, context {config.context_length:,}.",
        "",
    ]
    return "\n".join(lines)


def sine_figure() -> Figure:
    """The damped sine for several parameters, beside its derivative."""
    fields = Architecture.model_fields
    start = tuple(fields[f"sine_{p}"].default for p in ("amplitude", "frequency", "decay"))
    settings = [start, (1.0, 2.25, 0.01), (1.0, 1.0, 0.3), (1.5, 0.5, 0.1)]
    return compose(
        "the damped sine and its derivative for four settings",
        {
            "s(z)": partial(_curves, settings, slope=False),
            "ds/dz": partial(_curves, settings, slope=True),
        },
        "The damped sine s(z) = A exp(-d |z|) sin(f z) and its derivative. Unlike GELU it is "
        "bounded, turns back, and passes gradient of either sign at every z.",
    )


def _curves(settings: Sequence[tuple[float, ...]], axes: Axes, *, slope: bool) -> None:
    z = np.linspace(-12, 12, 801)
    for i, (a, f, d) in enumerate(settings):
        y = np.sin(f * z)
        if slope:
            y = f * np.cos(f * z) - d * np.sign(z) * np.sin(f * z)
        name = f"A = {a:g}, f = {f:g}, d = {d:g}" + (" (start)" if i == 0 else "")
        axes.plot(z, a * np.exp(-d * np.abs(z)) * y, label=name, linestyle=DASHES[i])
    axes.set_xlabel("pre-activation z")
