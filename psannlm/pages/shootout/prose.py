"""The sentences of the shootout page whose words depend on its result."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any

import pandas as pd

from psannlm.evidence.page import RunInfo, Tables
from psannlm.evidence.rows import Number
from psannlm.evidence.table import plain_rows
from psannlm.evidence.text import by_verdict, duration, interval, number
from psannlm.pages.shootout.columns import SURE, amount
from psannlm.pages.shootout.comparison import FEWEST_SEEDS, SMALLEST_EFFECT
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.files import leaderboard
from psannlm.pages.shootout.gain_control import (
    HEADLINES,
    PLAIN,
    SCALED,
    SEPARATED,
    SINE,
    UNDECIDED,
    has_verdict,
)

Row = dict[str, Any]

GAIN = f"shootout.{SINE}.difference_to_{SCALED}"
"""Name of what is left of the sine where gains are the same."""


def answer(tables: Tables, config: ShootoutConfig) -> str:
    """What the run found, in five lines at most; every number is taken from its tables."""
    lines = [
        _terms(tables["runs.csv"], config),
        _per_token(tables, config),
        _per_budget(tables, config),
        _per_byte(tables, config),
        _exceptions(tables),
    ]
    return "\n".join(f"- {line}" for line in lines if line)


def _terms(runs: pd.DataFrame, config: ShootoutConfig) -> str:
    """What was compared on what; that it settles nothing, where it does not."""
    n = len(config.seeds)
    tokens = runs["train_tokens"].dropna()
    each = f", {tokens.max():,.0f} tokens a training" if len(tokens) else ""
    said = (
        f"{count(n, 'seed')} an arm{each}, of the corpus `{PurePath(config.corpus).stem}`; "
        f"differences are to {config.baseline}, in nats per token (less is better)"
        + (f", with {SURE} intervals over seeds." if n > 1 else ".")
    )
    if config.preset == "smoke":
        said += " **It settles nothing**: a smoke run is too short and too small for a verdict."
    elif n < FEWEST_SEEDS:
        said += f" **It settles nothing**: a verdict needs {FEWEST_SEEDS} seeds."
    return said


def _per_token(tables: Tables, config: ShootoutConfig) -> str:
    rows, baseline = compared(tables), config.baseline
    if not rows:
        return f"No other arm has a difference to {baseline}: there is nothing to compare."
    if not has_verdict(config):
        return f"Per token, without a verdict: {_listed(rows)}."
    heads = {
        "better": f"**better** than {baseline}:",
        "worse": f"**worse** than {baseline}:",
        UNDECIDED: "**not separated** from it:",
    }
    groups: dict[str, list[Row]] = {verdict: [] for verdict in heads}
    for row in rows:
        groups[row["verdict"] if row["verdict"] in SEPARATED else UNDECIDED].append(row)
    said = [f"{heads[verdict]} {_listed(mine)}" for verdict, mine in groups.items() if mine]
    return f"Per token, {'; '.join(said)}."


def compared(tables: Tables) -> list[Row]:
    """Rows of the arms that have a difference to the baseline and are neither it nor refused."""
    return [
        row
        for row in plain_rows(tables["summary.csv"])
        if not row["refused"]
        and row["verdict"] not in ("baseline", "A/A")
        and row["difference"] is not None
    ]


def _listed(rows: Iterable[Row]) -> str:
    """Arms with their differences."""
    return ", ".join(f"{row['base']} {_signed(row)}" for row in rows)


def _signed(row: Row) -> str:
    return interval(row["difference"], row["difference_low"], row["difference_high"], "+.4f")


def _per_budget(tables: Tables, config: ShootoutConfig) -> str:
    """At equal FLOPs and at equal seconds, as far as there is something to compare."""
    known = {row["base"] for row in compared(tables)}
    matched = [
        row
        for row in plain_rows(tables["matched.csv"])
        if row["base"] in known and row["difference"] is not None
    ]
    said = []
    for budget, name in (("flops", "FLOP"), ("seconds", "second")):
        if rows := [row for row in matched if row["budget"] == budget]:
            spent = amount(budget, rows[0]["amount"])
            said.append(f"per {name} (each cut at {spent}), {_sides(rows, config)}")
    together = "; ".join(said)
    return f"{together[:1].upper()}{together[1:]}." if said else ""


def _sides(rows: list[Row], config: ShootoutConfig) -> str:
    """Arms below the baseline, above it, and those whose interval holds zero."""
    if not has_verdict(config):
        return f"without a verdict: {_listed(rows)}"
    groups: dict[str, list[Row]] = {"below": [], "above": [], "not told apart from": []}
    for row in rows:
        groups[side(row)].append(row)
    return ", ".join(
        f"{name} {config.baseline}: {_listed(mine)}" for name, mine in groups.items() if mine
    )


def side(row: Row) -> str:
    """On which side of the baseline an arm lies at an equal budget, if its interval says so."""
    is_known = row["difference_low"] is not None and row["n_seeds"] >= FEWEST_SEEDS
    if is_known and abs(row["difference"]) > SMALLEST_EFFECT:
        if row["difference_high"] < 0:
            return "below"
        if row["difference_low"] > 0:
            return "above"
    return "not told apart from"


def _per_byte(tables: Tables, config: ShootoutConfig) -> str:
    """Peaks beside the baseline's, those of better arms first."""
    table = tables["summary.csv"].set_index("base")["peak_cuda_mem_gb"].dropna()
    if config.baseline not in table.index:
        return (
            "Per byte of memory: not answered here, for torch knows the peak of a training on a "
            "GPU alone; the page on memory counts what a step of each base needs."
        )
    mine = float(table[config.baseline])
    rows = [row for row in compared(tables) if row["base"] in table.index]
    rows.sort(key=lambda row: row["verdict"] != "better")
    said = ", ".join(
        f"{row['base']} {table[row['base']] / mine:.2f} ×"
        + (f" ({row['verdict']})" if has_verdict(config) else "")
        for row in rows
    )
    return f"Per byte of memory: peaks against the {mine:.3f} GB of {config.baseline}: {said}."


