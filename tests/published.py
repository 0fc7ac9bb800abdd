"""Committed evidence, read once for all tests; runs, rows and numbers made up in memory."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from psannlm import ROOT
from psannlm.evidence.runs import Evidence, Refused, all_runs
from psannlm.evidence.table import Number, Row
from psannlm.pages.registry import pages
from psannlm.publish.run_facts import best_runs


@functools.cache
def committed() -> tuple[Evidence | Refused, ...]:
    """All runs of the cpu preset, which the project keeps, their hashes checked."""
    runs = all_runs(ROOT / "reports")
    return tuple(r for r in runs if isinstance(r, Refused) or r.manifest["preset"] == "cpu")


def best() -> dict[str, Evidence]:
    """The best committed run of each page that has one."""
    return best_runs(committed())


def made_up_run(page: str, *, device: str = "a device", **parameters: Any) -> Evidence:
    """A run without files."""
    manifest = {
        "notebook": page,
        "run": "20260101_000000",
        "preset": "cpu",
        "status": "complete",
        "started_at": "2026-01-02T03:04:05+00:00",
        "command": f"papermill notebooks/{page}.ipynb out.ipynb",
        "git": {"commit": "0" * 40, "dirty": False},
        "sha256": "f" * 64,
        "parameters": {"baseline": "transformer", "preset": "cpu"} | parameters,
        "environment": {"device": device},
        "artifacts": {pages()[page].tables[0].file: "a" * 64, "savings.csv": "b" * 64},
    }
    return Evidence(Path("reports") / "benchmarks" / "20260101_000000", manifest)


def made_up_row(
    page: str, values: Mapping[str, Any], number: int = 1, file: str = "", **changes: Any
) -> Row:
    first = pages()[page].tables[0].file
    numbered = file in ("", first)
    return Row(made_up_run(page, **changes), number, values, file or first, numbered)


def number(row: Row, column: str = "ratio", **changes: Any) -> Number:
    """A headline of the throughput page."""
    values: dict[str, Any] = {
        "run": row.run, "name": f"throughput.respsann.32.forward.fp32.{column}",
        "column": pages()["throughput"].tables[0][column], "base": "respsann",
        "quantity": "speed as a ratio to transformer", "setting": "forward", "value": 0.5,
        "low": 0.25, "high": 0.75, "unit": "× transformer", "verdict": "slower", "status": "ok",
        "row": row,
    }  # fmt: skip
    return Number(**values | changes)
