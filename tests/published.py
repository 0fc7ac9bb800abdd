"""Committed evidence, read once for all tests; runs, rows and headlines made up in memory."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from psannlm import ROOT
from psannlm.evidence.rows import TABLES, Row
from psannlm.evidence.runs import Evidence, Refused, all_runs, best_run
from psannlm.publish.headline import Headline
from psannlm.publish.headlines import headlines


@functools.cache
def committed() -> tuple[Evidence | Refused, ...]:
    """All runs of the cpu preset, which the project keeps, their hashes checked."""
    runs = all_runs(ROOT / "reports")
    return tuple(r for r in runs if isinstance(r, Refused) or r.manifest["preset"] == "cpu")


def best() -> dict[str, Evidence]:
    """The best committed run of each notebook that has one."""
    sound = [run for run in committed() if isinstance(run, Evidence)]
    found = {name: best_run(name, sound) for name in TABLES}
    return {name: run for name, run in found.items() if run is not None}


@functools.cache
def best_headlines() -> tuple[Headline, ...]:
    """The headlines of the best committed runs."""
    return tuple(headlines(best()))


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
        "artifacts": {TABLES[page]: "a" * 64, "savings.csv": "b" * 64},
    }
    return Evidence(Path("reports") / "benchmarks" / "20260101_000000", manifest)


def made_up_row(
    page: str, values: Mapping[str, Any], number: int = 1, artifact: str = "", **changes: Any
) -> Row:
    return Row(made_up_run(page, **changes), number, values, artifact)


def headline(row: Row, **changes: Any) -> Headline:
    values: dict[str, Any] = {
        "name": "throughput.respsann.32.forward.fp32.ratio", "claim": "BMRK-02",
        "about": "respsann", "quantity": "speed as a ratio to transformer", "value": 0.5,
        "low": 0.25, "high": 0.75, "unit": "× transformer", "target": "", "verdict": "slower",
        "row": row,
    }  # fmt: skip
    return Headline(**values | changes)
