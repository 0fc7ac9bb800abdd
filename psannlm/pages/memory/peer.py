"""The published package beside ours: what a training step of each keeps for backward."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from psannlm.files import MIB
from psannlm.pages.memory.config import MemoryConfig
from psannlm.pages.memory.records import PeerRecord

PEER = (
    "package", "base", "precision", "context_length", "batch_tokens", "status",
    "reason", "peer_saved_mib", "saved_mib", "ratio", "goal", "verdict",
)  # fmt: skip
"""Of peer.csv; a package goes by name and version, `saved_mib` is ours, without checkpointing."""

GOALS = {"fp32": 0.45, "bf16": 0.40}
"""Largest ratio of our bytes to the package's that this project wants, by precision."""

GOAL_SHAPE = {"vocab_size": 32_000, "d_model": 512, "n_layers": 8, "context_length": 512}
"""Where the goals hold: another shape has other shares of logits, and so no goal."""


def peer_table(
    peers: Iterable[PeerRecord],
    ours: Mapping[tuple[str, str], float | None],
    config: MemoryConfig,
) -> pd.DataFrame:
    """One row a precision.

    Args:
        peers: What was counted of the package.
        ours: MiB that we save at the same shape without checkpointing, by base and precision.
        config: Of the run.
    """
    rows = [_row(peer, ours.get((peer.base, peer.precision)), config) for peer in peers]
    return pd.DataFrame(rows, columns=list(PEER))


def goal(precision: str, parameters: Mapping[str, Any]) -> float | None:
    """The goal in that precision, if the run has the shape that it is for."""
    fits = all(parameters[name] == value for name, value in GOAL_SHAPE.items())
    return GOALS.get(precision) if fits else None


def goal_verdict(ratio: float | None, wanted: float | None) -> str | None:
    """Whether a goal was reached; None without a goal, or without a ratio."""
    if ratio is None or wanted is None:
        return None
    return "reached" if ratio <= wanted else "not reached"


def package_name(peer: PeerRecord) -> str:
    """Name and version of the package."""
    return f"{peer.package} {peer.version}"


def _row(peer: PeerRecord, ours: float | None, config: MemoryConfig) -> dict[str, Any]:
    theirs = None if peer.saved_bytes is None else peer.saved_bytes / MIB
    ratio = ours / theirs if ours is not None and theirs else None
    wanted = goal(peer.precision, config.model_dump())
    return {name: getattr(peer, name) for name in PEER[1:7]} | {
        "package": package_name(peer),
        "peer_saved_mib": theirs,
        "saved_mib": ours,
        "ratio": ratio,
        "goal": wanted,
        "verdict": goal_verdict(ratio, wanted),
    }
