"""Records of memory made up for tests, with known truths in them."""

import functools
import random
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from psannlm import ROOT
from psannlm.evidence.runs import Evidence, all_runs
from psannlm.files import MIB
from psannlm.pages.memory.page import PAGE
from psannlm.pages.memory.records import MemoryConfig, MemoryRecord, PeerRecord, Setting
from tests.synthetic import SMALL, sealed_run

PARAMETERS = 2 * MIB
SAVED = {True: 4 * MIB, False: 10 * MIB}
"""Bytes for backward of 32 tokens in fp32, with and without checkpointing."""

PLAIN = {"default": 1.0, "plain_sine": 2.0, "plain_loss": 1.5}
OUTCOME: dict[str, Any] = {
    "base": "respsann", "context_length": 16, "batch_tokens": 32, "precision": "fp32",
    "status": "ok", "reason": "", "started_at": "2026-01-01T00:00:00+00:00",
    "n_parameters": PARAMETERS // 4,
}  # fmt: skip


def memory_config(**changes: Any) -> MemoryConfig:
    values: dict[str, Any] = {
        "n_layers": 2, "base": ("respsann", "transformer"), "batch_tokens": (32, 64),
        "contexts": (8,), "precision": ("fp32", "bf16"), "variants": ("plain_sine", "plain_loss"),
        "loss_chunk_tokens": 16, "peer": "",
    }  # fmt: skip
    return MemoryConfig(**SMALL | values | changes)


def memory_record(**changes: Any) -> MemoryRecord:
    """A process; what is not given follows from its setting, and of a failed one is unknown."""
    values = OUTCOME | {"grad_checkpoint": False, "variant": "default"} | changes
    share = values["batch_tokens"] / 32 * (0.5 if values["precision"] == "bf16" else 1)
    saved = int(SAVED[values["grad_checkpoint"]] * share * PLAIN[values["variant"]])
    peak = 4 * PARAMETERS + saved + MIB
    predicted = {
        "parameters": PARAMETERS, "gradients": PARAMETERS, "optimizer": 2 * PARAMETERS,
        "logits": MIB, "peak": peak, "saved: attention": saved // 4,
        "saved: mlp": saved - saved // 4,
    }  # fmt: skip
    found: dict[str, Any] = {
        "saved_bytes": saved, "saved_kinds": {"float32 (2, 16, 16)": saved},
        "peak_allocated_bytes": peak, "rss_before_bytes": 100 * MIB,
        "peak_rss_bytes": 150 * MIB + saved, "loss": 4.0, "seconds": (0.5, 0.5),
    }  # fmt: skip
    known = {"repeat": 0, "order": 0, "predicted": predicted}
    return MemoryRecord(**known | (found if values["status"] == "ok" else {}) | values)


def failed_record(reason: str = "out of memory: full", **changes: Any) -> MemoryRecord:
    """A process of which nothing came back."""
    return memory_record(status="failed", reason=reason, **changes)


def settings(config: MemoryConfig) -> list[dict[str, Any]]:
    """Bases, checkpointing and precisions at each batch and context, and the variants."""
    first = config.batch_tokens[0]
    shapes = [(config.context_length, tokens) for tokens in config.batch_tokens]
    shapes += [(context, first) for context in config.contexts]
    found = [(shape, on, "default") for shape in shapes for on in (False, True)]
    found += [(shapes[0], False, variant) for variant in config.variants]
    return [
        Setting(base, *shape, on, precision, variant)._asdict()
        for base, precision, (shape, on, variant) in product(config.base, config.precision, found)
    ]


def memory_records(config: MemoryConfig, *, noise: float = 0.002) -> list[MemoryRecord]:
    """Records of a whole run, in which checkpointing makes a step 1.3 times as long."""
    draw = random.Random(0)
    records: list[MemoryRecord] = []
    for repeat, setting in product(range(config.n_repeats), settings(config)):
        second = 0.5 * (1.3 if setting["grad_checkpoint"] else 1) * (1 + draw.gauss(0, noise))
        place = {"repeat": repeat, "order": len(records), "seconds": (second,) * 2}
        records.append(memory_record(**setting, **place))
    return records


def peer_record(**changes: Any) -> PeerRecord:
    """The published package, which saves 25 MiB."""
    values: dict[str, Any] = {
        "package": "package", "version": "1.0", "vocab_size": 64, "d_model": 16, "n_layers": 2,
        "n_heads": 2, "d_mlp": 32, "saved_bytes": 25 * MIB,
        "saved_kinds": {"float32 (2, 16, 16)": 25 * MIB},
    }  # fmt: skip
    return PeerRecord(**OUTCOME | values | changes)


def memory_run(
    reports: Path,
    *,
    status: str = "complete",
    records: list[MemoryRecord] | None = None,
    peers: Sequence[PeerRecord] = (),
    **changes: Any,
) -> Path:
    """A sealed run folder of made-up records of a few settings; returns it."""
    few = {"batch_tokens": (32,), "contexts": (), "precision": ("fp32",), "n_repeats": 3}
    config = memory_config(**few | changes)
    found = memory_records(config) if records is None else records
    return sealed_run(PAGE, config, [*found, *peers], reports, status=status)


@functools.cache
def committed_run() -> Evidence:
    """The run that the project publishes."""
    runs = (run for run in all_runs(ROOT / "reports") if isinstance(run, Evidence))
    [run] = (r for r in runs if (r.manifest["notebook"], r.manifest["preset"]) == ("memory", "cpu"))
    return run
