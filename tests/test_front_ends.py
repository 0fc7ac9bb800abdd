"""A notebook run from papermill in all its ways, nbconvert and JupyterLab: one and the same run."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from psannlm import ROOT
from psannlm.evidence.runs import Evidence, load
from psannlm.run.check import check
from tests.browsing import launched

NOTEBOOK = ROOT / "notebooks" / "validation.ipynb"
GIVEN = {"base": "transformer", "only": "GPU-08"}
PARAMETERS = [word for name, value in GIVEN.items() for word in ("-p", name, value)]
PAPERMILL = [sys.executable, "-m", "papermill", "--no-progress-bar"]
NBCONVERT = [sys.executable, "-m", "nbconvert", "--execute", "--to", "notebook"]
PATIENCE = 240  # seconds

# Starts a kernel below a shell, as container images and batch systems do.
WRAPPED = ["sh", "-c", f'"{sys.executable}" -m ipykernel_launcher -f "$1"; exit $?', "sh"]

# Runs a notebook through papermill's Python interface into a store of objects.
SERVICE = """
import sys

import papermill
from papermill.iorw import papermill_io

class Bucket:
    def write(self, text, path):
        print(path, len(text))

    def pretty_path(self, path):
        return path

papermill_io.register("s3://", Bucket())
given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
papermill.execute_notebook(sys.argv[1], "s3://runs/{base}.ipynb", given, progress_bar=False)
"""


def surroundings(folder: Path) -> dict[str, str]:
    """Variables of a front end whose files, runs and kernels are its own."""
    kernel = folder / "jupyter" / "kernels" / "wrapped" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = [*WRAPPED, "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "", "language": "python"}))
    changed = {"PSANNLM_REPORTS": "reports", "JUPYTER_PATH": "jupyter"}
    changed |= {f"JUPYTER_{name}_DIR": name.lower() for name in ("RUNTIME", "CONFIG", "DATA")}
    own = {name: str(folder / path) for name, path in changed.items()}
    return os.environ | own | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def with_parameters(folder: Path, *, added: str = "") -> Path:
    """The notebook, its parameters cell edited, and a cell added behind the one that measures."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    at = {cell.id: i for i, cell in enumerate(notebook.cells)}
    for name, value in GIVEN.items():
        pattern, cell = rf"(?m)^({name}: \w+ =) .*?(?=  #|$)", notebook.cells[at["parameters"]]
        cell.source = re.sub(pattern, rf"\1 {value!r}", cell.source)
    if added:
        notebook.cells.insert(at["check"] + 1, new_code_cell(added))
    path = folder / ("edited.ipynb" if added else "given.ipynb")
    nbformat.write(notebook, path)
    return path


@contextmanager
def started(folder: Path, *command: str):
    """A process in a folder, told apart by what it writes into it."""
    folder.mkdir(exist_ok=True)
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=errors, env=surroundings(folder)
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def run_of(folder: Path) -> Evidence:
    """The one run that a front end has left."""
    [run] = (folder / "reports" / "gpu").iterdir()
    return load(run)


def ended(folder: Path, *command: str) -> Evidence:
    """The run of a front end that has come to its end."""
    with started(folder, *command) as process:
        assert process.wait(PATIENCE) == 0, (folder / "stderr").read_text()
    return run_of(folder)


def executed(run: Evidence) -> nbformat.NotebookNode:
    """The executed notebook of a run that is complete and sound."""
    check(run)
    assert run.is_complete, run.manifest["reason"]
    return nbformat.reads(run.text(NOTEBOOK.name), as_version=4)


