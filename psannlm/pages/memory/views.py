"""Tables and files of the memory page, from what its run states."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from psannlm.bench.statistics import CONFIDENCE
from psannlm.evidence.text import UNKNOWN, interval, number
from psannlm.pages.memory.tables import Memory, main_rows, rows_json
from psannlm.pages.memory.worker import DEFAULT, PLAIN_LOSS, PLAIN_SINE

SAVER_NAMES = {
    "checkpointing": "checkpointing",
    "fast_sine": "the fast sine",
    "chunked_loss": "the chunked loss",
}
"""What people call what saves memory."""

VARIANT_NAMES = {DEFAULT: "", PLAIN_SINE: "plain sine", PLAIN_LOSS: "plain loss"}

PEAK = "peak of torch's allocator"
"""The same on every device: on CPU torch's record of its allocations, on a GPU its own peak."""


def pairs(memory: Memory, parameters: Mapping[str, Any]) -> pd.DataFrame:
    """One row a base and precision: without checkpointing beside with it."""
    savings = memory.savings[memory.savings["saver"] == "checkpointing"]
    savings = savings[main_rows(savings, parameters)]
    predicted = [
        [_foreseen(memory.rows, row, on) for on in (False, True)]
        for row in savings.to_dict("records")
    ]
    return pd.DataFrame(
        {
            "base": list(savings["base"]),
            "precision": list(savings["precision"]),
            "saved for backward, MiB: off": _numbers(savings, "saved_without_mib", ",.1f"),
            "on": _numbers(savings, "saved_with_mib", ",.1f"),
            "less": _less(savings, "saved"),
            "predicted: off": [number(off, ",.1f") for off, _ in predicted],
            "predicted: on": [number(on, ",.1f") for _, on in predicted],
            f"{PEAK}, MiB: off": _numbers(savings, "peak_without_mib", ",.0f"),
            f"{PEAK}, MiB: on": _numbers(savings, "peak_with_mib", ",.0f"),
            "peak less": _less(savings, "peak"),
            "step, s: off": _numbers(savings, "elapsed_without_s", ".3f"),
            "step, s: on": _numbers(savings, "elapsed_with_s", ".3f"),
            f"time ratio ({CONFIDENCE:.0%} interval)": _time_ratios(savings),
            "result": _results(savings),
        }
    )


def _foreseen(rows: pd.DataFrame, saving: Mapping[Any, Any], on: bool) -> float | None:
    """Predicted saved MiB of one side of a pair."""
    found = rows[
        (rows["base"] == saving["base"])
        & (rows["amp"] == saving["precision"])
        & (rows["context_length"] == saving["context_length"])
        & (rows["batch_tokens"] == saving["batch_tokens"])
        & (rows["grad_checkpoint"] == on)
        & (rows["variant"] == DEFAULT)
    ]["predicted_saved_mib"]
    return None if found.empty else found.iloc[0]


def breakdown(memory: Memory, parameters: Mapping[str, Any]) -> pd.DataFrame:
    """What is predicted, part by part, beside what was counted and measured."""
    rows = memory.rows[main_rows(memory.rows, parameters) & (memory.rows["variant"] == DEFAULT)]
    columns: dict[str, list[Any]] = {
        "base": list(rows["base"]),
        "precision": list(rows["amp"]),
        "checkpointing": _switches(rows),
    }
    for name in ("parameters", "gradients", "optimizer", "logits"):
        columns[f"{name}, MiB"] = _numbers(rows, f"predicted_{name}_mib", ",.1f")
    for kind in kinds_of(rows):
        sizes = [kinds.get(kind) for kinds in rows["predicted_kinds_mib"]]
        columns[f"saved: {kind}"] = [number(size, ",.1f") for size in sizes]
    columns |= {
        "saved, predicted": _numbers(rows, "predicted_saved_mib", ",.1f"),
        "saved, counted": _numbers(rows, "saved_mib", ",.1f"),
        "saved: error": _errors(rows, "saved"),
        "peak, predicted": _numbers(rows, "predicted_peak_mib", ",.0f"),
        "peak, measured": _numbers(rows, "peak_allocated_mib", ",.0f"),
        "peak: error": _errors(rows, "peak"),
    }
    return pd.DataFrame(columns)


def kinds_of(rows: pd.DataFrame) -> list[str]:
    """Kinds of saved tensors, those first that need most over all rows."""
    together: dict[str, float] = {}
    for kinds in rows["predicted_kinds_mib"]:
        for kind, size in kinds.items():
            together[kind] = together.get(kind, 0) + size
    return sorted((k for k, size in together.items() if size), key=lambda k: -together[k])


def savers(memory: Memory) -> pd.DataFrame:
    """What the fast sine and the chunked loss save against their plain paths."""
    savings = memory.savings[memory.savings["saver"] != "checkpointing"]
    return pd.DataFrame(
        {
            "what saves": [SAVER_NAMES[saver] for saver in savings["saver"]],
            "base": list(savings["base"]),
            "precision": list(savings["precision"]),
            "checkpointing": _switches(savings),
            "saved for backward, MiB: plain": _numbers(savings, "saved_without_mib", ",.1f"),
            "saved for backward, MiB: with it": _numbers(savings, "saved_with_mib", ",.1f"),
            "less": _less(savings, "saved"),
            f"{PEAK}, MiB: plain": _numbers(savings, "peak_without_mib", ",.0f"),
            f"{PEAK}, MiB: with it": _numbers(savings, "peak_with_mib", ",.0f"),
            "peak less": _less(savings, "peak"),
            f"time ratio ({CONFIDENCE:.0%} interval)": _time_ratios(savings),
            "result": _results(savings),
        }
    )


