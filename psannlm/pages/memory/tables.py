"""The tables of memory: a row a setting, a pair that is compared, and the published package."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby
from statistics import fmean
from typing import Any

import pandas as pd

from psannlm.bench.statistics import CONFIDENCE, median_interval, ratio_interval
from psannlm.evidence import table as shared
from psannlm.evidence.page import RunInfo, Tables
from psannlm.evidence.store import in_mib, most_mib, of_type, outcome_cells
from psannlm.evidence.table import Column, Table, interval_cells, interval_columns
from psannlm.files import MIB
from psannlm.pages.memory import records as raw
from psannlm.pages.memory.records import AnyRecord, MemoryConfig, MemoryRecord, PeerRecord, Setting

Values = Mapping[str, Any]

KIND = "saved: "  # opens the name of a predicted kind of saved tensor
MEASURED = {"saved": "saved_mib", "peak": "peak_allocated_mib"}  # what is predicted and compared
WITHIN = {"saved": 0.02, "peak": 0.10}  # share of it by which its prediction may miss
# The same on every device: on CPU torch's record of its allocations, on a GPU its own peak.
PEAK = "peak of torch's allocator"
SAVERS: Mapping[str, dict[str, Any]] = {  # what saves memory, and the setting that goes without
    "checkpointing": {"grad_checkpoint": False},
    "fast_sine": {"variant": raw.PLAIN_SINE},
    "chunked_loss": {"variant": raw.PLAIN_LOSS},
}
GOALS = {"fp32": 0.45, "bf16": 0.40}  # largest ratio of our bytes to the package's that we want
# Where the goals hold: another shape has other shares of logits, and so no goal.
GOAL_SHAPE = {"vocab_size": 32_000, "d_model": 512, "n_layers": 8, "context_length": 512}
PARTS = {  # what a step holds beside what is saved for backward, and predicted too
    "parameters": "Parameters",
    "gradients": "Gradients",
    "optimizer": "State of the optimizer",
    "logits": "Logits of one chunk and their gradients",
}
HEADLINE = "BMRK-03"
RESULT = shared.STATUS.but(heading="result")
CONTEXT = shared.CONTEXT_LENGTH.but(heading="context", format="{:,} tokens a sequence", role="key")
PLACE = (shared.BASE, shared.PRECISION, CONTEXT, shared.BATCH_TOKENS)
_number = partial(Column.but, better="lower", headline=HEADLINE)
_counted = partial(Column, unit="MiB", format=",.1f")
_measured = partial(Column, unit="MiB", format=",.0f")
_seconds = partial(Column, unit="s", format=".3f")
_error = partial(Column, format="+.1%")

MEMORY = Table(
    "memory.json",
    "One entry a base, batch, context, precision and variant, checkpointing off and on.",
    (
        shared.BASE, raw.D_MODEL, raw.N_LAYERS, raw.GRAD_CHECKPOINT,
        shared.PRECISION.but(name="amp"),
        _number(
            _counted("max_memory_mb", "peak_allocated_mib on CUDA; null elsewhere."),
            quantity="torch.cuda.max_memory_allocated",
        ),
        _number(
            _seconds("elapsed_s", "Time of a training step, median of the processes."),
            heading="step", quantity="time of a step", compare="noise",
        ),
        *interval_columns("elapsed_s", "the time of a step", "s"), shared.EMULATED,
        raw.VOCAB_SIZE, CONTEXT, shared.BATCH_TOKENS, raw.VARIANT, RESULT, shared.REASON,
        shared.N_OK.but(heading="processes"), shared.N_FAILED.but(heading="failed"),
        _number(
            _counted(
                "saved_mib",
                "Counted memory that a training step saves for backward, parameters left out.",
                heading="activation memory", value=partial(most_mib, name="saved_bytes"),
            ),
            quantity="saved for backward", compare="counted",
        ),
        _counted(
            "predicted_saved_mib", "What is saved for backward by construction.",
            heading="predicted",
        ),
        _error(
            "saved_error", "Predicted bytes saved for backward over the counted ones, less 1.",
            heading="saved: error", beside="saved_verdict",
        ),
        Column("saved_verdict", "Whether that prediction lies as near as it must."),
        _number(
            in_mib(shared.PEAK_ALLOCATED_BYTES, PEAK),
            quantity="peak allocated", compare="counted", within=WITHIN["peak"],
        ),
        _measured(
            "predicted_peak_mib", "Peak of a training step, by construction.",
            heading="predicted peak",
        ),
        _error(
            "peak_error", "Predicted peak over the measured one, less 1.",
            heading="peak: error", beside="peak_verdict",
        ),
        Column("peak_verdict", "Whether the prediction of the peak lies as near as it must."),
        in_mib(shared.PEAK_RESERVED_BYTES, "reserved on the GPU").but(
            name="max_reserved_mb",
            text="Most memory taken from the driver of a GPU; null on a CPU.",
        ),
        in_mib(raw.RSS_BEFORE_BYTES, "RSS before"),
        in_mib(shared.PEAK_RSS_BYTES, "peak RSS"),
        raw.N_PARAMETERS,
        *(
            _counted(f"predicted_{name}_mib", f"{text}, by construction.", heading=name)
            for name, text in PARTS.items()
        ),
        Column(
            "predicted_kinds_mib",
            "What is saved for backward, by construction, by kind of tensor.", "MiB", nested=True,
        ),
        shared.DEVICE, shared.TIMESTAMP,
    ),
    caption="Memory of every row",
    shown=(
        "base", "amp", "grad_checkpoint", "variant", "batch_tokens", "context_length", "saved_mib",
        "predicted_saved_mib", "peak_allocated_mib", "predicted_peak_mib", "max_reserved_mb",
        "rss_before_mib", "peak_rss_mib", "elapsed_s", "n_ok", "n_failed", "status",
    ),
    fixed=("base", "d_model", "n_layers", "grad_checkpoint", "amp", "max_memory_mb", "elapsed_s"),
)  # fmt: skip

SAVINGS = Table(
    "savings.csv",
    "One row a pair, what checkpointing, the fast sine and the chunked loss save and cost.",
    (
        Column(
            "saver", "What saves, checkpointing, fast_sine or chunked_loss.", "", "what saves",
            words={"fast_sine": "the fast sine", "chunked_loss": "the chunked loss"}, role="key",
        ),
        *PLACE, shared.EMULATED,
        raw.GRAD_CHECKPOINT.but(role="fact"), RESULT, shared.REASON,
        _counted(
            "saved_without_mib", "Saved for backward without it.",
            heading="activation memory: without",
        ),
        _counted("saved_with_mib", "Saved for backward with the saver.", heading="with"),
        _counted(
            "saved_less_mib", "How much less is saved for backward with the saver.",
            heading="less", beside="saved_less_share",
        ),
        Column(
            "saved_less_share", "The same as a share of what is saved without it.", "of all",
            format=".0%", quantity="less saved for backward", better="higher", headline=HEADLINE,
        ),
        _measured("peak_without_mib", "Peak without it.", heading=f"{PEAK}: without"),
        _measured("peak_with_mib", "Peak with the saver.", heading=f"{PEAK}: with"),
        _counted(
            "peak_less_mib", "How much lower the peak is with the saver.",
            heading="peak: less", beside="peak_less_share",
        ),
        Column("peak_less_share", "The same as a share of the peak without it.", format=".0%"),
        _seconds(
            "elapsed_without_s", "Time of a training step without it.", heading="step: without"
        ),
        _seconds("elapsed_with_s", "Time of a training step with the saver.", heading="step: with"),
        _number(
            Column(
                "time_ratio", "Time of a step with the saver over that without, paired by block.",
                "× without", f"time ratio ({CONFIDENCE:.0%} interval)", ".2f",
            ),
            quantity="time of a step",
        ),
        *interval_columns("time_ratio", "that ratio"),
        Column("n_blocks", "Blocks in which both sides succeeded."),
    ),
)  # fmt: skip

PEER = Table(
    "peer.csv",
    "One row a precision, the published package beside ours.",
    (
        Column("package", "The published package, by name and version.", "", "package", role="key"),
        *PLACE,
        RESULT, shared.REASON,
        _counted(
            "peer_saved_mib", "What a training step of the package saves for backward.",
            heading="activation memory: package",
        ),
        _counted(
            "saved_mib", "What ours saves for backward, without checkpointing.",
            heading="activation memory: ours",
        ),
        Column("ratio", "Our bytes over the package's.", heading="ratio", format=".3f"),
        Column(
            "goal", "Largest ratio that this project wants; empty in another shape.",
            heading="goal: at most", format=".2f",
        ),
        shared.VERDICT.but(text="Whether the goal was reached."),
    ),
    caption="Activation memory of a training step, beside the published package",
)  # fmt: skip


def tabulate(records: Sequence[AnyRecord], run: RunInfo[MemoryConfig]) -> Tables:
    """All rows of a run, failed ones too."""
    config = run.config
    known = config.model_dump(include={"d_model", "n_layers", "vocab_size"})
    known |= {"device": run.device, "timestamp": run.name}

    def place(r: MemoryRecord) -> tuple[Any, ...]:
        kind = r.variant != raw.DEFAULT, r.variant, config.precision.index(r.precision)
        size = r.context_length != config.context_length, r.context_length, r.batch_tokens
        return *kind, *size, config.base.index(r.base), r.grad_checkpoint, r.repeat

    ours = sorted(of_type(MemoryRecord, records), key=place)
    together = groupby(ours, lambda record: record.setting)
    rows = {
        setting: _row(list(mine)) | known | {"emulated": run.emulated(setting.precision)}
        for setting, mine in together
    }
    pairs = pairs_of(list(rows))
    return {
        MEMORY.file: MEMORY.frame(rows.values()),
        SAVINGS.file: SAVINGS.frame(_saving(saver, rows[a], rows[b]) for saver, a, b in pairs),
        PEER.file: PEER.frame(_beside(peer, rows, config) for peer in of_type(PeerRecord, records)),
    }


def step_seconds(records: Iterable[MemoryRecord]) -> dict[int, float]:
    """Seconds of a step in each process that succeeded, by block: all time over all steps."""
    return {r.repeat: fmean(r.seconds) for r in records if r.status == "ok" and r.seconds}


def _row(mine: Sequence[MemoryRecord]) -> dict[str, Any]:
    """Bytes are the largest of the processes, in MiB; seconds are their median."""
    good = [record for record in mine if record.status == "ok"]
    row = mine[0].setting._asdict() | outcome_cells(mine) | _of_prediction(mine[0].predicted)
    row |= MEMORY.row(good) | {"amp": row["precision"], "n_parameters": mine[0].n_parameters}
    on_gpu = row["max_reserved_mb"] is not None
    row["max_memory_mb"] = row["peak_allocated_mib"] if on_gpu else None
    row["seconds"] = seconds = step_seconds(good)
    if seconds:
        row |= interval_cells("elapsed_s", median_interval(list(seconds.values())))
    return row | _missed_by(row, "saved") | _missed_by(row, "peak")


def _of_prediction(predicted: Mapping[str, int]) -> dict[str, Any]:
    kinds = {k.removeprefix(KIND): v / MIB for k, v in predicted.items() if k.startswith(KIND)}
    found = {f"predicted_{k}_mib": v / MIB for k, v in predicted.items() if KIND not in k}
    total = sum(kinds.values()) if kinds else None
    return found | {"predicted_saved_mib": total, "predicted_kinds_mib": kinds}


def _missed_by(row: Values, what: str) -> dict[str, Any]:
    """Of a prediction, and in words whether it is one that a prediction may have."""
    predicted, found = row.get(f"predicted_{what}_mib"), row[MEASURED[what]]
    if predicted is None or not found:
        return {}
    error, within = predicted / found - 1, WITHIN[what]
    said = f"within {within:.0%}" if abs(error) <= within else f"not within {within:.0%}"
    return {f"{what}_error": error, f"{what}_verdict": said}


def pairs_of(settings: Sequence[Setting]) -> Iterator[tuple[str, Setting, Setting]]:
    """Each saver, with the setting that lacks it and the one that has it."""
    for with_ in settings:
        for saver, changes in SAVERS.items():
            without = with_._replace(**changes)
            if with_.variant == raw.DEFAULT and without != with_ and without in settings:
                yield saver, without, with_


def _saving(saver: str, before: Values, after: Values) -> dict[str, Any]:
    """What a setting needs without a saver and with it; times are paired by block."""
    ratio = None if after["emulated"] else ratio_interval(after["seconds"], before["seconds"])
    row = {**after, **interval_cells("time_ratio", ratio)} | {
        "saver": saver,
        "status": "ok" if before["status"] == after["status"] == "ok" else "failed",
        "reason": "; ".join(r for r in (before["reason"], after["reason"]) if r),
        "elapsed_without_s": before.get("elapsed_s"),
        "elapsed_with_s": after.get("elapsed_s"),
        "n_blocks": ratio.n if ratio else 0,
    }
    for what, column in MEASURED.items():
        row |= {f"{what}_without_mib": before[column], f"{what}_with_mib": after[column]}
        if before[column] and after[column] is not None:
            less = before[column] - after[column]
            row |= {f"{what}_less_mib": less, f"{what}_less_share": less / before[column]}
    return row


def _beside(
    peer: PeerRecord, rows: Mapping[Setting, Values], config: MemoryConfig
) -> dict[str, Any]:
    """The package beside ours at the same shape, without checkpointing."""
    place = (peer.base, peer.context_length, peer.batch_tokens, False, peer.precision, raw.DEFAULT)
    saved = rows.get(Setting(*place), {}).get("saved_mib")
    theirs, wanted = most_mib([peer], "saved_bytes"), goal(peer.precision, config)
    ratio = saved / theirs if saved is not None and theirs else None
    reached = None
    if ratio is not None and wanted is not None:
        reached = "reached" if ratio <= wanted else "not reached"
    return asdict(peer) | {
        "package": f"{peer.package} {peer.version}",
        "peer_saved_mib": theirs,
        "saved_mib": saved,
        "ratio": ratio,
        "goal": wanted,
        "verdict": reached,
    }


def goal(precision: str, config: MemoryConfig) -> float | None:
    """The goal in that precision, if the run has the shape that it is for."""
    fits = all(getattr(config, name) == value for name, value in GOAL_SHAPE.items())
    return GOALS.get(precision) if fits else None


def main_rows(rows: pd.DataFrame, config: MemoryConfig) -> pd.DataFrame:
    """The rows at which bases are compared: of the first batch and the run's own context."""
    first = rows["batch_tokens"] == config.batch_tokens[0]
    return rows[first & (rows["context_length"] == config.context_length)]


def kinds_of(rows: pd.DataFrame) -> list[str]:
    """Kinds of saved tensors, those first that need most over all rows."""
    together = sum(map(Counter, rows["predicted_kinds_mib"]), Counter[str]())
    return [kind for kind, _ in together.most_common()]


def parts(rows: pd.DataFrame) -> pd.DataFrame:
    """What is predicted, part by part, beside what was counted and measured, for people."""
    names = ["base", "amp", "grad_checkpoint", *(f"predicted_{part}_mib" for part in PARTS)]
    for what, column in MEASURED.items():
        names += [f"predicted_{what}_mib", column, f"{what}_error"]
    view = MEMORY.view(rows, names)
    for kind in kinds_of(rows):
        sizes = [kinds.get(kind) for kinds in rows["predicted_kinds_mib"]]
        view[f"saved: {kind}"] = [MEMORY["saved_mib"].show(size) for size in sizes]
    return view