def timeless(notebook: nbformat.NotebookNode) -> str:
    """A notebook without the numbers of its outputs: nearly all are times, or rates."""
    for cell in notebook.cells:
        outputs = json.dumps(cell.get("outputs", []))
        text = re.sub(r"\d+(?:[.,:]\d+)*", "#", outputs)
        cell["outputs"] = re.sub(r"[kMGT]?FLOP/s|█+ *|[▏▎▍▌▋▊▉]", "", text)
    return json.dumps(notebook, indent=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, tuple[Path, Evidence]]:
    """The run that each front end has made, beside its folder; all at the same time."""
    folder = tmp_path_factory.mktemp("front-ends")
    given, edited = (with_parameters(folder, added=a) for a in ("", "page.records.pop()"))
    for place in (folder / "old.ipynb", folder / "elsewhere" / "old.ipynb"):
        place.parent.mkdir(exist_ok=True)
        nbformat.write(new_notebook(cells=[new_markdown_cell("An old run")]), place)
    papermill = [*PAPERMILL, str(NOTEBOOK), *PARAMETERS]
    options = ["-k", "wrapped", "--no-request-save-on-cell-execute"]
    commands = {
        "shell": [*papermill, "{pm[run_uuid]}.ipynb", *options],
        "python": [sys.executable, "-c", SERVICE, str(NOTEBOOK), *sum(GIVEN.items(), ())],
        "stdout": [*papermill, "-"],
        "cwd": [*papermill, "../old.ipynb", "--cwd", "../elsewhere"],
        "nbconvert": [*NBCONVERT, str(given), "--output-dir", "."],
        "edited": [*NBCONVERT, str(edited), "--output-dir", "."],
    }
    with ThreadPoolExecutor(len(commands)) as pool:
        waiting = {n: pool.submit(ended, folder / n, *words) for n, words in commands.items()}
        return {name: (folder / name, run.result()) for name, run in waiting.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shell", "python", "stdout", "cwd", "nbconvert"])
def test_every_front_end_makes_one_and_the_same_complete_run(runs, name):
    folder, run = runs[name]
    notebook = executed(run)
    text = nbformat.writes(notebook)

    assert timeless(notebook) == timeless(executed(runs["shell"][1]))
    assert [cell.id for cell in notebook.cells][-1] == "finish"
    assert run.manifest["command"] == (
        "papermill notebooks/validation.ipynb out.ipynb -f params/smoke/validation.yaml "
        "-y '{base: transformer, only: GPU-08}'"
    )
    assert str(ROOT) not in text
    assert str(folder) not in text
    assert "An old run" not in text


@pytest.mark.slow
def test_the_outputs_that_are_kept_are_those_that_papermill_saves(runs):
    folder, run = runs["stdout"]
    saved = nbformat.reads((folder / "stdout").read_text(), as_version=4)
    shown = {cell.id: cell.get("outputs", []) for cell in saved.cells}
    kept = {cell.id: cell.get("outputs", []) for cell in executed(run).cells[:-1]}
    [progress] = [o.text for o in kept.pop("check") if o.output_type == "stream"]

    assert {name: shown.get(name, []) for name in kept} == kept
    assert "".join(o.text for o in shown["check"]).rpartition("\r")[2] == progress


@pytest.mark.slow
def test_an_edited_notebook_leaves_a_run_that_says_so_and_is_not_published(runs):
    folder, run = runs["edited"]

    assert run.manifest["status"] == "edited"
    assert run.manifest["reason"] == "another cell ran: page.records.pop()"
    assert {"measures.csv", "summary.json"} <= set(run.manifest["artifacts"])
    note = nbformat.read(folder / "edited.ipynb", as_version=4).cells[-2].outputs[0]
    assert "Not published" in note.data["text/markdown"]


def until(reached: Callable[[], object]) -> None:
    """Wait for something, but not for ever."""
    deadline = time.monotonic() + PATIENCE
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.2)


@pytest.mark.browser
@pytest.mark.slow
def test_run_all_in_jupyterlab_makes_the_same_run_with_its_parameters_cell_edited(tmp_path):
    lab = tmp_path / "lab"
    lab.mkdir()
    (lab / NOTEBOOK.name).write_bytes(NOTEBOOK.read_bytes())
    serve = ["-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1", "--allow-root"]
    cells = nbformat.read(with_parameters(tmp_path), as_version=4).cells
    [parameters] = [cell for cell in cells if cell.id == "parameters"]
    with launched() as chromium, started(lab, sys.executable, *serve):
        until(lambda: list(lab.glob("runtime/jpserver-*.json")))
        server = json.loads(next(lab.glob("runtime/jpserver-*.json")).read_text())
        page = chromium.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(f"{server['url']}lab/tree/{NOTEBOOK.name}?token={server['token']}")
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Control+A")
        page.keyboard.insert_text(parameters.source)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        command = [*PAPERMILL, str(NOTEBOOK), "out.ipynb", *PARAMETERS]
        expected = executed(ended(tmp_path / "shell", *command))
        until(lambda: run_of(lab).manifest["status"] != "running")

    assert timeless(executed(run_of(lab))) == timeless(expected)
