"""What the cells of every notebook call: open a run, show what it found, seal it.

A notebook defines nothing. Its parameters cell is read as it stands in notebooks/, so a name that
papermill injected but the notebook does not have is seen, and refused before anything is written.
"""

import ast
import json
import math
import os
import re
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import psutil
import torch
import yaml
from IPython.core.getipython import get_ipython
from IPython.display import HTML, Markdown

from psannlm import ROOT
from psannlm.bench import environment
from psannlm.config.parse import parse
from psannlm.config.schema import ConfigError, Strict
from psannlm.device import select_device
from psannlm.evidence import executed, places
from psannlm.evidence import text as views
from psannlm.evidence.figures import Figure
from psannlm.evidence.runs import Run
from psannlm.files import write_atomically
from psannlm.model.bases import BASES
from psannlm.pages.registry import CONFIGS
from psannlm.pages.shootout.arms import all_arms, arms_of
from psannlm.pages.shootout.config import ShootoutConfig

NOTEBOOKS = ROOT / "notebooks"
PROGRESS, RESUME = "PSANNLM_PROGRESS", "PSANNLM_RESUME"
"""Environment variables through which the runner speaks to a notebook."""

TELL_SECONDS = 0.2
"""Least time between two words to the runner."""


class Page:
    """One execution of a notebook: its configuration, its run folder, its device."""

    def __init__(self, name: str, config: Strict, run: Run, device: torch.device) -> None:
        self.name, self.config, self.run, self.device = name, config, run, device
        self._last_told = -math.inf

    @property
    def device_name(self) -> str:
        """The measured device, by name."""
        return environment.device_name(self.device)

    def report_progress(self, done: int, total: int, label: str, *, unit: str = "step") -> None:
        """Tell the runner, if one listens, how far the run is; a few times a second at most.

        Args:
            done: Units that are done; the last one is always told.
            total: Units of the whole run.
            label: What is being done.
            unit: What is counted, in one word.
        """
        now = time.monotonic()
        path = os.environ.get(PROGRESS)
        if path is None or (now - self._last_told < TELL_SECONDS and done < total):
            return
        self._last_told = now
        told = {"done": done, "total": total, "label": label, "unit": unit}
        write_atomically(Path(path), json.dumps(told | {"run": str(self.run.folder)}))

    def show(self, name: str, figure: Figure, *, pixels: bool = False) -> Figure:
        """Save a figure's panels with the run, and return it for display.

        Args:
            name: What its files are called; the panel's name follows.
            figure: To show.
            pixels: Whether all panels are saved as `name`.png too.
        """
        for panel, svg in figure.panels.items():
            self.run.write(f"{name}_{re.sub(r'[^a-z0-9]+', '_', panel)}.svg", svg)
        if pixels:
            self.run.write(f"{name}.png", figure.png)
        return figure

    def write(self, files: Mapping[str, str | bytes]) -> None:
        """Save the files that state the result."""
        for name, content in files.items():
            self.run.write(name, content)

    def machine(self) -> HTML:
        """What was measured on, for the reader of the page."""
        return HTML(views.machine(self.run.manifest))

    def finish(self) -> Markdown:
        """Put the executed notebook beside the data and seal the run.

        Outside papermill there is no executed notebook to keep: the data stay, the run says so,
        and it is not published.
        """
        conditions = self.run.manifest["conditions"] | {"end": environment.conditions(self.device)}
        notebook = executed.snapshot(os.getppid(), self.run.manifest["parameters"])
        if notebook is None:
            self.run.seal("interactive", "not run by papermill", conditions=conditions)
            return Markdown(
                f"The data are in `{self.run.folder.name}`. The run was not made by papermill, so "
                "it holds no executed notebook and the book leaves it out."
            )
        self.run.write(f"{self.name}.ipynb", notebook)
        self.run.seal("complete", conditions=conditions)
        return Markdown(f"Run `{self.run.folder.parent.name}/{self.run.folder.name}` is complete.")


