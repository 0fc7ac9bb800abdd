"""Runs made up for histories: a table of rows and a manifest, without the measurements behind."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from psannlm.evidence.rows import TABLES
from psannlm.evidence.runs import Evidence
from tests.synthetic import throughput_config
from tests.synthetic_memory import memory_config
from tests.synthetic_shootout import shootout_config
from tests.trainings import training_config
from tests.validations import validation_config

CONFIGS = {
    "throughput": throughput_config,
    "memory": memory_config,
    "tiny_corpus": training_config,
    "validation": validation_config,
    "shootout": shootout_config,
    "peer": throughput_config,
}
ROWS: dict[str, dict[str, Any]] = {
    "throughput": {
        "base": "respsann", "label": "respsann", "batch_tokens": 1024, "mode": "train_step",
        "precision": "fp32", "tokens_per_s": 1000.0, "tokens_per_s_low": 990.0,
        "tokens_per_s_high": 1010.0, "noise_floor": 0.05, "n_ok": 8, "status": "ok",
    },
    "memory": {
        "base": "respsann", "batch_tokens": 32, "context_length": 16, "amp": "fp32",
        "grad_checkpoint": False, "variant": "default", "saved_mib": 100.0, "elapsed_s": 0.5,
        "elapsed_s_low": 0.49, "elapsed_s_high": 0.51, "n_ok": 8, "status": "ok",
    },
    "tiny_corpus": {"base": "respsann", "bits_per_byte": 2.0, "tokens_per_s": 1000.0},
    "validation": {"check": "GPU-01", "base": "respsann", "status": "passed"},
    "shootout": {
        "base": "respsann", "place": 1, "refused": None, "val_loss": 3.0, "val_loss_low": 2.9,
        "val_loss_high": 3.1, "n_seeds": 5,
    },
    "peer": {
        "side": "ours", "base": "respsann", "setting": "best", "work": "train_step",
        "precision": "fp32", "batch_tokens": 32, "ratio": 1.5, "ratio_low": 1.45,
        "ratio_high": 1.55, "noise_floor": 0.02, "n_ok": 8, "status": "ok",
    },
}  # fmt: skip
"""Of each page one row as it is unless a test says otherwise."""


def history_run(
    reports: Path, page: str, number: int, *rows: dict[str, Any], **facts: Any
) -> Evidence:
    """A run of that page, complete unless said otherwise; its folder holds its table alone.

    Args:
        reports: Where its folder is made.
        page: The notebook.
        number: Of the run: the later, the higher.
        rows: What differs from the usual row, a row each; none makes one usual row.
        facts: `machine`, `torch`, `threads`, `corpus`, `preset`, `status`, or parameters.
    """
    folder = reports / "benchmarks" / f"20260101_{number:06d}"
    folder.mkdir(parents=True)
    table = [ROWS[page] | row for row in rows or ({},)]
    name = TABLES[page]
    if name.endswith(".csv"):
        pd.DataFrame(table).to_csv(folder / name, index=False)
    else:
        found = {"validation": {"findings": table}, "tiny_corpus": table[0]}.get(page, table)
        (folder / name).write_text(json.dumps(found))
    corpus = facts.pop("corpus", None)
    manifest = {
        "run": folder.name,
        "notebook": page,
        "preset": facts.pop("preset", "cpu"),
        "status": facts.pop("status", "complete"),
        "started_at": f"2026-01-{number:02d}T10:20:30+00:00",
        "git": {"commit": "0" * 40, "dirty": False},
        "corpus": {"sha256": corpus} if corpus else None,
        "environment": {
            "device": facts.pop("machine", "a machine"),
            "settings": {"threads": facts.pop("threads", 2)},
            "software": {"packages": {"torch": facts.pop("torch", "2.0")}},
        },
        "parameters": CONFIGS[page]().model_dump(mode="json") | facts,
    }
    return Evidence(folder, manifest)
