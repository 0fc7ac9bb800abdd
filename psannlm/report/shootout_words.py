"""The sentences of the shootout page, from its tables and what was asked."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import pandas as pd

from psannlm.report.shootout_tables import Shootout
from psannlm.report.shootout_views import SURE, amount, is_true, text
from psannlm.report.views import interval, number
from psannlm.shootout.comparison import FEWEST_SEEDS, SMALLEST_EFFECT

Row = Mapping[Any, Any]

SEPARATED = ("better", "worse")


def answer(shootout: Shootout, asked: Mapping[str, Any]) -> str:
    """What the run found, in five lines at most; every number is taken from its tables.

    Args:
        shootout: Of the run.
        asked: Parameters of the run, by name.
    """
    lines = [
        _terms(shootout, asked),
        _per_token(shootout, asked),
        _per_budget(shootout, asked),
        _per_byte(shootout, asked),
        _exceptions(shootout),
    ]
    return "\n".join(f"- {line}" for line in lines if line)


def has_verdict(asked: Mapping[str, Any]) -> bool:
    """Whether there are seeds enough, in a run that is no smoke test, to call arms separated."""
    return len(asked["seeds"]) >= FEWEST_SEEDS and asked["preset"] != "smoke"


def _terms(shootout: Shootout, asked: Mapping[str, Any]) -> str:
    """What was compared on what; that it settles nothing, where it does not."""
    n = len(asked["seeds"])
    tokens = shootout.runs["train_tokens"].dropna()
    each = f", {tokens.max():,.0f} tokens a training" if len(tokens) else ""
    said = (
        f"{_count(n, 'seed')} an arm{each}, of the corpus `{PurePath(asked['corpus']).stem}`; "
        f"differences are to {asked['baseline']}, in nats per token (less is better)"
        + (f", with {SURE} intervals over seeds." if n > 1 else ".")
    )
    if asked["preset"] == "smoke":
        said += " **It settles nothing**: a smoke run is too short and too small for a verdict."
    elif n < FEWEST_SEEDS:
        said += f" **It settles nothing**: a verdict needs {FEWEST_SEEDS} seeds."
    return said


def _per_token(shootout: Shootout, asked: Mapping[str, Any]) -> str:
    rows = compared(shootout)
    if not rows:
        return f"No other arm has a difference to {asked['baseline']}: there is nothing to compare."
    if not has_verdict(asked):
        return f"Per token, without a verdict: {_listed(rows)}."
    groups = [
        f"{said} {_listed([row for row in rows if row['verdict'] == verdict])}"
        for verdict, said in (
            ("better", f"**better** than {asked['baseline']}:"),
            ("worse", f"**worse** than {asked['baseline']}:"),
        )
        if any(row["verdict"] == verdict for row in rows)
    ]
    rest = [row for row in rows if row["verdict"] not in SEPARATED]
    if rest:
        groups.append(f"**not separated** from it: {_listed(rest)}")
    return f"Per token, {'; '.join(groups)}."


def compared(shootout: Shootout) -> list[Row]:
    """Rows of the arms that have a difference to the baseline and are neither it nor refused."""
    return [
        row
        for row in shootout.summary.to_dict("records")
        if not text(row["refused"])
        and row["verdict"] not in ("baseline", "A/A")
        and not pd.isna(row["difference"])
    ]


def _listed(rows: Iterable[Row]) -> str:
    """Arms with their differences."""
    return ", ".join(f"{row['base']} {difference(row)}" for row in rows)


def difference(row: Row) -> str:
    """A difference with its interval, both signed."""
    low, high = row["difference_low"], row["difference_high"]
    return interval(row["difference"], low, high, "+.4f")


def _per_budget(shootout: Shootout, asked: Mapping[str, Any]) -> str:
    """At equal FLOPs and at equal seconds, as far as there is something to compare."""
    known = {row["base"] for row in compared(shootout)}
    said = []
    for budget, name in (("flops", "FLOP"), ("seconds", "second")):
        table = shootout.matched[shootout.matched["budget"] == budget]
        rows = [row for row in table.to_dict("records") if row["base"] in known]
        rows = [row for row in rows if not pd.isna(row["difference"])]
        if rows:
            spent = amount(budget, rows[0]["amount"])
            said.append(f"per {name} (each cut at {spent}), {_sides(rows, asked)}")
    together = "; ".join(said)
    return f"{together[:1].upper()}{together[1:]}." if said else ""


def _sides(rows: list[Row], asked: Mapping[str, Any]) -> str:
    """Arms below the baseline, above it, and those whose interval holds zero."""
    if not has_verdict(asked):
        return f"without a verdict: {_listed(rows)}"
    groups: dict[str, list[Row]] = {"below": [], "above": [], "not told apart from": []}
    for row in rows:
        groups[side(row)].append(row)
    return ", ".join(
        f"{name} {asked['baseline']}: {_listed(mine)}" for name, mine in groups.items() if mine
    )


def side(row: Row) -> str:
    """On which side of the baseline an arm lies at an equal budget, if its interval says so."""
    if abs(row["difference"]) > SMALLEST_EFFECT and row["n_seeds"] >= FEWEST_SEEDS:
        if row["difference_high"] < 0:
            return "below"
        if row["difference_low"] > 0:
            return "above"
    return "not told apart from"


def _per_byte(shootout: Shootout, asked: Mapping[str, Any]) -> str:
    """Peaks beside the baseline's, those of better arms first."""
    table = shootout.summary.set_index("base")["peak_cuda_mem_gb"].dropna()
    if asked["baseline"] not in table.index:
        return (
            "Per byte of memory: not answered here, for torch knows the peak of a training on a "
            "GPU alone; the page on memory counts what a step of each base needs."
        )
    mine = float(table[asked["baseline"]])
    rows = [row for row in compared(shootout) if row["base"] in table.index]
    rows.sort(key=lambda row: row["verdict"] != "better")
    said = ", ".join(
        f"{row['base']} {table[row['base']] / mine:.2f} ×"
        + (f" ({row['verdict']})" if has_verdict(asked) else "")
        for row in rows
    )
    return f"Per byte of memory: peaks against the {mine:.3f} GB of {asked['baseline']}: {said}."


def _exceptions(shootout: Shootout) -> str:
    """Arms that are one network, arms without a place, trainings that failed."""
    said = []
    for row in shootout.summary.to_dict("records"):
        if twin := text(row["same_as"]):
            said.append(f"{row['base']} and {twin} are the same network (A/A).")
        if why := text(row["refused"]):
            said.append(f"**{row['base']} is refused a place**: {why}.")
    if failed := sum(record.status != "ok" for record in shootout.records):
        n = len(shootout.records)
        said.append(f"{failed} of {_count(n, 'training')} failed; each is listed with its reason.")
    return " ".join(said)


def reading(shootout: Shootout, asked: Mapping[str, Any]) -> str:
    """How to read the tables: what is compared with what, and whom the design disfavours."""
    lines = [
        "**A place** is one more than the number of networks that are separated as better. Arms "
        "that share a place were not told apart; that is not the same as equal, and it does not "
        "pass on: the first may be separated from the third while the second is from neither.",
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
        *_left_out(shootout),
    ]
    return "\n".join(f"- {line}" for line in lines if line)


def _tuned(shootout: Shootout, asked: Mapping[str, Any]) -> Iterator[str]:
    """How large the grids were, and whose best setting may lie beyond."""
    rates, scaled = asked["learning_rates"], asked["scaled_learning_rates"]
    frequencies = asked["scaled_frequencies"]
    yield (
        f"**Tuning**: {_count(len(rates), 'setting')} for every arm, with seed "
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


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
