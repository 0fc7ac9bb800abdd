"""The sentences of the throughput page whose words depend on the result."""

from collections.abc import Sequence

from psannlm import ROOT
from psannlm.bench.statistics import FEWEST_REPEATS, SMALLEST_EFFECT
from psannlm.config.parse import parse, read_parameters
from psannlm.evidence import text
from psannlm.evidence.page import RunInfo, Tables
from psannlm.evidence.table import Number
from psannlm.evidence.text import interval, number
from psannlm.model.bases import BASES, cost_of
from psannlm.model.cost import Shape
from psannlm.pages.throughput.records import MODE, ThroughputConfig
from psannlm.pages.throughput.tables import RATIO, SPEED, THROUGHPUT, compared_rows


def answer(tables: Tables, run: RunInfo[ThroughputConfig]) -> str:
    """What the table says, a sentence a mode and precision; every number is taken from it.

    Bases are compared at one batch: the largest that the baseline could run.
    """
    table, config, baseline = tables[THROUGHPUT.file], run.config, run.config.baseline
    lines = []
    for (mode, precision), rows in compared_rows(table).groupby(["mode", "precision"], sort=False):
        of_baseline = rows[rows["base"] == baseline]
        if of_baseline.empty:
            continue
        top = of_baseline.loc[of_baseline["batch_tokens"].idxmax()]
        others = rows[(rows["batch_tokens"] == top.batch_tokens) & (rows["base"] != baseline)]
        said = "".join(
            f"; **{row.base}** at {interval(row.ratio, row.ratio_low, row.ratio_high, '.2f')} × "
            f"that speed ({row.verdict})"
            for row in others.itertuples()
        )
        lines.append(
            f"{MODE.show(mode).capitalize()}, {precision}, {top.batch_tokens:,} tokens a step: "
            f"**{baseline}** runs at {top.tokens_per_s:,.0f} tokens/s, {number(top.mfu, '.0%')} "
            f"of the measured matmul ceiling{said}."
        )
    lines += text.failed_rows(table)
    if config.n_repeats < FEWEST_REPEATS:
        lines.append(
            f"With {config.n_repeats} processes a row, no difference is called one: a verdict "
            f"needs {FEWEST_REPEATS}. These numbers prove that the page runs, no more."
        )
    return "\n".join(f"- {line}" for line in lines)


def reading(tables: Tables, run: RunInfo[ThroughputConfig]) -> str:
    """How to read the table: its noise, its steps, its warm-up, all from the run."""
    table, config = tables[THROUGHPUT.file], run.config
    floors = table.drop_duplicates(["mode", "precision", "batch_tokens"])["noise_floor"]
    lines = [
        f"- **Noise.** {config.baseline} was measured twice under two names. Across settings, the "
        f"ratio of the two strayed from 1 by up to {number(floors.max(), '.1%')}, its interval "
        f"included; a difference within that, or below {SMALLEST_EFFECT:.0%}, is *not separated*.",
        f"- **Replication.** Each row is {config.n_repeats} fresh processes, in blocks shuffled "
        "anew; intervals are over processes, ratios are paired within blocks.",
        "- **Speed** is all tokens over all time of the timed steps. Warm-up and compilation are "
        "apart.",
    ]
    good = table[table["status"] == "ok"]
    eager = good[~good["compiled"].astype(bool)]
    if config.compile and len(eager):
        why = "; ".join(reason for reason in eager["eager"].unique() if reason)
        lines.append(
            f"- **Compilation** was asked for, but {len(eager)} of {len(good)} rows are eager: "
            f"{text.literal(why or 'no C++ compiler was found')}."
        )
    return "\n".join(lines)


def summary(numbers: Sequence[Number]) -> str:
    """At the largest batch whose ratios are known, a training step before anything else."""
    baseline = numbers[0].run.manifest["parameters"]["baseline"]
    ratios = [n for n in numbers if n.column.name == RATIO and n.base != baseline]
    if not ratios:
        return f"Nothing but {baseline} was measured."
    known = [ratio for ratio in ratios if ratio.value is not None] or ratios
    best = max(known, key=_weight)
    here = [ratio for ratio in ratios if ratio.setting == best.setting]
    said = text.by_verdict((n.base, n.plain, n.verdict) for n in here)
    others = len({ratio.setting for ratio in ratios}) - 1
    more = f" {others} more setting{'s' * (others > 1)} on the page." if others else ""
    return f"Speed as a ratio to {baseline} ({best.setting}): {said}.{more}"


def _weight(number: Number) -> tuple[bool, int]:
    assert number.row is not None
    values = number.row.values
    return values["mode"] == "train_step", values["batch_tokens"]


def found(numbers: Sequence[Number]) -> str:
    """The fastest training step, or forward pass where none was measured."""
    speeds = [n for n in numbers if n.column.name == SPEED and n.value is not None]
    if not speeds:
        return "nothing was measured"
    best = max(speeds, key=lambda n: (_weight(n)[0], n.value))
    assert best.row is not None
    return f"{MODE.show(best.row.values['mode'])}: up to {best.shown} ({best.base})"


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
    return "\n".join(lines) + (
        f"\n\nIn the shape of `params/gpu/throughput.yaml`: d_model {config.d_model}, "
        f"{config.n_layers} layers, {config.n_heads} heads, d_mlp {config.d_mlp:,}, "
        f"vocabulary {config.vocab_size:,}, context {config.context_length:,}.\n"
    )
