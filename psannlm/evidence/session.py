"""What the cells of every notebook call: open a run, measure, show what it found, seal it.

A notebook defines nothing. Its parameters cell is read as it stands in notebooks/, so a name that
was given but the notebook does not have is seen, and refused before anything is written.
"""

import contextlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic

import nbformat
import torch
import yaml
from IPython.core.getipython import get_ipython
from IPython.display import HTML, Markdown, display
from tqdm import tqdm

from psannlm.bench import environment
from psannlm.bench.conditions import conditions, during
from psannlm.bench.provenance import describe_git, refuse_other_checkout, sources_sha256
from psannlm.bench.rates import asks_auto, resolve, stated
from psannlm.config.parse import parse
from psannlm.config.schema import ConfigError
from psannlm.device import select_device
from psannlm.evidence import notebook, text
from psannlm.evidence.figures import Figure
from psannlm.evidence.page import ConfigT, Page, RunInfo
from psannlm.evidence.runs import Evidence, Run, emulated_in, home, load
from psannlm.evidence.store import RecordT
from psannlm.files import write_atomically
from psannlm.places import as_published, remember

# By which the runner tells a notebook.
PROGRESS, RESUME, MIXED = "PSANNLM_PROGRESS", "PSANNLM_RESUME", "PSANNLM_MIXED"
PROGRESS_SECONDS = 0.2  # least time between two reports to the runner


class Session(Generic[ConfigT, RecordT]):
    """One execution of a notebook: its page, its configuration, its run folder, its device."""

    def __init__(
        self,
        page: Page[ConfigT, RecordT],
        config: ConfigT,
        run: Run,
        device: torch.device,
        recording: notebook.Recording | None = None,
    ) -> None:
        self.page, self.config, self.run, self.device = page, config, run, device
        self.recording = recording
        self.records = _records(page, run)
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
        """How to read the tables, and what of them was measured in an emulated precision."""
        manifest, reading = self.run.manifest, self.page.reading(self.tables, self.info)
        return Markdown("\n".join([reading, *text.emulated(manifest, emulated_in(manifest))]))

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
        progress = {"done": done, "total": total, "label": label, "unit": unit}
        write_atomically(Path(path), json.dumps(progress | {"run": str(self.run.folder)}))

    def finish(self) -> Markdown:
        """Put the executed notebook beside the data and seal the run; as edited, if it was."""
        assert self.recording is not None, "`start` makes the sessions that end"
        run, name = self.run, f"{self.run.folder.parent.name}/{self.run.folder.name}"
        if run.manifest["status"] != "running":
            return Markdown(f"Run `{name}` has ended before, as {run.manifest['status']}.")
        start, end = run.manifest["conditions"]["start"], conditions(self.device)
        around = {"start": start, "end": end, "during": during(start, end)}
        committed, ran = self.recording.committed, self.recording.cells
        if edited := list(notebook.edits(committed, ran)):
            run.seal("edited", "; ".join(edited), edited=edited, conditions=around)
            return edited_note(edited)
        executed = notebook.executed(committed, ran)
        run.write(f"{self.page.name}.ipynb", f"{nbformat.writes(executed)}\n")
        run.seal("complete", conditions=around)
        return Markdown(f"Run `{name}` is complete.")

    def judge(self) -> None:
        """End in an error if what the sealed run found is one."""
        self.page.judge(self.records)


def _records(page: Page[Any, RecordT], run: Run) -> list[RecordT]:
    """What a run has measured so far."""
    return page.store.read(run.artifacts, Evidence(run.folder, run.manifest).text)


def start(page: Page[ConfigT, RecordT]) -> Session[ConfigT, RecordT]:
    """Check the parameters of the notebook that calls this, then make its run folder."""
    shell = running_notebook(page.name)
    data = notebook.given_parameters(page.name, shell.user_ns)
    config = configuration(page, data, f"parameters of {page.name}.ipynb")
    device = select_device(data.get("device", "auto"))
    environment.use_usable_cores()
    folder = os.environ.get(RESUME) if asks_auto(config) else None  # which has decided what auto is
    precision = load(Path(folder)).manifest["parameters"]["precision"] if folder else None
    used = resolve(as_published(config), device, precision)
    recording = notebook.Recording(shell, page.name)
    command = notebook.command(page.name, data)
    run = _open_run(page, used, device, command=command, **stated(config, device))
    _note_edits(run, recording)
    shell.events.register("pre_run_cell", lambda info: _note_edits(run, recording))
    shell.events.register("post_run_cell", lambda result: _seal_failure(run, result))
    return Session(page, used, run, device, recording)


def edited_note(edited: Sequence[str]) -> Markdown:
    """What keeps a run from being published, for the reader of its notebook."""
    rule = (
        "Not published: other cells run than those of the committed notebook. The data stay. To "
        "publish, restart the kernel and run all cells as committed; parameters may be changed.\n"
    )
    return Markdown("\n- ".join([rule, *edited]))


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


def _open_run(page: Page[ConfigT, Any], config: ConfigT, device: torch.device, **facts: Any) -> Run:
    described = environment.describe_environment(device)
    parameters = json.loads(config.model_dump_json())
    now = {"git": describe_git(), "sources_sha256": sources_sha256(page.name)}
    now |= {"parameters": parameters, "environment": described}
    now |= {"conditions": {"start": conditions(device)}}
    if folder := os.environ.get(RESUME):
        mixed, keys = MIXED in os.environ, lambda run: [r.key for r in _records(page, run)]
        return Run.resume(Path(folder), now, mixed=mixed, keys=keys)
    manifest = {
        "notebook": page.name,
        "preset": parameters["preset"],
        **now,
        **facts,
        "seeds": parameters.get("seeds") or [parameters["seed"]],
        "corpus": None,
        "tokenizer": None,
    }
    parent = home(page.folder)
    run = Run.start(parent.name, manifest, reports=parent.parent, suffix=page.suffix)
    remember(run.folder.name)
    run.write("config_used.yaml", yaml.safe_dump(parameters, sort_keys=False))
    run.write("system.json", json.dumps(described, indent=2) + "\n")
    return run


def _note_edits(run: Run, recording: notebook.Recording) -> None:
    """Tell manifest and reader of an edit before its cell runs, so that no run goes on from it."""
    is_new = run.manifest["status"] == "running" and "edited" not in run.manifest
    if is_new and (edited := list(notebook.edits(recording.committed, recording.cells))):
        run.state(edited=edited)
        display(edited_note(edited))


def _seal_failure(run: Run, result: Any) -> None:
    """A cell that failed ends the run as failed, with its reason."""
    error = result.error_before_exec or result.error_in_exec
    if error is not None and run.manifest["status"] == "running":
        run.seal("failed", f"{type(error).__name__}: {error}")
