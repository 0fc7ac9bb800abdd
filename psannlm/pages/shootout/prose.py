"""The sentences of the shootout page whose words depend on its result."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import pandas as pd

from psannlm.evidence.page import Tables
from psannlm.evidence.table import Number, plain_rows
from psannlm.evidence.text import by_verdict, interval, number
from psannlm.pages.shootout.comparison import FEWEST_SEEDS, SMALLEST_EFFECT
from psannlm.pages.shootout.records import ShootoutConfig
from psannlm.pages.shootout.results import PLAIN, SCALED, SINE
from psannlm.pages.shootout.tables import SIGNED, SURE, amount

Row = dict[str, Any]

GAIN = f"shootout.{SINE}.difference_to_{SCALED}"  # what is left of the sine at the same gains
UNDECIDED, UNKNOWN_SIDE = "not separated", "not told apart from"

HEADLINES: Mapping[tuple[str, str], str] = {
    ("better", "better"): "The sine's advantage over gelu is not gain alone",
    ("better", "not separated"): "Gain alone may be all of the sine's advantage over gelu",
    ("better", "worse"): "Gain alone does more than the sine",
    ("not separated", "better"): "The sine is not separated from gelu, but better than its gains",
    ("not separated", "not separated"): "The sine has no separated advantage to be explained",
    ("not separated", "worse"): "Gain alone does more than the sine, which is not separated "
    "from gelu",
    ("worse", "better"): "The sine is worse than gelu, and gain alone is worse still",
    ("worse", "not separated"): "The sine is worse than gelu, and not separated from gain alone",
    ("worse", "worse"): "The sine is worse than gelu, and worse than gain alone",
}
"""By the verdict on the sine against gelu, and that against the scaled gelu."""


def answer(tables: Tables, config: ShootoutConfig) -> str:
    """What the run found, in five lines at most; every number is taken from its tables."""
    parts = (_terms, _per_token, _per_budget, _per_byte, _exceptions)
    return _bullets(*(part(tables, config) for part in parts))


def _bullets(*lines: str) -> str:
    return "\n".join(f"- {line}" for line in lines if line)


def has_verdict(config: ShootoutConfig) -> bool:
    """Whether there are seeds enough, in a run that is no smoke test, to call arms separated."""
    return len(config.seeds) >= FEWEST_SEEDS and config.preset != "smoke"


def _terms(tables: Tables, config: ShootoutConfig) -> str:
    """What was compared on what; that it settles nothing, where it does not."""
    n, tokens = len(config.seeds), tables["runs.csv"]["train_tokens"].dropna()
    each = f", {tokens.max():,.0f} tokens a training" if len(tokens) else ""
    said = (
        f"{_count(n, 'seed')} an arm{each}, of the corpus `{PurePath(config.corpus).stem}`; "
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
    heads = {verdict: f"**{verdict}** than {baseline}:" for verdict in ("better", "worse")}
    heads[UNDECIDED] = "**not separated** from it:"
    said = _grouped(rows, heads, lambda row: row["verdict"], config)
    return f"Per token, {'; '.join(said)}."


def compared(tables: Tables) -> list[Row]:
    """Rows of the arms that have a difference to the baseline and are neither it nor refused."""
    rows = [row for row in plain_rows(tables["summary.csv"]) if not row["refused"]]
    return [row for row in rows if row["difference"] is not None and row["verdict"] != "A/A"]


def _signed(row: Row) -> str:
    return interval(row["difference"], row["difference_low"], row["difference_high"], SIGNED)


def _grouped(
    rows: Sequence[Row], heads: dict[str, str], key: Callable[[Row], str], config: ShootoutConfig
) -> list[str]:
    """Arms with their differences behind the heads of their groups; in one without a verdict."""
    if not has_verdict(config):
        heads, key = {"": "without a verdict:"}, lambda row: ""
    groups: dict[str, list[str]] = {name: [] for name in heads}
    for row in rows:
        groups[key(row)].append(f"{row['base']} {_signed(row)}")
    return [f"{heads[name]} {', '.join(mine)}" for name, mine in groups.items() if mine]


def _per_budget(tables: Tables, config: ShootoutConfig) -> str:
    """At equal FLOPs and at equal seconds, as far as there is something to compare."""
    heads = {name: f"{name} {config.baseline}:" for name in ("below", "above", UNKNOWN_SIDE)}
    known = {row["base"] for row in compared(tables)}
    matched = [row for row in plain_rows(tables["matched.csv"]) if row["base"] in known]
    said: list[str] = []
    for budget, name in (("flops", "FLOP"), ("seconds", "second")):
        if rows := [row for row in matched if row["budget"] == budget]:
            sides = ", ".join(_grouped(rows, heads, side, config))
            per = "per" if said else "Per"
            said.append(f"{per} {name} (each cut at {amount(budget, rows[0]['amount'])}), {sides}")
    return f"{'; '.join(said)}." if said else ""


def side(row: Row) -> str:
    """On which side of the baseline an arm lies at an equal budget, if its interval says so."""
    low, high, n = row["difference_low"], row["difference_high"], row["n_seeds"]
    if low is None or n < FEWEST_SEEDS or abs(row["difference"]) <= SMALLEST_EFFECT:
        return UNKNOWN_SIDE
    return "below" if high < 0 else "above" if low > 0 else UNKNOWN_SIDE


def _per_byte(tables: Tables, config: ShootoutConfig) -> str:
    """Peaks beside the baseline's, those of better arms first."""
    peaks = tables["summary.csv"].set_index("base")["peak_cuda_mem_gb"].dropna()
    if config.baseline not in peaks.index:
        return (
            "Per byte of memory: not answered here, for torch knows the peak of a training on a "
            "GPU alone; the page on memory counts what a step of each base needs."
        )
    mine = float(peaks[config.baseline])
    rows = [row for row in compared(tables) if row["base"] in peaks.index]
    said = ", ".join(
        f"{row['base']} {peaks[row['base']] / mine:.2f} ×"
        + (f" ({row['verdict']})" if has_verdict(config) else "")
        for row in sorted(rows, key=lambda row: row["verdict"] != "better")
    )
    return f"Per byte of memory: peaks against the {mine:.3f} GB of {config.baseline}: {said}."


