"""The sentences of the memory page whose words depend on the result."""

from collections.abc import Iterator, Sequence

import pandas as pd

from psannlm.bench.statistics import FEWEST_REPEATS
from psannlm.evidence import text
from psannlm.evidence.page import RunInfo, Tables
from psannlm.evidence.table import Number, plain_rows
from psannlm.pages.memory import tables as made
from psannlm.pages.memory.records import MemoryConfig
from psannlm.pages.memory.tables import MEMORY, PEAK, PEER, SAVINGS, Values


def answer(tables: Tables, run: RunInfo[MemoryConfig]) -> str:
    """What the run found; every number is taken from its tables."""
    memory, savings, config = tables[MEMORY.file], tables[SAVINGS.file], run.config
    good = savings[savings["status"] == "ok"]
    plain = good[~good["grad_checkpoint"].astype(bool)]
    lines = [
        *_checkpointing(made.main_rows(good[good["saver"] == "checkpointing"], config), config),
        *_savers(made.main_rows(plain, config)),
        *_predictions(memory),
        *map(_peer, plain_rows(tables[PEER.file])),
        *text.failed_rows(memory),
    ]
    if config.n_repeats < FEWEST_REPEATS:
        lines.append(
            f"With {text.processes(config.n_repeats)} a row, a ratio of times is an indication and "
            f"no more: a verdict needs {FEWEST_REPEATS}."
        )
    return "\n".join(f"- {line}" for line in lines)


def _checkpointing(savings: pd.DataFrame, config: MemoryConfig) -> Iterator[str]:
    """A sentence a precision, at the first batch."""
    for precision, pairs in savings.groupby("precision", sort=False):
        yield (
            f"{precision}, {config.batch_tokens[0]:,} tokens a step in sequences of "
            f"{config.context_length:,}, checkpointing off against on: "
            f"{'; '.join(map(_pair, plain_rows(pairs)))}."
        )


def _pair(row: Values) -> str:
    """What checkpointing saves and costs a base; a time has an interval where there are repeats."""
    low = row["time_ratio_low"] if row["n_blocks"] > 1 else None
    ratio = text.interval(row["time_ratio"], low, row["time_ratio_high"], ".2f")
    time = "" if row["emulated"] else f", at {ratio} × the time of a step"
    peak = "" if row["peak_less_mib"] is None else f", {PEAK} {_less(row, 'peak')}"
    return (
        f"**{row['base']}** saves {row['saved_without_mib']:,.1f} MiB for backward against "
        f"{row['saved_with_mib']:,.1f}, {_less(row, 'saved')}{peak}{time}"
    )


def _less(row: Values, what: str) -> str:
    """How much less is needed, in MiB and as a share; plainly so if it is not less."""
    mib, share = row[f"{what}_less_mib"], row[f"{what}_less_share"]
    if mib is None:
        return text.UNKNOWN
    if round(mib, 1) == 0:
        return "no less"
    return f"{abs(mib):,.1f} MiB {'less' if mib > 0 else 'more'} ({abs(share):.0%})"


def _savers(savings: pd.DataFrame) -> Iterator[str]:
    """A sentence for what else saves, at the first batch, without checkpointing."""
    for (saver, precision), rows in savings.groupby(["saver", "precision"], sort=False):
        said = "; ".join(f"**{row['base']}** {_less(row, 'saved')}" for row in plain_rows(rows))
        name = SAVINGS["saver"].show(saver)
        yield f"{name[0].upper()}{name[1:]} against the plain one, {precision}: {said}."


def _predictions(memory: pd.DataFrame) -> Iterator[str]:
    """How many rows were foreseen from the configuration alone."""
    said = []
    for what, name in (("saved", "bytes saved for backward"), ("peak", PEAK)):
        errors = memory[f"{what}_error"].dropna().astype(float).abs()
        within = made.WITHIN[what]
        if len(errors):
            said.append(
                f"{name} within {within:.0%} in {int((errors <= within).sum())} of {len(errors)} "
                f"rows (largest error {errors.max():.1%})"
            )
    if said:
        yield f"Predicted from the configuration alone: {'; '.join(said)}."


def _peer(row: Values) -> str:
    """How our bytes compare with the published package's, against the goal where there is one."""
    where = f"{row['precision']}, {row['base']} without checkpointing"
    if row["ratio"] is None:
        reason = f": {row['reason']}" if row["status"] != "ok" else ""
        return f"{where}: no ratio to the published {row['package']}{reason}."
    goal = f" (goal: at most {row['goal']:.2f}, {row['verdict']})" if row["goal"] else ""
    return (
        f"{where}: {row['saved_mib']:,.1f} MiB for backward, **{row['ratio']:.3f} ×** the "
        f"{row['peer_saved_mib']:,.1f} MiB of the published {row['package']}{goal}."
    )


def reading(tables: Tables, run: RunInfo[MemoryConfig]) -> str:
    """What the peak and the times are on the device of the run."""
    if tables[MEMORY.file]["max_memory_mb"].notna().any():
        peak = (
            "**The peak** is the most that torch's allocator had handed out on the GPU in a whole "
            "training step; *reserved* is what it had taken from the driver for it."
        )
    else:
        peak = (
            "**The peak** is the most that torch's allocator had handed out in a whole training "
            "step, from its own record of every allocation: main memory, not that of a GPU. "
            "`max_memory_mb` of memory.json, which is CUDA's, is therefore empty. **Peak RSS** is "
            "the largest resident set of the process since it started: torch's own code, its "
            "threads' stacks and freed pages are in it, which were there before the network, as "
            "*RSS before* says."
        )
    return (
        f"- {peak}\n- **Time** is per training step: at the first batch over "
        f"{text.processes(run.config.n_repeats)} a row, elsewhere of one. Ratios are paired within "
        "blocks; nothing is measured twice for a noise floor here, so that no ratio is called a "
        "difference."
    )


def summary(numbers: Sequence[Number]) -> str:
    """In half precision where that was measured: without checkpointing, with it, at what time."""
    of_pairs = [n for n in numbers if n.is_main and "saver" in _values(n)]
    known = [n for n in of_pairs if n.column.name == "saved_less_share" and n.value is not None]
    if not known:
        return "No row without checkpointing has one with it beside."
    times = {n.about: n.plain for n in of_pairs if n.column.name == "time_ratio"}
    # A precision without times is one that the device emulates.
    precisions = [_values(n)["precision"] for n in known if n.about in times]
    precision = "bf16" if "bf16" in precisions else (precisions or ["bf16"])[0]
    said = text.by_verdict(
        (n.base, f"{_off_and_on(_values(n))}{_at(times.get(n.about))}", n.verdict)
        for n in known
        if _values(n)["precision"] == precision
    )
    step = " of a step" if precisions else ""
    return f"Activation memory without and with it, {precision}: {said}{step}."


def _at(time: str | None) -> str:
    return f" at {time} × the time" if time else ""


def _off_and_on(row: Values) -> str:
    return f"{row['saved_without_mib']:,.1f} to {row['saved_with_mib']:,.1f} MiB"


def found(numbers: Sequence[Number]) -> str:
    """What the first base saves for backward, without checkpointing and with it."""
    saved = [n for n in numbers if n.column.name == "saved_mib" and n.value is not None]
    if not saved:
        return "nothing was measured"
    said = ", ".join(
        f"{n.shown} {MEMORY['grad_checkpoint'].show(_values(n)['grad_checkpoint'])}"
        for n in saved[:2]
        if n.base == saved[0].base
    )
    return f"{saved[0].base} saves for backward {said}"


def _values(number: Number) -> Values:
    return number.row.values if number.row else {}
