"""The sentences of the shootout page, from its tables and what was asked."""

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import pandas as pd

from psannlm.evidence.text import interval
from psannlm.pages.shootout.comparison import FEWEST_SEEDS, SMALLEST_EFFECT
from psannlm.pages.shootout.tables import Shootout
from psannlm.pages.shootout.views import SURE, amount, text

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
        f"{count(n, 'seed')} an arm{each}, of the corpus `{PurePath(asked['corpus']).stem}`; "
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
        said.append(f"{failed} of {count(n, 'training')} failed; each is listed with its reason.")
    return " ".join(said)


def count(n: int, what: str) -> str:
    """So many things, in words: 1 seed, 2 seeds."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"