def start(name: str) -> Page:
    """Check the parameters of the notebook that calls this, then make its run folder.

    Raises:
        ConfigError: A parameter is unknown, of the wrong type, or impossible; all are listed.
    """
    shell = get_ipython()
    if shell is None:
        raise ConfigError(
            f"notebooks/{name}.ipynb must be run as a notebook, with papermill or in Jupyter"
        )
    data = given_parameters(name, shell.user_ns)
    config = configuration(name, data, f"parameters of {name}.ipynb")
    device = select_device(data.get("device", "auto"))
    run = _open_run(name, config, device)
    shell.events.register("post_run_cell", lambda result: _seal_failure(run, result))
    return Page(name, config, run, device)


def configuration(name: str, data: Mapping[str, Any], source: str) -> Strict:
    """What a notebook is asked to do.

    Args:
        name: Of the notebook.
        data: Its parameters.
        source: Where they came from; opens the message.

    Returns:
        With every base where none is named; a shootout keeps that it was asked for all arms.

    Raises:
        ConfigError: A parameter is unknown, of the wrong type, or impossible; all are listed.
    """
    config = parse(CONFIGS[name], data, source=source, bases=names_of(name))
    if isinstance(config, ShootoutConfig):
        try:
            arms_of(config)
        except ConfigError as error:
            raise ConfigError(f"{source}:\n  {error}") from None
        return config
    named: tuple[str, ...] = getattr(config, "base", ())
    return config if named else config.model_copy(update={"base": names_of(name)})


def names_of(notebook: str) -> tuple[str, ...]:
    """What the parameters `base` and `baseline` of a notebook may name."""
    return tuple(all_arms()) if notebook == "shootout" else tuple(BASES)


def given_parameters(name: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all names that the notebook declares, and those injected that it does not."""
    declared = list(default_parameters(name))
    injected = [source for source in namespace.get("In", []) if source.startswith("# Parameters")]
    names = declared + [n for n in assigned(injected[-1] if injected else "") if n not in declared]
    return {n: namespace[n] for n in names if n in namespace}


def default_parameters(name: str) -> dict[str, Any]:
    """Names and values of the parameters cell of a notebook, as committed."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    [cell] = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    return assigned(cell.source)


def assigned(source: str) -> dict[str, Any]:
    """Names that the lines of a parameters cell assign, with their literal values."""
    found: dict[str, Any] = {}
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and value is not None:
                found[target.id] = _literal(value)
    return found


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:  # papermill writes float('nan'), which the configuration refuses anyway
        return ast.unparse(node)


def _open_run(name: str, config: Strict, device: torch.device) -> Run:
    described = environment.describe_environment(device)
    parameters = json.loads(config.model_dump_json())
    if folder := os.environ.get(RESUME):
        now = {"parameters": parameters, "environment": described}
        return Run.resume(Path(folder), now | {"git": environment.describe_git()._asdict()})
    manifest = {
        "notebook": name,
        "preset": parameters["preset"],
        "command": command_line(os.getppid()),
        "git": environment.describe_git()._asdict(),
        "parameters": parameters,
        "environment": described,
        "conditions": {"start": environment.conditions(device)},
        "seeds": parameters.get("seeds") or [parameters["seed"]],
        "corpus": None,
        "tokenizer": None,
    }
    home = places.home(name)
    suffix = places.SUFFIXES.get(name, "")
    run = Run.start(home.name, manifest, reports=home.parent, suffix=suffix)
    run.write("config_used.yaml", yaml.safe_dump(parameters, sort_keys=False))
    run.write("system.json", json.dumps(described, indent=2) + "\n")
    return run


def command_line(pid: int) -> str:
    """What was typed to start process `pid`, without the folders of this machine."""
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return "unknown"
    words = [word.removeprefix(f"{ROOT}{os.sep}") for word in words]
    words = [Path(word).name if Path(word).is_absolute() else word for word in words]
    # An installed script is run by its interpreter.
    if [Path(word).name for word in words[1:2]] == ["papermill"]:
        words = words[1:]
    return shlex.join([Path(words[0]).name, *words[1:]])


def _seal_failure(run: Run, result: Any) -> None:
    """A cell that failed ends the run as failed, with its reason."""
    error = result.error_before_exec or result.error_in_exec
    if error is not None and run.manifest["status"] == "running":
        run.seal("failed", f"{type(error).__name__}: {error}")
