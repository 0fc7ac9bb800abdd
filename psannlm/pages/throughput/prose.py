"""Tables and sentences of the throughput page, from its table and the manifest."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from psannlm.bench.statistics import CONFIDENCE, FEWEST_REPEATS, SMALLEST_EFFECT
from psannlm.evidence.text import UNKNOWN, interval, number
from psannlm.pages.throughput.config import ThroughputConfig
from psannlm.pages.throughput.tables import best_rows

MODES = {"forward": "forward", "train_step": "training step"}
"""What people call a mode."""


def rows(table: pd.DataFrame) -> pd.DataFrame:
    """The table as people read it: units in the headings, intervals beside medians."""
    columns: dict[str, list[Any]] = {
        "base": list(table["label"]),
        "mode": [MODES[mode] for mode in table["mode"]],
        "precision": list(table["precision"]),
        "batch tokens": [f"{tokens:,}" for tokens in table["batch_tokens"]],
        f"tokens/s ({CONFIDENCE:.0%} interval)": _each(
            table, "tokens_per_s", "tokens_per_s_low", "tokens_per_s_high", ",.0f"
        ),
        "ratio to baseline": _each(table, "ratio", "ratio_low", "ratio_high", ".3f"),
        "verdict": [
            verdict if status == "ok" else f"{status}: {reason}"
            for verdict, status, reason in zip(
                table["verdict"], table["status"], table["reason"], strict=True
            )
        ],
        "of measured ceiling": [number(v, ".1%") for v in table["mfu"]],
        "of stated peak": [number(v, ".1%") for v in table["mfu_stated"]],
        "compilation, s (cold; cached)": [
            UNKNOWN if pd.isna(cold) else f"{cold:.1f}; {cached:.1f}"
            for cold, cached in zip(
                table["first_compile_seconds"], table["later_compile_seconds"], strict=True
            )
        ],
        "peak allocated, MiB": [number(v, ",.0f") for v in table["peak_allocated_mib"]],
        "peak RSS, MiB": [number(v, ",.0f") for v in table["peak_rss_mib"]],
        "processes": [
            f"{ok}" + (f" ({failed} failed)" if failed else "")
            for ok, failed in zip(table["n_ok"], table["n_failed"], strict=True)
        ],
    }
    return pd.DataFrame(columns)


def _each(table: pd.DataFrame, middle: str, low: str, high: str, pattern: str) -> list[str]:
    rows = zip(table[middle], table[low], table[high], strict=True)
    return [interval(*row, pattern) for row in rows]


def answer(table: pd.DataFrame, baseline: str, n_repeats: int) -> str:
    """What the table says, a sentence a mode and precision; every number is taken from it.

    Bases are compared at one batch: the largest that the baseline could run.
    """
    lines = []
    good = table[(table["status"] == "ok") & (table["verdict"] != "noise floor")]
    for (mode, precision), rows in good.groupby(["mode", "precision"], sort=False):
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
            f"- {MODES[str(mode)].capitalize()}, {precision}, {top.batch_tokens:,} tokens a step: "
            f"**{baseline}** runs at {top.tokens_per_s:,.0f} tokens/s, {number(top.mfu, '.0%')} "
            f"of the measured matmul ceiling{said}."
        )
    failed = int((table["status"] != "ok").sum())
    if failed:
        lines.append(
            f"- {failed} of {len(table)} rows failed; each is in the table with its reason."
        )
    if n_repeats < FEWEST_REPEATS:
        lines.append(
            f"- With {n_repeats} processes a row, no difference is called one: a verdict "
            f"needs {FEWEST_REPEATS}. These numbers prove that the page runs, no more."
        )
    return "\n".join(lines)


def reading(table: pd.DataFrame, config: ThroughputConfig) -> str:
    """How to read the table: its noise, its steps, its warm-up, all from the run."""
    floors = table.drop_duplicates(["mode", "precision", "batch_tokens"])["noise_floor"]
    eager = config.compile and not table.loc[table["status"] == "ok", "compiled"].all()
    lines = [
        f"- **Noise.** {config.baseline} was measured twice under two names. Across settings, the "
        f"ratio of the two strayed from 1 by up to {number(floors.max(), '.1%')}, its interval "
        f"included; a difference within that, or below {SMALLEST_EFFECT:.0%}, is *not separated*.",
        f"- **Replication.** Each row is {config.n_repeats} fresh processes, in blocks shuffled "
        "anew; intervals are over processes, ratios are paired within blocks.",
        "- **Speed** is all tokens over all time of the timed steps. Warm-up and compilation are "
        "apart.",
    ]
    if eager:
        lines.append(
            "- **Compilation** was asked for, but no C++ compiler was found: rows are eager."
        )
    return "\n".join(lines)


def files(table: pd.DataFrame, manifest: Mapping[str, Any]) -> dict[str, str]:
    """The files of a throughput run that state its result, by name."""
    return {
        "throughput.csv": table.to_csv(index=False, lineterminator="\n"),
        "README.md": readme(table, manifest),
    }


def readme(table: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """README.md of a run folder: the best number of each base."""
    rows = best_rows(table)
    lines = [
        f"# {manifest['notebook'].capitalize()}, {manifest['run']}",
        "",
        f"Preset {manifest['preset']}, on {manifest['environment']['device']}. "
        f"Best batch of each base; medians over fresh processes with {CONFIDENCE:.0%} intervals.",
        "",
        "| base | mode | precision | batch_tokens | tokens/s | ratio to baseline | verdict |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for row in rows.itertuples():
        speed = interval(row.tokens_per_s, row.tokens_per_s_low, row.tokens_per_s_high, ",.0f")
        ratio = interval(row.ratio, row.ratio_low, row.ratio_high, ".3f")
        lines.append(
            f"| {row.base} | {MODES[row.mode]} | {row.precision} | {row.batch_tokens:,} "
            f"| {speed} | {ratio} | {row.verdict} |"
        )
    if rows.empty:
        lines.append("| no row was measured; throughput.csv has the reasons | | | | | | |")
    command = manifest["command"]
    return "\n".join([*lines, "", f"Made by `{command}`.", ""])
