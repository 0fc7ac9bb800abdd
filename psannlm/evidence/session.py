"""What the cells of every notebook call: open a run, measure, show what it found, seal it.

A notebook defines nothing. Its parameters cell is read as it stands in notebooks/, so a name that
papermill injected but the notebook does not have is seen, and refused before anything is written.
"""

import ast
import contextlib
import copy
import datetime
import json
import math
import os
import re
import shlex
import sys
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Generic

import nbformat
import psutil
import torch
import yaml
from IPython.core.getipython import get_ipython
from IPython.display import HTML, Markdown
from papermill.cli import papermill as papermill_command
from papermill.exceptions import PapermillMissingParameterException
from papermill.parameterize import parameterize_path
from tqdm import tqdm

from psannlm import ROOT
from psannlm.bench import environment
from psannlm.bench.conditions import conditions, during
from psannlm.bench.provenance import describe_git, refuse_other_checkout
from psannlm.bench.rates import asks_auto, resolve, stated
from psannlm.config.parse import parse
from psannlm.config.schema import ConfigError, Strict
from psannlm.device import select_device
from psannlm.evidence import text
from psannlm.evidence.figures import Figure
from psannlm.evidence.page import ConfigT, Page, RunInfo
from psannlm.evidence.runs import Evidence, Run, home, load
from psannlm.evidence.store import RecordT
from psannlm.files import write_atomically

NOTEBOOKS = ROOT / "notebooks"
PROGRESS, RESUME = "PSANNLM_PROGRESS", "PSANNLM_RESUME"  # by which the runner tells a notebook
PROGRESS_SECONDS = 0.2  # least time between two reports to the runner


class Session(Generic[ConfigT, RecordT]):
    """One execution of a notebook: its page, its configuration, its run folder, its device."""

    def __init__(
        self, page: Page[ConfigT, RecordT], config: ConfigT, run: Run, device: torch.device
    ) -> None:
        self.page, self.config, self.run, self.device = page, config, run, device
        self.records = page.store.read(run.artifacts, Evidence(run.folder, run.manifest).text)
        self.tables: Mapping[str, Any] = {}
        self._figures: Mapping[str, Figure] = {}
        self._written: dict[str, str] = {}
        self._last_report = -math.inf

    @property
    def info(self) -> RunInfo[ConfigT]:
        """The run, as tables and sentences need it."""
        return RunInfo(self.config, self.run.manifest, self.records)

    @property
    def done(self) -> set[Any]:
        """Keys of the records that the run holds."""
        return {record.key for record in self.records}

    def machine(self) -> HTML:
        """What was measured on, for the reader of the page."""
        return HTML(text.machine(self.run.manifest))

    def measure(self) -> None:
        """Measure behind a progress bar, save every record as it comes, then make the tables."""
        store, total = self.page.store, self.page.total(self.config)
        batches = self.page.measure(self)
        with contextlib.ExitStack() as stack:
            if isinstance(batches, Generator):  # what it has begun ends with it
                stack.callback(batches.close)
            bar = tqdm(batches, total=total, unit=store.unit, file=sys.stdout, ncols=88)
            for batch in stack.enter_context(bar):
                self.records += batch
                self.save()
                label = store.label(batch[0])
                bar.set_postfix_str(label, refresh=False)
                done = len(self.done) if total is None else bar.n + 1
                self.report_progress(done, total or done, label, unit=store.unit)
        self.tabulate()

    def save(self) -> None:
        """Write the files that hold the records, those that changed."""
        made = self.page.texts(self.records, self.info)
        self.write({name: made[name] for name in made if self._written.get(name) != made[name]})
        self._written |= made

    def tabulate(self) -> None:
        """Compute the tables from the records, and write all files that follow from them."""
        self.tables = self.page.tabulate(self.records, self.info)
        self.write(self.page.files(self.tables, self.info))

    def answer(self) -> Markdown:
        """What the run found."""
        return Markdown(self.page.answer(self.tables, self.info))

    def reading(self) -> Markdown:
        """How to read the tables."""
        return Markdown(self.page.reading(self.tables, self.info))

    def section(self, name: str) -> HTML | Markdown:
        """A further piece of the page."""
        content = self.page.section(name, self.tables, self.info)
        return HTML(content) if content.startswith("<") else Markdown(content)

    def table(self, file: str, *columns: str) -> HTML:
        """A table of the page, as people read it."""
        [table] = [t for t in (*self.page.tables, *self.page.shown) if t.file == file]
        return HTML(table.html(self.tables[file], columns))

    def show(self, name: str, *, pixels: bool = False) -> Figure:
        """Save a figure of the page with the run, an SVG a panel, and return it for display.

        With `pixels`, all panels are saved as `name`.png too.
        """
        self._figures = self._figures or self.page.figures(self.tables, self.info)
        figure = self._figures[name]
        for panel, svg in figure.panels.items():
            self.run.write(f"{name}_{re.sub(r'[^a-z0-9]+', '_', panel)}.svg", svg)
        if pixels:
            self.run.write(f"{name}.png", figure.png)
        return figure

    def write(self, files: Mapping[str, str | bytes]) -> None:
        """Save files with the run."""
        for name, content in files.items():
            self.run.write(name, content)

    def report_progress(self, done: int, total: int, label: str, *, unit: str = "step") -> None:
        """Tell the runner, if one listens, how many of all units are done, and what is being done.

        A few times a second at most, but the last of all units is always told.
        """
        now = time.monotonic()
        path = os.environ.get(PROGRESS)
        if path is None or (now - self._last_report < PROGRESS_SECONDS and done < total):
            return
        self._last_report = now
        told = {"done": done, "total": total, "label": label, "unit": unit}
        write_atomically(Path(path), json.dumps(told | {"run": str(self.run.folder)}))

    def finish(self) -> Markdown:
        """Put the executed notebook beside the data and seal the run.

        Outside papermill there is no executed notebook: the data stay, the run says so, and it is
        not published.
        """
        run, folder = self.run, self.run.folder
        begun, end = run.manifest["conditions"]["start"], conditions(self.device)
        found = {"start": begun, "end": end, "during": during(begun, end)}
        notebook = snapshot(os.getppid(), run.manifest["parameters"])
        if notebook is None:
            run.seal("interactive", "not run by papermill", conditions=found)
            return Markdown(
                f"The data are in `{folder.name}`. The run was not made by papermill, so "
                "it holds no executed notebook and the book leaves it out."
            )
        run.write(f"{self.page.name}.ipynb", notebook)
        run.seal("complete", conditions=found)
        return Markdown(f"Run `{folder.parent.name}/{folder.name}` is complete.")

    def judge(self) -> None:
        """End in an error if what the sealed run found is one."""
        self.page.judge(self.records)