def _exceptions(tables: Tables, _: ShootoutConfig) -> str:
    """Arms that are one network, arms without a place, trainings that failed."""
    said = []
    for row in plain_rows(tables["summary.csv"]):
        if row["same_as"]:
            said.append(f"{row['base']} and {row['same_as']} are the same network (A/A).")
        if row["refused"]:
            said.append(f"**{row['base']} is refused a place**: {row['refused']}.")
    if failed := len(tables["failures"]):
        n = _count(len(tables["trainings"]), "training")
        said.append(f"{failed} of {n} failed; each is listed with its reason.")
    return " ".join(said)


def _count(n: int, what: str) -> str:
    """So many things, in words: 1 seed, 2 seeds."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def reading(tables: Tables, config: ShootoutConfig) -> str:
    """How to read the tables: gates, grids, what arms have in common, and what is left out."""
    gates, rows = (plain_rows(tables[name]) for name in ("gates.csv", "summary.csv"))
    shared = _shared(rows, config)
    return _bullets(_gates(gates), *_tuned(rows, config), *shared, *_left_out(rows))


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
    grids = config.learning_rates, config.scaled_learning_rates, config.scaled_frequencies
    rates, scaled_rates, frequencies = (", ".join(f"{x:g}" for x in values) for values in grids)
    yield (
        f"**Tuning**: {_count(len(config.learning_rates), 'setting')} for every arm, with seed "
        f"{config.tuning_seed}, which is none of the compared ones: learning rates {rates}; for "
        f"arms whose nonlinearity has an initial f, learning rates {scaled_rates} with f "
        f"{frequencies}. What lies between or beyond was not tried."
    )
    edges = [
        f"{row['base']} (learning rate {row['learning_rate']:g}"
        + (")" if row["sine_frequency"] is None else f", f {row['sine_frequency']:g})")
        for row in rows
        if row["grid_edge"]
    ]
    if edges:
        yield (
            f"**At the edge** of their grids: {', '.join(edges)}. A better setting may lie beyond, "
            "so these arms may be shown worse than they are."
        )


def _shared(rows: Iterable[Row], config: ShootoutConfig) -> Iterator[str]:
    """What arms have in common, and what they have not; what a shared machine says of speed."""
    column = "n_parameters" if config.match == "width" else "d_mlp"
    sizes = ", ".join(f"{row['base']} {number(row[column], ',.0f')}" for row in rows)
    if config.match == "width":
        yield f"**Width** is equal, d_mlp {config.d_mlp:,}; parameters are not: {sizes}."
    else:
        yield (
            f"**Parameters** are as many as those of {config.baseline}, as near as d_mlp can come: "
            f"{sizes}. FLOPs and time are not equal."
        )
    if config.scheduler:
        yield "**Speed** is that of the workers that trained: arms are comparable if these are."
    elif config.cells_at_once > 1:
        yield (
            f"**Speed** is that of trainings that ran {config.cells_at_once} at a time: what one "
            "of them gets of the machine depends on its neighbours, which are of all arms in turn."
        )


def _left_out(rows: Sequence[Row]) -> Iterator[str]:
    """Why an arm has no place, or fewer seeds."""
    for row in rows:
        if why := row["refused"]:
            yield f"**{row['base']}** has no place: {why}. Its numbers are shown, not compared."
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


def gain(tables: Tables, config: ShootoutConfig) -> str:
    """How much of the sine's difference to gelu is left against gelu with the same gains."""
    return _bullets(_gains(tables, config), _scales(tables["scales.csv"], config))


