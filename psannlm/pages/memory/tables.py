"""The tables of the memory page: one row a setting, and one row a pair of them that is compared.

They are computed in one place, and everything that shows a number of memory takes it from there:
the files, the page, its sentences, the figures.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pandas as pd

from psannlm.bench.statistics import median_interval
from psannlm.evidence.runs import Evidence
from psannlm.files import MIB
from psannlm.pages.memory.config import MemoryConfig
from psannlm.pages.memory.peer import peer_table
from psannlm.pages.memory.records import MemoryRecord, PeerRecord
from psannlm.pages.memory.savings import Side, savings_table
from psannlm.pages.memory.worker import DEFAULT

ROWS = (
    "base", "d_model", "n_layers", "grad_checkpoint", "amp",  # as the original plan orders them
    "max_memory_mb", "elapsed_s",
    "elapsed_s_low", "elapsed_s_high", "vocab_size", "context_length", "batch_tokens", "variant",
    "status", "reason", "n_ok", "n_failed", "saved_mib", "predicted_saved_mib", "saved_error",
    "saved_verdict", "peak_allocated_mib", "predicted_peak_mib", "peak_error", "peak_verdict",
    "max_reserved_mb", "rss_before_mib", "peak_rss_mib", "n_parameters",
    "predicted_parameters_mib", "predicted_gradients_mib", "predicted_optimizer_mib",
    "predicted_logits_mib", "predicted_kinds_mib", "device", "timestamp",
)  # fmt: skip
"""Of memory.json. A `mb` is 2**20 bytes, as torch counts it; both are None but on CUDA."""

KIND = "saved: "
"""Opens the name of a predicted kind of saved tensor."""

PLAIN = ("context_length", "batch_tokens", "grad_checkpoint", "variant")

SAVED_WITHIN, PEAK_WITHIN = 0.02, 0.10
"""How far a prediction may lie from what was counted or measured, as a share of that."""


@dataclass(frozen=True)
class Memory:
    """What a run of the memory page states."""

    rows: pd.DataFrame
    """One a setting, as ROWS names the columns."""

    savings: pd.DataFrame
    """One a pair of settings, as memory_savings.SAVINGS names the columns."""

    peer: pd.DataFrame
    """One a precision of the published package, as memory_peer.PEER names the columns."""


def memory_tables(
    records: Iterable[MemoryRecord],
    peers: Iterable[PeerRecord],
    config: MemoryConfig,
    *,
    timestamp: str,
    device: str,
) -> Memory:
    """All rows of a run, failed ones too.

    Args:
        records: Of all processes.
        peers: Of the published package.
        config: Of the run.
        timestamp: Name of the run folder.
        device: Name of the measured device.
    """
    settings = by_setting(records, config)
    known = {
        "d_model": config.d_model,
        "n_layers": config.n_layers,
        "vocab_size": config.vocab_size,
        "device": device,
        "timestamp": timestamp,
    }
    rows = {setting: _row(mine) | known for setting, mine in settings.items()}
    sides = {s: Side(row, step_seconds(settings[s])) for s, row in rows.items()}
    plain = (config.context_length, config.batch_tokens[0], False, DEFAULT)
    ours = {
        (row["base"], row["amp"]): row["saved_mib"]
        for row in rows.values()
        if plain == tuple(row[name] for name in PLAIN)
    }
    return Memory(
        pd.DataFrame(rows.values(), columns=list(ROWS)),
        savings_table(sides),
        peer_table(peers, ours, config),
    )


def by_setting(
    records: Iterable[MemoryRecord], config: MemoryConfig
) -> dict[tuple[Any, ...], list[MemoryRecord]]:
    """Records of equal settings together, in the order of tables."""

    def place(record: MemoryRecord) -> tuple[Any, ...]:
        return (
            record.variant != DEFAULT,
            record.variant,
            config.precision.index(record.precision),
            record.context_length != config.context_length,
            record.context_length,
            record.batch_tokens,
            config.base.index(record.base),
            record.grad_checkpoint,
            record.repeat,
        )

    found: dict[tuple[Any, ...], list[MemoryRecord]] = {}
    for record in sorted(records, key=place):
        found.setdefault(record.setting, []).append(record)
    return found


def step_seconds(records: Iterable[MemoryRecord]) -> dict[int, float]:
    """Seconds of a step in each process that succeeded, by block: all time over all steps."""
    return {r.repeat: fmean(r.seconds) for r in records if r.status == "ok" and r.seconds}


def _row(mine: Sequence[MemoryRecord]) -> dict[str, Any]:
    one = mine[0]
    good = [r for r in mine if r.status == "ok"]
    row: dict[str, Any] = dict.fromkeys(ROWS) | {
        "base": one.base,
        "grad_checkpoint": one.grad_checkpoint,
        "amp": one.precision,
        "context_length": one.context_length,
        "batch_tokens": one.batch_tokens,
        "variant": one.variant,
        "status": "ok" if good else "failed",
        "reason": "; ".join(dict.fromkeys(r.reason for r in mine if r.status != "ok")),
        "n_ok": len(good),
        "n_failed": len(mine) - len(good),
        "n_parameters": one.n_parameters,
        **_predicted(one.predicted),
    }
    if good:
        row |= _measured(good)
        row |= _error(row, "saved", "saved_mib", SAVED_WITHIN)
        row |= _error(row, "peak", "peak_allocated_mib", PEAK_WITHIN)
    return row


def _predicted(predicted: Mapping[str, int]) -> dict[str, Any]:
    sizes = {name: size / MIB for name, size in predicted.items()}
    kinds = {k.removeprefix(KIND): size for k, size in sizes.items() if k.startswith(KIND)}
    parts = ("parameters", "gradients", "optimizer", "logits", "peak")
    return {
        "predicted_saved_mib": sum(kinds.values()) if kinds else None,
        "predicted_kinds_mib": kinds,
        **{f"predicted_{name}_mib": sizes.get(name) for name in parts},
    }


def _measured(good: Sequence[MemoryRecord]) -> dict[str, Any]:
    """The largest of the processes, in MiB; seconds are their median with its interval."""
    on_cuda = any(r.peak_reserved_bytes is not None for r in good)
    allocated = _most(r.peak_allocated_bytes for r in good)
    found = {
        "saved_mib": _most(r.saved_bytes for r in good),
        "peak_allocated_mib": allocated,
        "max_memory_mb": allocated if on_cuda else None,
        "max_reserved_mb": _most(r.peak_reserved_bytes for r in good),
        "rss_before_mib": _most(r.rss_before_bytes for r in good),
        "peak_rss_mib": _most(r.peak_rss_bytes for r in good),
    }
    if seconds := step_seconds(good):
        elapsed = median_interval(list(seconds.values()))
        found |= {"elapsed_s": elapsed.median}
        found |= {"elapsed_s_low": elapsed.low, "elapsed_s_high": elapsed.high}
    return found


def _most(values: Iterable[int | None]) -> float | None:
    known = [value / MIB for value in values if value is not None]
    return max(known, default=None)


def _error(row: Mapping[str, Any], what: str, measured: str, within: float) -> dict[str, Any]:
    predicted, found = row[f"predicted_{what}_mib"], row[measured]
    if predicted is None or not found:
        return {}
    error = predicted / found - 1
    return {f"{what}_error": error, f"{what}_verdict": error_verdict(error, within)}


def error_verdict(error: float, within: float) -> str:
    """Whether a relative error is one that a prediction may have, in words."""
    return f"within {within:.0%}" if abs(error) <= within else f"not within {within:.0%}"


def main_rows(rows: pd.DataFrame, config: Mapping[str, Any]) -> pd.Series:
    """Which rows have the first batch and the run's own context: those that bases are compared at.

    Args:
        rows: Any table with these two columns.
        config: Parameters of the run.
    """
    found: pd.Series = (rows["batch_tokens"] == config["batch_tokens"][0]) & (
        rows["context_length"] == config["context_length"]
    )
    return found


def rows_json(rows: pd.DataFrame) -> str:
    """Text of memory.json: a list of objects, None where a value is unknown."""
    plain = rows.astype(object).where(rows.notna(), None)
    return json.dumps(plain.to_dict("records"), indent=1, allow_nan=False) + "\n"


def read_rows(text: str) -> pd.DataFrame:
    """The rows whose JSON this is.

    Raises:
        ValueError: It is no list of objects with the keys of ROWS.
    """
    rows = json.loads(text)
    if not isinstance(rows, list) or any(set(row) != set(ROWS) for row in rows):
        raise ValueError("memory.json must be a list of objects with the keys of a row")
    return pd.DataFrame(rows, columns=list(ROWS))


def read(run: Evidence) -> Memory:
    """What a run states."""
    tables = (pd.read_csv(io.StringIO(run.text(name))) for name in ("savings.csv", "peer.csv"))
    return Memory(read_rows(run.text("memory.json")), *tables)
