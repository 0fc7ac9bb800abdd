"""The executed notebook, as papermill has saved it when the sealing cell runs.

papermill writes its output file at every cell's start, so when the sealing cell begins, the file
holds every cell before it with its outputs. That file up to the sealing cell, marked as run, is
what the run folder keeps: a cell behind it, such as one that ends in an error because a check has
failed, has not run yet, and says nothing that the cells before do not.
"""

import copy
import datetime
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import psutil
from papermill.cli import papermill as papermill_command
from papermill.exceptions import PapermillMissingParameterException
from papermill.parameterize import parameterize_path

from psannlm import ROOT


def snapshot(pid: int, parameters: Mapping[str, Any]) -> str | None:
    """The notebook that the process `pid` is writing, or None if it is no papermill."""
    path = output_path(pid, parameters)
    if path is None or not path.is_file():
        return None
    return str(nbformat.writes(finished(nbformat.read(path, as_version=4)))) + "\n"


def output_path(pid: int, parameters: Mapping[str, Any]) -> Path | None:
    """Where the papermill process `pid` writes, by papermill's own reading of its command line.

    A path may be a template of the notebook's parameters.
    """
    try:
        process = psutil.Process(pid)
        words, cwd = process.cmdline(), Path(process.cwd())
    except psutil.Error:
        return None
    names = [Path(word).name for word in words]
    module = "-m" in names and "papermill" in words[names.index("-m") + 1 :][:1]
    if not module and "papermill" not in names[:2]:
        return None
    arguments = words[names.index("papermill") + 1 :]
    context = papermill_command.make_context("papermill", arguments, resilient_parsing=True)
    output = context.params.get("output_path")
    try:
        return cwd / str(parameterize_path(output, dict(parameters))) if output else None
    except PapermillMissingParameterException:
        return None  # a template that papermill alone can fill, such as one of the time


def finished(notebook: Any) -> Any:
    """The notebook up to the cell that seals the run, which is running, marked as run.

    If papermill marked none as running, the last code cell is that one.
    """
    done = copy.deepcopy(notebook)
    cells = [cell for cell in done.cells if cell.cell_type == "code"]
    running = [c for c in cells if c.metadata.get("papermill", {}).get("status") == "running"]
    sealing = (running or cells)[-1]
    if running:
        done.cells = done.cells[: done.cells.index(sealing) + 1]
    sealing.execution_count = cells.index(sealing) + 1
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None).isoformat()
    ended = {"end_time": now, "exception": False}
    sealing.metadata.setdefault("papermill", {}).update(status="completed", **ended)
    whole = done.metadata.setdefault("papermill", {})
    whole.update(ended)
    for name in ("input_path", "output_path"):
        whole[name] = relative(whole[name]) if whole.get(name) else None
    return done


def relative(path: str) -> str:
    """A path without the folders of this machine."""
    path = path.removeprefix(f"{ROOT}{os.sep}")
    return Path(path).name if Path(path).is_absolute() else path


def is_complete(notebook: Any) -> bool:
    """Whether every code cell ran to its end without an error.

    papermill's own word is not enough: a kernel that was killed leaves cells marked completed.
    """
    cells = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    return all(
        cell.execution_count is not None
        and all(output.output_type != "error" for output in cell.outputs)
        for cell in cells
    )
