"""The sentences of the memory page, from what its run states."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from psannlm.bench.statistics import FEWEST_REPEATS
from psannlm.pages.memory.tables import PEAK_WITHIN, SAVED_WITHIN, Memory, main_rows
from psannlm.pages.memory.views import PEAK, SAVER_NAMES, less, time_ratio


def answer(memory: Memory, parameters: Mapping[str, Any]) -> str:
    """What the run found; every number is taken from its tables."""
    lines = [
        *_checkpointing(memory, parameters),
        *_savers(memory, parameters),
        *_predictions(memory),
        *_peer(memory),
        *_failures(memory),
    ]
    n_repeats = parameters["n_repeats"]
    if n_repeats < FEWEST_REPEATS:
        lines.append(
            f"With {_processes(n_repeats)} a row, a ratio of times is an indication and no more: "
            f"a verdict needs {FEWEST_REPEATS}."
        )
    return "\n".join(f"- {line}" for line in lines)


def _checkpointing(memory: Memory, parameters: Mapping[str, Any]) -> Iterator[str]:
    """A sentence a precision, at the first batch."""
    savings = memory.savings
    good = savings[
        (savings["saver"] == "checkpointing")
        & (savings["status"] == "ok")
        & main_rows(savings, parameters)
    ]
    for precision, pairs in good.groupby("precision", sort=False):
        said = "; ".join(_pair(row) for row in pairs.to_dict("records"))
        yield (
            f"{precision}, {parameters['batch_tokens'][0]:,} tokens a step in sequences of "
            f"{parameters['context_length']:,}, checkpointing off against on: {said}."
        )


def _pair(row: Mapping[Any, Any]) -> str:
    saved = f"**{row['base']}** keeps {row['saved_without_mib']:,.1f} MiB for backward against "
    saved += f"{row['saved_with_mib']:,.1f}, {less(row['saved_less_mib'], row['saved_less_share'])}"
    if not pd.isna(row["peak_less_mib"]):
        saved += f", {PEAK} {less(row['peak_less_mib'], row['peak_less_share'])}"
    return f"{saved}, at {time_ratio(row)} × the time of a step"


def _savers(memory: Memory, parameters: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for what else saves, at the first batch, without checkpointing."""
    savings = memory.savings
    good = savings[
        (savings["saver"] != "checkpointing")
        & (savings["status"] == "ok")
        & ~savings["grad_checkpoint"].astype(bool)
        & main_rows(savings, parameters)
    ]
    for (saver, precision), rows in good.groupby(["saver", "precision"], sort=False):
        said = "; ".join(
            f"**{row['base']}** {less(row['saved_less_mib'], row['saved_less_share'])}"
            for row in rows.to_dict("records")
        )
        name = SAVER_NAMES[str(saver)]
        yield f"{name[0].upper()}{name[1:]} against the plain one, {precision}: {said}."


def _predictions(memory: Memory) -> Iterator[str]:
    """How many rows were foreseen from the configuration alone."""
    said = []
    for name, what, within in (
        ("bytes saved for backward", "saved", SAVED_WITHIN),
        (PEAK, "peak", PEAK_WITHIN),
    ):
        errors = memory.rows[f"{what}_error"].dropna().astype(float)
        if len(errors):
            good = int((errors.abs() <= within).sum())
            said.append(
                f"{name} within {within:.0%} in {good} of {len(errors)} rows "
                f"(largest error {errors.abs().max():.1%})"
            )
    if said:
        yield f"Predicted from the configuration alone: {'; '.join(said)}."


def _peer(memory: Memory) -> Iterator[str]:
    """How our bytes compare with the published package's, against the goal where there is one."""
    for row in memory.peer.to_dict("records"):
        package = row["package"]
        where = f"{row['precision']}, {row['base']} without checkpointing"
        if row["status"] != "ok" or pd.isna(row["ratio"]):
            reason = f": {row['reason']}" if row["status"] != "ok" else ""
            yield f"{where}: no ratio to the published {package}{reason}."
            continue
        goal = ""
        if not pd.isna(row["goal"]):
            goal = f" (goal: at most {row['goal']:.2f}, {row['verdict']})"
        yield (
            f"{where}: {row['saved_mib']:,.1f} MiB for backward, **{row['ratio']:.3f} ×** the "
            f"{row['peer_saved_mib']:,.1f} MiB of the published {package}{goal}."
        )


def _failures(memory: Memory) -> Iterator[str]:
    failed = int((memory.rows["status"] != "ok").sum())
    if failed:
        yield f"{failed} of {len(memory.rows)} rows failed; each is in the table with its reason."


def reading(memory: Memory, parameters: Mapping[str, Any]) -> str:
    """How to read the tables: what each number is on the device of the run."""
    lines = [
        "**Saved for backward** are all storages that autograd keeps between forward and backward, "
        "each counted once, parameters left out. The count is exact on any device.",
        f"**Predicted** is computed from the configuration before anything runs. A prediction "
        f"counts as right within {SAVED_WITHIN:.0%} of the bytes counted, and within "
        f"{PEAK_WITHIN:.0%} of the peak measured.",
    ]
    if memory.rows["max_memory_mb"].notna().any():
        lines.append(
            "**The peak** is the most that torch's allocator had handed out on the GPU in a whole "
            "training step; *reserved* is what it had taken from the driver for it."
        )
    else:
        lines.append(
            "**The peak** is the most that torch's allocator had handed out in a whole training "
            "step, from its own record of every allocation: main memory, not that of a GPU. "
            "`max_memory_mb` of memory.json, which is CUDA's, is therefore empty. **Peak RSS** is "
            "the largest resident set of the process since it started: torch's own code, its "
            "threads' stacks and freed pages are in it, which were there before the network, as "
            "*RSS before* says."
        )
    lines.append(
        f"**Time** is per training step: at the first batch over "
        f"{_processes(parameters['n_repeats'])} a row, elsewhere of one. Ratios are paired within "
        "blocks; nothing is measured twice for a noise floor here, so that no ratio is called a "
        "difference."
    )
    return "\n".join(f"- {line}" for line in lines)


def _processes(n: int) -> str:
    return f"{n} fresh process{'' if n == 1 else 'es'}"
