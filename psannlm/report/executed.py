"""The executed notebook, as papermill has saved it when the last cell runs.

papermill writes its output file at every cell's start, so when the sealing cell begins, the file
holds every cell before it with its outputs. That file, with the sealing cell marked as run, is
what the run folder keeps.
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
    """The notebook that the papermill process `pid` is writing, or None if it is no papermill.

    Args:
        pid: Of the process that started the kernel.
        parameters: Of the notebook, for an output path that is a template of them.
    """
    path = output_path(pid, parameters)
    if path is None or not path.is_file():
        return None
    notebook = nbformat.read(path, as_version=4)
    text: str = nbformat.writes(finished(notebook))
    return text + "\n"


def output_path(pid: int, parameters: Mapping[str, Any]) -> Path | None:
    """Where the papermill process `pid` writes, by papermill's own reading of its command line."""
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
    """The notebook with its last code cell, the one that seals the run, marked as run."""
    done = copy.deepcopy(notebook)
    cells = [cell for cell in done.cells if cell.cell_type == "code"]
    cells[-1].execution_count = len(cells)
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None).isoformat()
    last = cells[-1].metadata.setdefault("papermill", {})
    last.update(status="completed", exception=False, end_time=now)
    whole = done.metadata.setdefault("papermill", {})
    whole.update(end_time=now, exception=False)
    for name in ("input_path", "output_path"):
        whole[name] = _relative(whole.get(name))
    return done


def _relative(path: str | None) -> str | None:
    """A path without the folders of this machine."""
    if path is None:
        return None
    if path.startswith(f"{ROOT}{os.sep}"):
        return path.removeprefix(f"{ROOT}{os.sep}")
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