def _exceptions(tables: Tables) -> str:
    """Arms that are one network, arms without a place, trainings that failed."""
    said = []
    for row in plain_rows(tables["summary.csv"]):
        if row["same_as"]:
            said.append(f"{row['base']} and {row['same_as']} are the same network (A/A).")
        if row["refused"]:
            said.append(f"**{row['base']} is refused a place**: {row['refused']}.")
    if failed := len(tables["failures"]):
        n = count(len(tables["trainings"]), "training")
        said.append(f"{failed} of {n} failed; each is listed with its reason.")
    return " ".join(said)


def count(n: int, what: str) -> str:
    """So many things, in words: 1 seed, 2 seeds."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def reading(tables: Tables, config: ShootoutConfig) -> str:
    """How to read the tables: gates, grids, what arms have in common, and what is left out."""
    rows = plain_rows(tables["summary.csv"])
    lines = [
        _gates(plain_rows(tables["gates.csv"])),
        *_tuned(rows, config),
        _widths(rows, config),
        _speed(config),
        *_left_out(rows),
    ]
    return "\n".join(f"- {line}" for line in lines if line)


def _gates(gates: Sequence[Row]) -> str:
    """What was asked of every network before it was ranked."""
    passed = [gate for gate in gates if not gate["refused"]]
    if not passed:
        return ""
    said = (
        "**Gates**: of every arm that has a place, a changed token moves no logit before it by "
        f"more than {max(gate['leak'] for gate in passed):.1e} of the largest, with noisy "
        "parameters and as trained."
    )
    if apart := [gate for gate in passed if gate["nearest"] and not gate["same_as"]]:
        near = min(apart, key=lambda gate: float(gate["distance"]))
        said += (
            f" The two arms nearest to one another, {near['arm']} and {near['nearest']}, differ "
            f"by {near['distance']:.2g} of their logits at equal weights."
        )
    return said


def _tuned(rows: Sequence[Row], config: ShootoutConfig) -> Iterator[str]:
    """How large the grids were, and whose best setting may lie beyond."""
    yield (
        f"**Tuning**: {count(len(config.learning_rates), 'setting')} for every arm, with seed "
        f"{config.tuning_seed}, which is none of the compared ones: learning rates "
        f"{_values(config.learning_rates)}; for arms whose nonlinearity has an initial f, learning "
        f"rates {_values(config.scaled_learning_rates)} with f "
        f"{_values(config.scaled_frequencies)}. What lies between or beyond was not tried."
    )
    if edges := [f"{row['base']} ({_setting(row)})" for row in rows if row["grid_edge"]]:
        yield (
            f"**At the edge** of their grids: {', '.join(edges)}. A better setting may lie beyond, "
            "so these arms may be shown worse than they are."
        )


def _setting(row: Row) -> str:
    """The setting that the tuning of an arm has chosen."""
    rate, frequency = f"learning rate {row['learning_rate']:g}", row["sine_frequency"]
    return rate if frequency is None else f"{rate}, f {frequency:g}"


def _widths(rows: Iterable[Row], config: ShootoutConfig) -> str:
    """What arms have in common, and what they have not."""
    column = "n_parameters" if config.match == "width" else "d_mlp"
    sizes = ", ".join(f"{row['base']} {number(row[column], ',.0f')}" for row in rows)
    if config.match == "width":
        return f"**Width** is equal, d_mlp {config.d_mlp:,}; parameters are not: {sizes}."
    return (
        f"**Parameters** are as many as those of {config.baseline}, as near as d_mlp can come: "
        f"{sizes}. FLOPs and time are not equal."
    )


def _speed(config: ShootoutConfig) -> str:
    """What trainings that share a machine say of speed."""
    if config.scheduler:
        return "**Speed** is that of the workers that trained: arms are comparable if these are."
    if config.cells_at_once < 2:
        return ""
    return (
        f"**Speed** is that of trainings that ran {config.cells_at_once} at a time: what one of "
        "them gets of the machine depends on its neighbours, which are of all arms in turn."
    )


def _left_out(rows: Sequence[Row]) -> Iterator[str]:
    """Why an arm has no place, or fewer seeds."""
    for row in rows:
        if row["refused"]:
            yield (
                f"**{row['base']}** has no place: {row['refused']}. Its numbers are shown, not "
                "compared."
            )
    if short := [f"{row['base']} {row['n_failed']:.0f}" for row in rows if row["n_failed"]]:
        yield (
            f"**Failed** of the compared trainings: {', '.join(short)}. Means are over those that "
            "finished, differences over the seeds that both arms finished."
        )


def tasks(tables: Tables, config: ShootoutConfig) -> str:
    """Why there are no scores of lm-eval, if there are none."""
    if not tables["scores.csv"].empty:
        return ""
    if config.with_lm_eval:
        return "No scores of lm-eval: no compared training came to its end."
    return (
        "No scores of lm-eval: they were not asked for. `with_lm_eval: true` asks for "
        f"{', '.join(config.lm_eval_tasks) or 'the tasks in lm_eval_tasks'}, of every compared "
        "training."
    )


def _values(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def board(tables: Tables, run: RunInfo[ShootoutConfig]) -> str:
    """leaderboard.md: arms by place."""
    table = leaderboard(tables["summary.csv"], run.config.baseline)
    return f"# Shootout, {run.name}\n\n{table}\n"


def readme(tables: Tables, run: RunInfo[ShootoutConfig]) -> str:
    """README.md of a run folder: what was compared on what, and the leaderboard."""
    config, corpus, every = run.config, run.manifest["corpus"], tables["trainings"]
    tokens = tables["summary.csv"]["train_tokens"].dropna()
    lines = [
        f"# Shootout, {run.name}",
        "",
        f"Preset {config.preset}, on {run.device}. Every arm is "
        f"trained on {number(tokens.max(), ',.0f')} tokens of "
        f"{config.corpus if corpus is None else corpus['path']} with "
        f"{len(config.seeds)} seeds, {config.d_model} wide and {config.n_layers} layers deep, "
        f"after a tuning of {len(config.learning_rates)} settings each on the validation split.",
        "",
        leaderboard(tables["summary.csv"], config.baseline),
        "",
        f"{len(every)} trainings, {duration(every['train_seconds'].astype(float).sum())} of "
        "training together. Each is in `cells/`, the compared ones in `runs/` too; all other files "
        "follow from these.",
        "",
        f"Made by `{run.manifest['command']}`.",
        "",
    ]
    return "\n".join(lines)


def found(rows: Iterable[Row]) -> str:
    """The arm with the lowest loss among those in the first place."""
    first = [row for row in rows if row["place"] == 1]
    if not first:
        return "no arm has a place"
    least = min(first, key=lambda row: float(row["val_loss"]))
    place = "first" if len(first) == 1 else f"one of {len(first)} first"
    return f"{least['base']} ({place}): {least['val_loss']:.4f} nats a token"


def summary(numbers: Sequence[Number]) -> str:
    """Each arm against the baseline, and what is left of the sine where gains are the same."""
    baseline = numbers[0].run.manifest["parameters"]["baseline"]
    differences = [n for n in numbers if n.name.endswith(".difference") and n.value is not None]
    if not differences:
        return f"No arm could be compared with {baseline}."
    said = (
        f"Validation loss less that of {baseline}, nats per token (less is better): "
        f"{by_verdict((n.base, _short(n), n.verdict) for n in differences)}."
    )
    gain = next((n for n in numbers if n.name == GAIN), None)
    if gain is None:
        return said
    left = f"{SINE} less {SCALED}: {_short(gain)}, {gain.verdict or 'no verdict'}."
    verdicts = {n.base: n.verdict for n in differences}
    key = _called(verdicts.get(SINE, "")), _called(gain.verdict)
    if baseline == PLAIN and key in HEADLINES:
        left = f"**{HEADLINES[key]}**: {left}"
    return f"{said} {left}"


def _short(found: Number) -> str:
    return interval(found.value, found.low, found.high, "+.3f")


def _called(verdict: str) -> str:
    return UNDECIDED if verdict == "A/A" else verdict
