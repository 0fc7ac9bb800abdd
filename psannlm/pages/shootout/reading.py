"""What stands below the tables of the shootout page: how to read them, and what they leave out."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from psannlm.evidence.text import number
from psannlm.pages.shootout.comparison import FEWEST_SEEDS, SMALLEST_EFFECT
from psannlm.pages.shootout.prose import Row, count
from psannlm.pages.shootout.tables import Shootout
from psannlm.pages.shootout.views import is_true, text


def reading(shootout: Shootout, asked: Mapping[str, Any]) -> str:
    """How to read the tables: what is compared with what, and whom the design disfavours."""
    lines = [
        "**A place** is one more than the number of networks that are separated as better. Arms "
        "that share a place were not told apart; that is not the same as equal, and it does not "
        "pass on: the first may be separated from the third while the second is from neither. "
        "Places are corrected for all pairs of arms, verdicts for those with the baseline alone: "
        "an arm may be better than the baseline and still share its place.",
        _gates(shootout),
        "**Two intervals.** Over seeds: would other weights and another order of the text say the "
        "same? Over documents: would other texts? An arm is better or worse only if seeds, "
        "documents, and both drawn anew together say so, after Holm's correction for all arms, by "
        f"more than {SMALLEST_EFFECT:g} nats, with at least {FEWEST_SEEDS} seeds. Seeds are "
        "paired: an arm's loss less the baseline's at the same seed, with the same order of the "
        "text.",
        *_tuned(shootout, asked),
        _widths(shootout, asked),
        "**Equal FLOPs, equal seconds** are read off the same curves, at the most that all "
        "trainings reach. The dearer arm is cut before the end of its own schedule, at a learning "
        "rate that has not yet fallen: that disfavours it. These differences are not corrected "
        "for their number, and have no interval over documents.",
        _speed(asked),
        *_left_out(shootout),
    ]
    return "\n".join(f"- {line}" for line in lines if line)


def _speed(asked: Mapping[str, Any]) -> str:
    """What trainings that share a machine say of speed."""
    if asked["scheduler"]:
        return "**Speed** is that of the workers that trained: arms are comparable if these are."
    if asked["cells_at_once"] < 2:
        return ""
    return (
        f"**Speed** is that of trainings that ran {asked['cells_at_once']} at a time: what one of "
        "them gets of the machine depends on its neighbours, which are of all arms in turn."
    )


def _gates(shootout: Shootout) -> str:
    """What was asked of every network before it was ranked."""
    passed = [gate for gate in shootout.gates if not gate.refused]
    if not passed:
        return ""
    apart = [gate for gate in passed if gate.nearest and not gate.same_as]
    said = (
        "**Gates**: of every arm that has a place, a changed token moves no logit before it by "
        f"more than {max(gate.leak for gate in passed):.1e} of the largest, with noisy parameters "
        "and as trained."
    )
    if apart:
        near = min(apart, key=lambda gate: gate.distance)
        said += (
            f" The two arms nearest to one another, {near.arm} and {near.nearest}, differ by "
            f"{near.distance:.2g} of their logits at equal weights."
        )
    return said


def _tuned(shootout: Shootout, asked: Mapping[str, Any]) -> Iterator[str]:
    """How large the grids were, and whose best setting may lie beyond."""
    rates, scaled = asked["learning_rates"], asked["scaled_learning_rates"]
    frequencies = asked["scaled_frequencies"]
    yield (
        f"**Tuning**: {count(len(rates), 'setting')} for every arm, with seed "
        f"{asked['tuning_seed']}, which is none of the compared ones: learning rates "
        f"{_values(rates)}; for arms whose nonlinearity has an initial f, learning rates "
        f"{_values(scaled)} with f {_values(frequencies)}. What lies between or beyond was not "
        "tried."
    )
    edges = [
        f"{row['base']} ({setting_of(row)})"
        for row in shootout.summary.to_dict("records")
        if is_true(row["grid_edge"])
    ]
    if edges:
        yield (
            f"**At the edge** of their grids: {', '.join(edges)}. A better setting may lie beyond, "
            "so these arms may be shown worse than they are."
        )


def setting_of(row: Row) -> str:
    """The setting that the tuning of an arm has chosen."""
    rate = f"learning rate {number(row['learning_rate'], 'g')}"
    frequency = row["sine_frequency"]
    return rate if pd.isna(frequency) else f"{rate}, f {frequency:g}"


def _widths(shootout: Shootout, asked: Mapping[str, Any]) -> str:
    """What arms have in common, and what they have not."""
    rows = shootout.summary.to_dict("records")
    if asked["match"] == "width":
        sizes = _sizes(rows, "n_parameters")
        return f"**Width** is equal, d_mlp {asked['d_mlp']:,}; parameters are not: {sizes}."
    return (
        f"**Parameters** are as many as those of {asked['baseline']}, as near as d_mlp can come: "
        f"{_sizes(rows, 'd_mlp')}. FLOPs and time are not equal."
    )


def _sizes(rows: Iterable[Row], column: str) -> str:
    return ", ".join(f"{row['base']} {number(row[column], ',.0f')}" for row in rows)


def _left_out(shootout: Shootout) -> Iterator[str]:
    """Why an arm has no place, or fewer seeds."""
    for row in shootout.summary.to_dict("records"):
        if why := text(row["refused"]):
            yield f"**{row['base']}** has no place: {why}. Its numbers are shown, not compared."
    short = [
        f"{row['base']} {row['n_failed']:.0f}"
        for row in shootout.summary.to_dict("records")
        if row["n_failed"]
    ]
    if short:
        yield (
            f"**Failed** of the compared trainings: {', '.join(short)}. Means are over those that "
            "finished, differences over the seeds that both arms finished."
        )


def lm_eval(shootout: Shootout, asked: Mapping[str, Any]) -> str:
    """How to read the scores of lm-eval, or how to ask for them."""
    if shootout.scores.empty and not asked["with_lm_eval"]:
        return (
            "No scores of lm-eval: they were not asked for. `with_lm_eval: true` asks for "
            f"{', '.join(asked['lm_eval_tasks']) or 'the tasks in lm_eval_tasks'}, of every "
            "compared training."
        )
    if shootout.scores.empty:
        return "No scores of lm-eval: no compared training came to its end."
    return (
        "A standard error is over the items of a task. An effect smaller than the one shown "
        "is likely to be missed with so many items; where chance is shown, it is the smallest one "
        "above chance."
    )


def _values(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
