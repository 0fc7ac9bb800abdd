"""Comparisons with the published package made up for tests, with known truths in them."""

import random
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from psannlm.files import MIB
from psannlm.pages.peer.page import PAGE
from psannlm.pages.peer.plan import SideTask
from psannlm.pages.peer.records import (
    OURS,
    PUBLISHED,
    SIDES,
    AnyCell,
    PeerCell,
    PeerConfig,
    ProtocolCell,
)
from tests.synthetic import sealed_run

SPEEDS = dict(zip(SIDES, (1500.0, 1500.0, 1000.0), strict=True))
"""Tokens/s of each side, whatever the work."""

SAVED = dict(zip(SIDES, (4 * MIB, 4 * MIB, 10 * MIB), strict=True))


def peer_config(**changes: Any) -> PeerConfig:
    values: dict[str, Any] = {
        "vocab_size": 24, "context_length": 16, "d_model": 8, "n_layers": 2, "n_heads": 2,
        "d_mlp": 12, "preset": "cpu", "peer": "psannlm==2.0.1", "base": ("respsann", "sgrpsann"),
        "batch_tokens": 32, "precision": ("fp32",), "work": ("train_step", "saved"),
        "setting": ("defaults", "best"), "prompt_tokens": 3, "new_tokens": 5,
        "protocol_batch_tokens": (32,), "device": "cpu", "n_repeats": 6, "min_seconds": 1e-6,
        "min_steps": 2, "timeout_seconds": 60.0, "learning_rate": 0.01, "seed": 0,
    }  # fmt: skip
    return PeerConfig(**values | changes)


def side_task(base: str = "respsann", *, length: int = 16, **changes: Any) -> dict[str, Any]:
    """Fields of a task, as its process reads them; its sequences have that length."""
    network = peer_config().network_of(base, context_length=length)
    values: dict[str, Any] = {
        "python": "", "model": network.model_dump(), "batch_tokens": 32, "setting": "defaults",
        "precision": "fp32", "prompt_tokens": 3, "new_tokens": 5, "device": "cpu",
        "min_seconds": 1e-6, "min_steps": 2, "learning_rate": 0.01, "seed": 0,
        "modes": ("forward",),
    }  # fmt: skip
    return vars(SideTask(**values | changes))


def peer_cell(**changes: Any) -> PeerCell:
    """A process that succeeded at a training step."""
    values: dict[str, Any] = {
        "repeat": 0, "order": 0, "side": OURS, "base": "respsann", "setting": "best",
        "work": "train_step", "precision": "fp32", "batch_tokens": 32, "context_length": 16,
        "status": "ok", "reason": "", "started_at": "2026-01-01T00:00:00+00:00",
        "choices": "fused attention", "n_parameters": 1000, "tokens": 32, "seconds": (0.5, 0.5),
    }  # fmt: skip
    return PeerCell(**values | changes)


def failed_cell(reason: str = "cannot be installed", **changes: Any) -> PeerCell:
    """A process of which nothing came back."""
    unknown: dict[str, Any] = {"seconds": (), "n_parameters": None}
    return peer_cell(status="failed", reason=reason, **unknown | changes)


def peer_records(
    config: PeerConfig, *, speeds: dict[str, float] = SPEEDS, failing: Sequence[str] = ()
) -> list[PeerCell]:
    """Records of a whole run, in which a side has its speed but for noise per process."""
    draw = random.Random(0)
    records = []
    blocks = range(config.n_repeats)
    cells = product(blocks, SIDES, config.base, config.setting, config.precision)
    for order, (repeat, side, base, setting, precision) in enumerate(cells):
        for work in config.work:
            place: dict[str, Any] = {
                "repeat": repeat, "order": order, "side": side, "base": base, "setting": setting,
                "precision": precision, "work": work,
            }  # fmt: skip
            if side in failing:
                records.append(failed_cell(**place))
            elif work == "saved":
                records.append(peer_cell(**place, seconds=(), saved_bytes=SAVED[side]))
            else:
                second = 32 / (speeds[side] * (1 + draw.gauss(0, 0.002)))
                records.append(peer_cell(**place, seconds=(second,) * 3))
    return records


def protocol_cell(**changes: Any) -> ProtocolCell:
    values: dict[str, Any] = {
        "side": OURS, "check": "GPU-03", "base": "respsann", "batch_tokens": 32,
        "context_length": 16, "measure": "tokens_per_s", "value": 1234.5, "status": "ok",
        "reason": "", "started_at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return ProtocolCell(**values | changes)


def protocol_cells() -> list[ProtocolCell]:
    """Speed and memory of both sides; of memory that CUDA alone has, nothing."""
    peak = {"check": "GPU-04", "measure": "max_allocated_mib", "reason": "of a GPU alone"}
    cells = []
    for side in (OURS, PUBLISHED):
        cells.append(protocol_cell(side=side, value=SPEEDS[side]))
        cells.append(protocol_cell(side=side, value=None, **peak))
    return cells


def peer_run(
    reports: Path,
    *,
    status: str = "complete",
    records: Sequence[AnyCell] | None = None,
    protocol: Sequence[ProtocolCell] | None = None,
    **changes: Any,
) -> Path:
    """A sealed run folder of made-up records; returns it."""
    config = peer_config(**changes)
    cells = peer_records(config) if records is None else records
    found = [*cells, *(protocol_cells() if protocol is None else protocol)]
    return sealed_run(PAGE, config, found, reports, status=status)