def _gains(tables: Tables, config: ShootoutConfig) -> str:
    """The sine against gelu, against the scaled gelu, and the scaled gelu against gelu."""
    rows = {row["base"]: row for row in plain_rows(tables["summary.csv"])}
    contrasts = plain_rows(tables["gain"])
    if lacking := _lacking(rows):
        return f"Whether the sine's advantage is gain alone is not answered here: {lacking}."
    for row in contrasts:
        if config.baseline == row["other"] == PLAIN:  # the leaderboard's are corrected for all arms
            row["verdict"] = rows[row["base"]]["verdict"]
    decided = has_verdict(config)
    verdicts = [_called(row["verdict"]) for row in contrasts]
    whole, rest, alone = (
        f"{_signed(row)} nats" + (f", {verdict}" if decided else "")
        for row, verdict in zip(contrasts, verdicts, strict=True)
    )
    said = (
        f"{SINE} less {PLAIN}: {whole}. {SINE} less {SCALED}, what is left where gains are the "
        f"same: {rest}. {SCALED} less {PLAIN}, gain alone: {alone}."
    )
    if not decided:
        return f"No verdict on whether the sine's advantage is gain alone. {said}"
    if config.baseline == PLAIN:
        said += f" Verdicts against {PLAIN} are those of the leaderboard; that against {SCALED} "
        said += "is one planned comparison, so it is not corrected."
    if verdicts[1] == UNDECIDED:
        said += " Not separated is not equal: the interval says what is still possible."
    return f"**{HEADLINES[verdicts[0], verdicts[1]]}.** {said}"


def _lacking(rows: Mapping[str, Row]) -> str:
    """What the comparison lacks; nothing if all three arms can be compared."""
    return "; ".join(
        f"{name} is refused a place, {rows[name]['refused']}"
        if name in rows
        else f"{name} was not compared; `base` must name it"
        for name in (SINE, SCALED, PLAIN)
        if name not in rows or rows[name]["refused"]
    )


def _called(verdict: str) -> str:
    """A verdict on arms that are not one network: A/A, and none, are not separated."""
    return verdict if verdict in ("better", "worse") else UNDECIDED


def _scales(scales: pd.DataFrame, config: ShootoutConfig) -> str:
    """What the initial scale alone changes in each arm, and the arms at their best scales."""
    said, best = [], []
    for name in (SINE, SCALED, PLAIN):
        mine = scales[scales["base"] == name].set_index("scale")["val_loss"].dropna().astype(float)
        if len(mine):
            best.append(f"{name} {mine.min():.4f}")
            said.append(_best_scale(name, mine))
    if not said:
        return ""
    return (
        f"By the initial scale alone (at most {_count(config.side_seeds, 'seed')}, no verdict): "
        f"{'; '.join(said)}. Losses at the best scale of each: {', '.join(best)}."
    )


def _best_scale(name: str, losses: "pd.Series[float]") -> str:
    """An arm at its best scale, f or a factor of the initial weights, against scale 1."""
    pattern = "{:g} × init_std" if name == PLAIN else "f = {:g}"
    best = losses.idxmin()
    at, one = pattern.format(best), pattern.format(1)
    if best == 1 or 1 not in losses:
        return f"{name} is best at {at}{' itself' if best == 1 else ''}"
    return f"{name} is {losses[1] - losses.min():.4f} nats better at {at} than at {one}"


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

    def signed(number: Number) -> str:
        return interval(number.value, number.low, number.high, "+.3f")

    baseline = numbers[0].run.manifest["parameters"]["baseline"]
    differences = [n for n in numbers if n.name.endswith(".difference") and n.value is not None]
    if not differences:
        return f"No arm could be compared with {baseline}."
    said = (
        f"Validation loss less that of {baseline}, nats per token (less is better): "
        f"{by_verdict((n.base, signed(n), n.verdict) for n in differences)}."
    )
    for rest in (n for n in numbers if n.name == GAIN):
        left = f"{SINE} less {SCALED}: {signed(rest)}, {rest.verdict or 'no verdict'}."
        whole = next((n.verdict for n in differences if n.base == SINE), "")
        if baseline == PLAIN and whole and rest.verdict:
            left = f"**{HEADLINES[_called(whole), rest.verdict]}**: {left}"
        said += f" {left}"
    return said