def start(page: Page[ConfigT, RecordT]) -> Session[ConfigT, RecordT]:
    """Check the parameters of the notebook that calls this, then make its run folder."""
    shell = running_notebook(page.name)
    data = given_parameters(page.name, shell.user_ns)
    config = configuration(page, data, f"parameters of {page.name}.ipynb")
    device = select_device(data.get("device", "auto"))
    environment.use_usable_cores()
    used = resolve(config, device, _held(config))
    run = _open_run(page, used, device, **stated(config, device))
    shell.events.register("post_run_cell", lambda result: _seal_failure(run, result))
    return Session(page, used, run, device)


def running_notebook(name: str) -> Any:
    """The IPython shell of the notebook that calls this; ConfigError if none does."""
    if shell := get_ipython():
        refuse_other_checkout()
        return shell
    raise ConfigError(
        f"notebooks/{name}.ipynb must be run as a notebook, with papermill or in Jupyter"
    )


def configuration(page: Page[ConfigT, Any], data: Mapping[str, Any], source: str) -> ConfigT:
    """What the parameters of a notebook ask for; every base where none is named.

    A ConfigError lists all that are unknown, of the wrong type, or impossible, below the `source`.
    """
    config = parse(page.config, data, source=source, bases=page.names())
    try:
        page.check_config(config)
    except ConfigError as error:
        raise ConfigError(f"{source}:\n  {error}") from None
    if not getattr(config, "base", True):
        return config.model_copy(update={"base": tuple(page.names())})
    return config


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
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            found[ast.unparse(target)] = _literal(node.value)
    return found


def _literal(node: ast.expr) -> Any:
    with contextlib.suppress(ValueError):
        return ast.literal_eval(node)
    return ast.unparse(node)  # papermill writes float('nan'), which the configuration refuses


def _held(config: Strict) -> Any:
    """The precision that a run which goes on has used so far, if it was left to the device."""
    folder = os.environ.get(RESUME) if asks_auto(config) else None
    return load(Path(folder)).manifest["parameters"]["precision"] if folder else None


def _open_run(page: Page[ConfigT, Any], config: ConfigT, device: torch.device, **facts: Any) -> Run:
    described = environment.describe_environment(device)
    parameters = json.loads(config.model_dump_json())
    git = describe_git()
    now = {"git": git, "parameters": parameters, "environment": described}
    if folder := os.environ.get(RESUME):
        return Run.resume(Path(folder), now)
    manifest = {
        "notebook": page.name,
        "preset": parameters["preset"],
        "command": command_line(os.getppid()),
        **now,
        "conditions": {"start": conditions(device)},
        **facts,
        "seeds": parameters.get("seeds") or [parameters["seed"]],
        "corpus": None,
        "tokenizer": None,
    }
    parent = home(page.folder)
    run = Run.start(parent.name, manifest, reports=parent.parent, suffix=page.suffix)
    run.write("config_used.yaml", yaml.safe_dump(parameters, sort_keys=False))
    run.write("system.json", json.dumps(described, indent=2) + "\n")
    return run


def command_line(pid: int) -> str:
    """What was typed to start process `pid`, without the folders of this machine."""
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return "unknown"
    words = [relative(word) for word in words]
    # An installed script is run by its interpreter.
    if [Path(word).name for word in words[1:2]] == ["papermill"]:
        words = words[1:]
    return shlex.join([Path(words[0]).name, *words[1:]])


def _seal_failure(run: Run, result: Any) -> None:
    """A cell that failed ends the run as failed, with its reason."""
    error = result.error_before_exec or result.error_in_exec
    if error is not None and run.manifest["status"] == "running":
        run.seal("failed", f"{type(error).__name__}: {error}")


def snapshot(pid: int, parameters: Mapping[str, Any]) -> str | None:
    """The notebook that the process `pid` is writing, or None if it is no papermill.

    papermill writes its output file at every cell's start, so when the sealing cell begins, the
    file holds every cell before it with its outputs. That file up to the sealing cell, marked as
    run, is what the run folder keeps: a cell behind it, such as one that ends in an error because a
    check has failed, has not run yet, and says nothing that the cells before do not.
    """
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
