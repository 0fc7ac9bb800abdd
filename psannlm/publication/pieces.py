"""Pieces of the written pages that are computed: answers, history, costs, the sine's curves."""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from psannlm import ROOT
from psannlm.architecture import Architecture
from psannlm.config import CONFIGS, ThroughputConfig
from psannlm.model.bases import BASES, cost_of
from psannlm.model.cost import Shape
from psannlm.parameters import parse, read_parameters
from psannlm.publication import history
from psannlm.report import (
    memory_tables,
    memory_words,
    peer_tables,
    peer_words,
    shootout_files,
    shootout_gain,
    shootout_words,
    throughput_views,
    training_tables,
    training_views,
    validation_tables,
    validation_views,
    views,
)
from psannlm.report.figures import DASHES, Axes, Figure, compose
from psannlm.report.runs import Evidence, Refused, best_run


def computed(runs: Sequence[Evidence | Refused]) -> dict[str, str]:
    """Every piece, by the name of its file in book/results/."""
    sound = [run for run in runs if isinstance(run, Evidence)]
    return {
        "answers.md": answers(sound),
        "history.md": history_page(runs),
        "validation_history.csv": _csv(history.validation_history(runs)),
        "throughput_history.csv": _csv(history.throughput_history(runs)),
        "memory_history.csv": _csv(history.memory_history(runs)),
        "tiny_corpus_history.csv": _csv(history.training_history(runs)),
        "shootout_history.csv": _csv(history.shootout_history(runs)),
        "peer_history.csv": _csv(history.peer_history(runs)),
        "sine.md": f"{sine_figure().html}\n",
        "costs.md": costs(),
    }


def answers(runs: Sequence[Evidence]) -> str:
    """What each notebook's best run found, for the landing page."""
    best = {name: best_run(name, list(runs)) for name in CONFIGS}
    if not any(best.values()):
        return "No complete run yet: `make report` makes the first.\n"
    said = []
    for name, run in best.items():
        if run is None:
            said.append(f"**{title(name)}.** No complete run yet.\n")
            continue
        manifest = run.manifest
        said.append(
            f"**{title(name)}.** Run {manifest['run']} on {manifest['environment']['device']}, "
            f"preset {manifest['preset']}: [the page](results/{name}).\n\n{ANSWERS[name](run)}\n"
        )
    return "\n".join(said)


TITLES = {"peer": "Against the published package"}
"""Of notebooks whose file is not called as people call them."""


def title(name: str) -> str:
    """What people call a notebook."""
    return TITLES.get(name, name.replace("_", " ").capitalize())


def _validation_answer(run: Evidence) -> str:
    return validation_views.answer(validation_tables.of_run(run.folder))


def _throughput_answer(run: Evidence) -> str:
    table = pd.read_csv(io.StringIO(run.text("throughput.csv")))
    parameters = run.manifest["parameters"]
    return throughput_views.answer(table, parameters["baseline"], parameters["n_repeats"])


def _memory_answer(run: Evidence) -> str:
    return memory_words.answer(memory_tables.read(run), run.manifest["parameters"])


def _training_answer(run: Evidence) -> str:
    return training_views.answer(training_tables.read(run.folder), run.manifest)


def _shootout_answer(run: Evidence) -> str:
    shootout, asked = shootout_files.read(run), run.manifest["parameters"]
    return f"{shootout_words.answer(shootout, asked)}\n{shootout_gain.control(shootout, asked)}"


def _peer_answer(run: Evidence) -> str:
    return peer_words.answer(peer_tables.read(run), run.manifest["parameters"])


ANSWERS: Mapping[str, Callable[[Evidence], str]] = {
    "validation": _validation_answer,
    "throughput": _throughput_answer,
    "memory": _memory_answer,
    "tiny_corpus": _training_answer,
    "shootout": _shootout_answer,
    "peer": _peer_answer,
}
"""Of each notebook: what one of its runs found, as Markdown."""


def history_page(runs: Sequence[Evidence | Refused]) -> str:
    """The page that lists every run."""
    table = "No run yet: `make report` makes the first."
    if runs:
        table = views.sortable(history.runs_table(runs), "All runs, newest first")
    trainings = history.training_history(runs)
    lines = [
        "# History",
        "",
        "Every run whose folder lies under `reports/`: what is shown elsewhere is the newest "
        "complete run of the highest preset (gpu over cpu over smoke). A run that was altered, "
        "or whose numbers contradict its samples, is refused, and named here.",
        "",
        table,
        "",
        "Every finding of every complete validation: {download}`validation_history.csv`. "
        "Every throughput row of every complete run, with its device: "
        "{download}`throughput_history.csv`. Every memory row: {download}`memory_history.csv`. "
        "Every arm of every shootout: {download}`shootout_history.csv`. "
        "Every row of every comparison with the published package: "
        "{download}`peer_history.csv`.",
        "",
    ]
    if len(trainings):
        shown = training_views.history_rows(trainings)
        lines += [
            "## Trainings",
            "",
            views.sortable(shown, "All complete trainings, newest first"),
            "",
            "The same with every digit: {download}`tiny_corpus_history.csv`.",
            "",
        ]
    return "\n".join(lines)


def _csv(frame: pd.DataFrame) -> str:
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text


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
