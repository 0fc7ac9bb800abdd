"""Runs made up for histories: a table of rows and a manifest, without the measurements behind."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from psannlm.evidence.notebook import default_parameters
from psannlm.evidence.runs import Evidence
from psannlm.pages.registry import pages
from tests.published import made_up_run

ROW: dict[str, Any] = {
    "base": "respsann", "label": "respsann", "batch_tokens": 1024, "mode": "train_step",
    "precision": "fp32", "tokens_per_s": 1000.0, "tokens_per_s_low": 990.0,
    "tokens_per_s_high": 1010.0, "noise_floor": 0.05, "n_ok": 8, "status": "ok",
    "verdict": "baseline", "ratio": None,
}  # fmt: skip
CHECK: dict[str, Any] = {
    "check": "GPU-01", "base": "respsann", "status": "passed", "measure": "x", "value": 0.5,
    "bound": 1.0, "measures": [], "device": "a machine", "seconds": 1.0, "reason": "",
}  # fmt: skip
ROWS = {"throughput": ROW, "validation": CHECK}
"""Of some pages a row as it is unless a test says otherwise."""


def history_run(reports: Path, page: str, *rows: dict[str, Any], **facts: Any) -> Evidence:
    """A run of that page, a day after the last one there; its folder holds its table alone.

    Args:
        reports: Where its folder is made.
        page: The notebook.
        rows: What differs from the usual row, a row each; none makes one usual row.
        facts: `machine`, `cpu`, `torch`, `threads`, `corpus`, `preset`, `status`, or parameters.
    """
    number = len([*reports.glob("benchmarks/*")]) + 1
    folder = reports / "benchmarks" / f"20260101_{number:06d}"
    folder.mkdir(parents=True)
    table = [ROWS.get(page, {}) | row for row in rows or ({},)]
    name = pages()[page].tables[0].file
    files = dict.fromkeys([name, *(table.file for table in pages()[page].store.tables)], "a" * 64)
    for file in files:
        (folder / file).touch()
    if name.endswith(".csv"):
        pd.DataFrame(table).to_csv(folder / name, index=False)
    else:
        (folder / name).write_text(json.dumps({"findings": table}))
    corpus = facts.pop("corpus", None)
    manifest = {
        **made_up_run(page).manifest,
        "run": folder.name,
        "preset": facts.pop("preset", "cpu"),
        "status": facts.pop("status", "complete"),
        "started_at": f"2026-01-{number:02d}T10:20:30+00:00",
        "git": {"commit": "0" * 40, "dirty": False},
        "artifacts": files,
        "corpus": {"sha256": corpus} if corpus else None,
        "environment": {
            "device": facts.pop("machine", "a machine"),
            "cpu": facts.pop("cpu", {}),
            "gpu": None,
            "settings": {"threads": facts.pop("threads", 2)},
            "software": {"packages": {"torch": facts.pop("torch", "2.0")}},
        },
        "parameters": default_parameters(page) | facts,
    }
    return Evidence(folder, manifest)
