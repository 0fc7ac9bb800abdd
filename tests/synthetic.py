"""Records and run folders made up for tests, with known truths in them."""

import random
from pathlib import Path
from typing import Any

import nbformat
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from psannlm.bench.environment import describe_environment
from psannlm.evidence.page import Page, RunInfo
from psannlm.evidence.runs import Run
from psannlm.pages.throughput.page import PAGE
from psannlm.pages.throughput.plan import plan
from psannlm.pages.throughput.records import CEILING, CellRecord, ThroughputConfig

SMALL: dict[str, Any] = {
    "vocab_size": 64, "context_length": 16, "d_model": 16, "n_layers": 1, "n_heads": 2,
    "d_mlp": 32, "preset": "cpu", "device": "cpu", "n_repeats": 6, "min_seconds": 0.01,
    "min_steps": 2, "timeout_seconds": 60.0, "learning_rate": 0.001, "seed": 0,
}  # fmt: skip
"""What configurations of small measurements have in common."""

SMALL_TASK: dict[str, Any] = {
    "batch_tokens": 64, "precision": "fp32", "device": "cpu", "min_seconds": 0.001, "min_steps": 2,
    "learning_rate": 0.01, "seed": 0,
}  # fmt: skip
"""What tasks of a small network have in common."""

Speeds = dict[str, float]  # tokens/s, by label or base
PUBLISHED: Speeds = {"respsann": 900.0, "transformer": 1000.0}


def throughput_config(**changes: Any) -> ThroughputConfig:
    values: dict[str, Any] = {
        "base": ("respsann",), "baseline": "transformer", "batch_tokens": (32,),
        "mode": ("forward",), "precision": ("fp32",), "compile": False,
    }  # fmt: skip
    return ThroughputConfig(**SMALL | values | changes)


def record(**changes: Any) -> CellRecord:
    values: dict[str, Any] = {
        "repeat": 0, "order": 0, "label": "respsann", "base": "respsann", "batch_tokens": 32,
        "context_length": 16, "mode": "forward", "precision": "fp32", "status": "ok", "reason": "",
        "started_at": "2026-01-01T00:00:00+00:00", "flops": 1000, "n_warmup": 6, "steady": True,
        "peak_rss_bytes": 2**28, "seconds": (0.5, 0.5),
    }  # fmt: skip
    return CellRecord(**values | changes)


def throughput_records(
    config: ThroughputConfig, speeds: Speeds, *, noise: float = 0.002, seed: int = 0
) -> list[CellRecord]:
    """Records in which a label runs at its speed (tokens/s), but for noise per process."""
    draw = random.Random(seed)
    records = []
    for cell in plan(config):
        place = cell._asdict()
        for mode in place.pop("modes"):
            if mode == CEILING:
                found: dict[str, Any] = {"flops": 10**9, "seconds": (0.001,)}
            else:
                speed = speeds.get(cell.label, speeds[cell.base]) * (1 + draw.gauss(0, noise))
                found = {"seconds": (cell.batch_tokens / speed,) * 3}
            records.append(record(**place, mode=mode, **found))
    return records


def executed_notebook(title: str = "Throughput") -> Any:
    shown = {"text/html": "<b>rows</b>", "image/png": "AAAA"}
    outputs = [
        new_output("execute_result", shown, execution_count=2),
        new_output("stream", name="stdout", text="progress"),
    ]
    cells = [
        new_markdown_cell(f"# {title}"),
        new_code_cell("preset = 1", execution_count=1, metadata={"tags": ["parameters"]}),
        new_code_cell("table", execution_count=2, outputs=outputs),
    ]
    for i, cell in enumerate(cells):
        cell.id = f"cell-{i}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def start_manifest(name: str, config: Any) -> dict[str, Any]:
    """What the manifest of a run of that notebook says at its start."""
    return {
        "notebook": name,
        "preset": config.preset,
        "command": f"papermill notebooks/{name}.ipynb out.ipynb",
        "git": {"commit": "0" * 40, "dirty": False},
        "parameters": config.model_dump(mode="json"),
        "environment": describe_environment(torch.device("cpu")),
        "conditions": {"start": {}},
        "corpus": None,
        "tokenizer": None,
    }


def throughput_run(
    reports: Path, *, preset: str = "cpu", speeds: Speeds = PUBLISHED, status: str = "complete"
) -> Path:
    """A sealed run folder of synthetic records; returns it."""
    config = throughput_config(preset=preset)
    return sealed_run(PAGE, config, throughput_records(config, speeds), reports, status=status)


def sealed_run(
    page: Page[Any, Any],
    config: Any,
    records: list[Any],
    reports: Path,
    *,
    status: str = "complete",
    **facts: Any,
) -> Path:
    """A sealed run folder of a page that found these records; returns it."""
    manifest = start_manifest(page.name, config) | facts
    run = Run.start(page.folder, manifest, reports=reports, suffix=page.suffix)
    info = RunInfo(config, run.manifest, records)
    files = page.texts(records, info) | page.files(page.tabulate(records, info), info)
    files |= {f"{page.name}.ipynb": nbformat.writes(executed_notebook(page.title))}
    for name, text in files.items():
        run.write(name, text)
    run.seal(status)
    return run.folder