def peer(memory: Memory) -> pd.DataFrame:
    """What the published package keeps for backward beside ours; no row if none was named."""
    table = memory.peer
    return pd.DataFrame(
        {
            "package": list(table["package"]),
            "base": list(table["base"]),
            "precision": list(table["precision"]),
            "batch tokens": [f"{tokens:,}" for tokens in table["batch_tokens"]],
            "context": [f"{context:,}" for context in table["context_length"]],
            "saved for backward, MiB: package": _numbers(table, "peer_saved_mib", ",.1f"),
            "saved for backward, MiB: ours": _numbers(table, "saved_mib", ",.1f"),
            "ratio": _numbers(table, "ratio", ".3f"),
            "goal: at most": _numbers(table, "goal", ".2f"),
            "verdict": [UNKNOWN if pd.isna(v) else v for v in table["verdict"]],
            "result": _results(table),
        }
    )


def rows(memory: Memory) -> pd.DataFrame:
    """Every row as people read it, curves and failures too."""
    table = memory.rows
    return pd.DataFrame(
        {
            "base": list(table["base"]),
            "precision": list(table["amp"]),
            "checkpointing": _switches(table),
            "variant": [VARIANT_NAMES[variant] or UNKNOWN for variant in table["variant"]],
            "batch tokens": [f"{tokens:,}" for tokens in table["batch_tokens"]],
            "context": [f"{context:,}" for context in table["context_length"]],
            "saved for backward, MiB": _numbers(table, "saved_mib", ",.1f"),
            "predicted": _numbers(table, "predicted_saved_mib", ",.1f"),
            f"{PEAK}, MiB": _numbers(table, "peak_allocated_mib", ",.0f"),
            "predicted peak": _numbers(table, "predicted_peak_mib", ",.0f"),
            "reserved on the GPU, MiB": _numbers(table, "max_reserved_mb", ",.0f"),
            "RSS before, MiB": _numbers(table, "rss_before_mib", ",.0f"),
            "peak RSS, MiB": _numbers(table, "peak_rss_mib", ",.0f"),
            f"step, s ({CONFIDENCE:.0%} interval)": [
                interval(middle, low if n > 1 else None, high, ".3f")
                for middle, low, high, n in zip(
                    table["elapsed_s"],
                    table["elapsed_s_low"],
                    table["elapsed_s_high"],
                    table["n_ok"],
                    strict=True,
                )
            ],
            "processes": [
                f"{ok}" + (f" ({failed} failed)" if failed else "")
                for ok, failed in zip(table["n_ok"], table["n_failed"], strict=True)
            ],
            "result": _results(table),
        }
    )


def _numbers(table: pd.DataFrame, column: str, pattern: str) -> list[str]:
    return [number(value, pattern) for value in table[column]]


def _switches(table: pd.DataFrame) -> list[str]:
    return ["on" if on else "off" for on in table["grad_checkpoint"]]


def _less(savings: pd.DataFrame, what: str) -> list[str]:
    sizes = zip(savings[f"{what}_less_mib"], savings[f"{what}_less_share"], strict=True)
    return [less(mib, share) for mib, share in sizes]


def less(mib: Any, share: Any) -> str:
    """How much less is needed, in MiB and as a share; plainly so if it is not less."""
    if mib is None or pd.isna(mib):
        return UNKNOWN
    if round(mib, 1) == 0:
        return "no less"
    if mib > 0:
        return f"{mib:,.1f} MiB less ({share:.0%})"
    return f"{-mib:,.1f} MiB more ({-share:.0%})"


def _errors(table: pd.DataFrame, what: str) -> list[str]:
    pairs = zip(table[f"{what}_error"], table[f"{what}_verdict"], strict=True)
    return [UNKNOWN if pd.isna(error) else f"{error:+.1%}, {verdict}" for error, verdict in pairs]


def _time_ratios(savings: pd.DataFrame) -> list[str]:
    return [time_ratio(row) for row in savings.to_dict("records")]


def time_ratio(saving: Mapping[Any, Any]) -> str:
    """Time of a step with the saver over that without; an interval where there are repeats."""
    if saving["n_blocks"] < 2:
        return number(saving["time_ratio"], ".2f")
    low, high = saving["time_ratio_low"], saving["time_ratio_high"]
    return interval(saving["time_ratio"], low, high, ".2f")


def _results(table: pd.DataFrame) -> list[str]:
    pairs = zip(table["status"], table["reason"], strict=True)
    return [status if status == "ok" else f"{status}: {reason}" for status, reason in pairs]


def files(memory: Memory, manifest: Mapping[str, Any]) -> dict[str, str]:
    """The files of a memory run that state its result, by name."""
    return {
        "memory.json": rows_json(memory.rows),
        "savings.csv": memory.savings.to_csv(index=False, lineterminator="\n"),
        "peer.csv": memory.peer.to_csv(index=False, lineterminator="\n"),
        "README.md": readme(memory, manifest),
    }


def readme(memory: Memory, manifest: Mapping[str, Any]) -> str:
    """README.md of a run folder: what checkpointing saves and costs, base by base."""
    table = pairs(memory, manifest["parameters"])
    shown = [name for name in table.columns if not name.startswith("predicted")]
    lines = [
        f"# {manifest['notebook'].capitalize()}, {manifest['run']}",
        "",
        f"Preset {manifest['preset']}, on {manifest['environment']['device']}. Training steps "
        f"of {manifest['parameters']['batch_tokens'][0]:,} tokens in sequences of "
        f"{manifest['parameters']['context_length']:,}, checkpointing off beside on.",
        "",
        _markdown(shown),
        _markdown("---" for _ in shown),
        *(_markdown(row) for row in table[shown].itertuples(index=False)),
    ]
    return "\n".join([*lines, "", f"Made by `{manifest['command']}`.", ""])


def _markdown(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
