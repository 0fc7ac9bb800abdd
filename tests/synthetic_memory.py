"""Records of memory made up for tests, with known truths in them."""

import functools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psannlm import ROOT
from psannlm.evidence.runs import Evidence, all_runs
from psannlm.files import MIB
from psannlm.pages.memory.config import MemoryConfig
from psannlm.pages.memory.page import PAGE
from psannlm.pages.memory.records import MemoryRecord, PeerRecord
from tests.synthetic import sealed_run

PARAMETERS = 2 * MIB
SAVED = {True: 4 * MIB, False: 10 * MIB}
"""Bytes for backward of 32 tokens in fp32, with and without checkpointing."""

PLAIN = {"default": 1.0, "plain_sine": 2.0, "plain_loss": 1.5}


def memory_config(**changes: Any) -> MemoryConfig:
    values: dict[str, Any] = {
        "vocab_size": 64, "context_length": 16, "d_model": 16, "n_layers": 2, "n_heads": 2,
        "d_mlp": 32, "preset": "cpu", "base": ("respsann", "transformer"),
        "batch_tokens": (32, 64), "contexts": (8,), "precision": ("fp32", "bf16"),
        "variants": ("plain_sine", "plain_loss"), "loss_chunk_tokens": 16, "peer": "",
        "device": "cpu", "n_repeats": 6, "min_seconds": 0.01, "min_steps": 2,
        "timeout_seconds": 60.0, "learning_rate": 0.001, "seed": 0,
    }  # fmt: skip
    return MemoryConfig(**values | changes)


def memory_record(**changes: Any) -> MemoryRecord:
    """A process that succeeded; what is not given follows from its setting."""
    setting: dict[str, Any] = {
        "base": "respsann", "context_length": 16, "batch_tokens": 32, "grad_checkpoint": False,
        "precision": "fp32", "variant": "default",
    }  # fmt: skip
    setting |= {name: changes[name] for name in setting if name in changes}
    saved = _saved_bytes(setting)
    values: dict[str, Any] = {
        "repeat": 0,
        "order": 0,
        "status": "ok",
        "reason": "",
        "started_at": "2026-01-01T00:00:00+00:00",
        "n_parameters": PARAMETERS // 4,
        "predicted": {
            "parameters": PARAMETERS,
            "gradients": PARAMETERS,
            "optimizer": 2 * PARAMETERS,
            "logits": MIB,
            "peak": 4 * PARAMETERS + saved + MIB,
            "saved: attention": saved // 4,
            "saved: mlp": saved - saved // 4,
        },
        "saved_bytes": saved,
        "saved_kinds": {"float32 (2, 16, 16)": saved},
        "peak_allocated_bytes": 4 * PARAMETERS + saved + MIB,
        "peak_reserved_bytes": None,
        "rss_before_bytes": 100 * MIB,
        "peak_rss_bytes": 150 * MIB + saved,
        "loss": 4.0,
        "seconds": (0.5, 0.5),
    }
    return MemoryRecord(**values | setting | changes)


def _saved_bytes(setting: dict[str, Any]) -> int:
    share = setting["batch_tokens"] / 32 * (0.5 if setting["precision"] == "bf16" else 1)
    return int(SAVED[setting["grad_checkpoint"]] * share * PLAIN[setting["variant"]])


def failed_record(reason: str = "out of memory: full", **changes: Any) -> MemoryRecord:
    """A process of which nothing came back."""
    unknown = dict.fromkeys(
        ("saved_bytes", "peak_allocated_bytes", "rss_before_bytes", "peak_rss_bytes", "loss")
    )
    failure = {"status": "failed", "reason": reason, "saved_kinds": {}, "seconds": ()}
    return memory_record(**unknown | failure | changes)


def settings(config: MemoryConfig) -> list[dict[str, Any]]:
    """Bases, checkpointing and precisions at each batch and context, and the variants."""
    first = config.batch_tokens[0]
    shapes = [(config.context_length, tokens) for tokens in config.batch_tokens]
    shapes += [(context, first) for context in config.contexts]
    found = [(shape, on, "default") for shape in shapes for on in (False, True)]
    found += [(shapes[0], False, variant) for variant in config.variants]
    return [
        {
            "base": base,
            "context_length": context,
            "batch_tokens": tokens,
            "grad_checkpoint": on,
            "precision": precision,
            "variant": variant,
        }
        for base in config.base
        for precision in config.precision
        for (context, tokens), on, variant in found
    ]


def memory_records(
    config: MemoryConfig, *, slower: float = 1.3, noise: float = 0.002, seed: int = 0
) -> list[MemoryRecord]:
    """Records of a whole run, in which checkpointing makes a step `slower` times as long."""
    draw = random.Random(seed)
    records = []
    for repeat in range(config.n_repeats):
        for setting in settings(config):
            second = (
                0.5 * (slower if setting["grad_checkpoint"] else 1) * (1 + draw.gauss(0, noise))
            )
            place = {"repeat": repeat, "order": len(records), "seconds": (second,) * 2}
            records.append(memory_record(**setting, **place))
    return records


def peer_record(**changes: Any) -> PeerRecord:
    """The published package, which saves 25 MiB."""
    values: dict[str, Any] = {
        "package": "package", "version": "1.0", "base": "respsann", "vocab_size": 64,
        "d_model": 16, "n_layers": 2, "n_heads": 2, "d_mlp": 32, "context_length": 16,
        "batch_tokens": 32, "precision": "fp32", "status": "ok", "reason": "",
        "started_at": "2026-01-01T00:00:00+00:00", "n_parameters": PARAMETERS // 4,
        "saved_bytes": 25 * MIB, "saved_kinds": {"float32 (2, 16, 16)": 25 * MIB},
    }  # fmt: skip
    return PeerRecord(**values | changes)


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
