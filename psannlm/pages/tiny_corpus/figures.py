"""The figures of the tiny-corpus page: losses, yardsticks, learned sines, the course of steps."""

import math
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from psannlm.evidence import figures
from psannlm.evidence.figures import QUIET, Axes, Draw, Figure, compose
from psannlm.pages.tiny_corpus.tables import Trained, beside_yardsticks
from psannlm.train.pretrained import HIGH, LOW, PARTS

POINTS = 240  # most of a line: what a panel can show, and what keeps a page of long runs light
UNITS = (("h", 3600), ("min", 60), ("s", 1))  # of time: the largest of which there are five is used


def binned(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over equally many consecutive rows, so few that a line has at most POINTS points."""
    together = math.ceil(len(rows) / POINTS) or 1
    return rows.groupby(np.arange(len(rows)) // together).mean(numeric_only=True)


def _smoothing(n: int) -> str:
    """How the line of `n` steps was smoothed, for its caption."""
    together = math.ceil(n / POINTS)
    return "every step" if together <= 1 else f"means of {together:,} consecutive steps"


def _colour(trained: Trained) -> Any:
    base = trained.metrics["base"]
    return figures.palette([base])[base]


def losses(trained: Trained) -> Figure:
    """Training and validation loss against tokens and against time, with the target."""
    unit, size = _unit(float(trained.speed["elapsed_seconds"].max()))
    seconds = trained.losses["step"].map(trained.speed.set_index("step")["elapsed_seconds"])
    panels: dict[str, Draw] = {
        "by tokens": partial(_loss_lines, trained, trained.losses["tokens"], "tokens trained on"),
        "by time": partial(_loss_lines, trained, seconds / size, f"time, {unit}"),
    }
    return compose(
        "training and validation loss",
        panels,
        f"Loss in nats a token. Thin line: training, {_smoothing(len(trained.speed))}, each "
        "taken before its update; bars: its mean over an epoch. Markers: the whole validation "
        "split. The dashed line is the logarithm of the target perplexity. Higher losses of the "
        "first steps are cut off at the top. Time contains the evaluations.",
    )


def _unit(seconds: float) -> tuple[str, int]:
    return next((unit for unit in UNITS if seconds >= 5 * unit[1]), UNITS[-1])


def _loss_lines(trained: Trained, at: pd.Series, xlabel: str, axes: Axes) -> None:
    rows, colour = trained.losses.assign(at=at), _colour(trained)
    kinds = ("step", "evaluation", "epoch")
    steps, evaluations, epochs = (rows[rows["per"] == kind] for kind in kinds)
    thin = binned(steps[["at", "train_loss"]])
    axes.plot(thin["at"], thin["train_loss"], color=colour, linewidth=0.8, label="training")
    starts = [0.0, *epochs["at"]][: len(epochs)]
    mean = "training, mean of an epoch"
    axes.hlines(epochs["train_loss"], starts, epochs["at"], color=colour, linewidth=2.4, label=mean)
    seen = evaluations["val_loss"]
    axes.plot(
        evaluations["at"], seen, color=colour, label="validation", marker="o", markersize=4.5,
        markerfacecolor="none", linestyle="",
    )  # fmt: skip
    target = math.log(trained.metrics["target_perplexity"])
    name = f"perplexity {trained.metrics['target_perplexity']:g} (loss {target:.3f})"
    axes.axhline(target, color=QUIET, linestyle="--", linewidth=1.2, label=name)
    shown = [*seen, *epochs["train_loss"], target]
    room = 0.08 * (max(shown) - min(shown))
    axes.set_ylim(min([*shown, *thin["train_loss"]]) - room, max(shown) + room)
    axes.set_xlim(left=0)
    if xlabel.startswith("tokens"):
        figures.show_short(axes.xaxis)
    axes.set(xlabel=xlabel, ylabel="loss, nats a token")


def yardsticks(trained: Trained) -> Figure:
    """Bits per byte of the network among compressors and the n-gram model."""
    table = beside_yardsticks(trained)
    return compose(
        "bits per byte of the network and of its yardsticks",
        {"validation text": partial(_bits_bars, _colour(trained), table)},
        "Bits that each needs for a byte of the validation text: fewer is better. Hollow bars "
        "have not seen the training text.",
        high=0.9 + 0.36 * len(table),
    )


def _bits_bars(colour: Any, table: pd.DataFrame, axes: Axes) -> None:
    for y, row in table.iterrows():
        bits, mine = row["bits_per_byte"], row["is_network"]
        edge = colour if mine else QUIET
        fill = edge if row["sees_training_text"] else "none"
        axes.barh(y, bits, color=fill, edgecolor=edge, height=0.7)
        figures.beside_bar(axes, f"{bits:.3f}", bits, y, weight="bold" if mine else "normal")
    axes.set_yticks(range(len(table)), list(table["name"]))
    axes.set(xlim=(0, 1.18 * table["bits_per_byte"].max()), xlabel="bits per byte")
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()


def sines(trained: Trained) -> Figure:
    """Distribution of each learned parameter of the damped sine by layer, before and after."""
    if trained.sine.empty:
        caption = f"{trained.metrics['base']} has no damped sine to learn."
        return compose("learned sine parameters", {}, caption)
    panels: dict[str, Draw] = {
        part: partial(_spans, trained, part, letter)
        for part, letter in PARTS.items()
        if trained.sine[f"{part}_after"].notna().any()
    }
    return compose(
        "learned sine parameters by layer, before and after the training",
        panels,
        f"Parameters of the damped sine over the features of a layer: median, half of them "
        f"(thick) and {HIGH - LOW:.0%} (thin); grey before the training, coloured after.",
        high=2.8,
    )


def _spans(trained: Trained, part: str, letter: str, axes: Axes) -> None:
    layers = [str(layer) for layer in trained.sine["layer"].unique()]
    styles = {"before": (QUIET, "s", -0.14), "after": (_colour(trained), "o", 0.14)}
    for when, (colour, marker, shift) in styles.items():
        values = trained.sine.groupby("layer", sort=False)[f"{part}_{when}"]
        spans = values.quantile([LOW, 0.25, 0.5, 0.75, HIGH]).unstack()
        x = np.arange(len(layers)) + shift
        axes.vlines(x, spans[LOW], spans[HIGH], color=colour, linewidth=1)
        axes.vlines(x, spans[0.25], spans[0.75], color=colour, linewidth=3.2)
        axes.plot(x, spans[0.5], color=colour, marker=marker, markersize=5, linestyle="",
                  label=when)  # fmt: skip
    axes.set_xticks(range(len(layers)), layers)
    axes.set(xlim=(-0.5, len(layers) - 0.5), xlabel="layer", ylabel=letter)


def course(trained: Trained, clip_norm: float) -> Figure:
    """Learning rate and gradient norm of the steps."""
    steps, colour = trained.rows("step"), _colour(trained)
    finite = steps["grad_norm"].where(steps["grad_norm"].between(0, math.inf, inclusive="neither"))
    lines = binned(steps[["tokens", "learning_rate"]].assign(grad_norm=finite))
    return compose(
        "learning rate and gradient norm by tokens",
        {
            "learning rate": partial(_course_line, lines, "learning_rate", colour),
            "gradient norm": partial(_course_line, lines, "grad_norm", colour, clip=clip_norm),
        },
        f"Learning rate, and norm of all gradients together before it is clipped, by "
        f"{_smoothing(len(steps))}. Above the dashed line gradients are scaled down to it.",
        high=2.6,
    )


def _course_line(
    lines: pd.DataFrame, name: str, colour: Any, axes: Axes, *, clip: float | None = None
) -> None:
    axes.plot(lines["tokens"], lines[name], color=colour, linewidth=1.2)
    if clip is None:
        axes.set_ylim(bottom=0)
    else:
        axes.axhline(clip, color=QUIET, linestyle="--", linewidth=1.2)
        seen = [clip, *lines[name].dropna()]
        figures.show_log(axes, "y", min(seen) / 1.6, max(seen) * 1.6, (1.0, 2.0, 5.0))
    axes.set_xlim(left=0)
    figures.show_short(axes.xaxis)
    axes.set_xlabel("tokens trained on")
