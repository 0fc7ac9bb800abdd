"""A notebook run from papermill in all its ways, nbconvert and JupyterLab: one and the same run."""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
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

WRAPPED = ["sh", "-c", f'"{sys.executable}" -m ipykernel_launcher -f "$1"; exit $?', "sh"]
"""Starts a kernel below a shell, as container images and batch systems do."""

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
"""A program that runs a notebook through papermill's Python interface into a store of objects."""


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


def with_parameters(*, added: str = "") -> nbformat.NotebookNode:
    """The notebook, its parameters cell edited, and a cell added behind the one that measures."""
    edited = nbformat.read(NOTEBOOK, as_version=4)
    [at] = [i for i, cell in enumerate(edited.cells) if cell.id == "parameters"]
    for name, value in GIVEN.items():
        pattern = rf"(?m)^({name}: \w+ =) .*?(?=  #|$)"
        edited.cells[at].source = re.sub(pattern, rf"\1 {value!r}", edited.cells[at].source)
    if added:
        [at] = [i for i, cell in enumerate(edited.cells) if cell.id == "check"]
        edited.cells.insert(at + 1, new_code_cell(added))
    return edited


@contextmanager
def started(folder: Path, *command: str, cwd: Path | None = None):
    """A process in a folder, told apart by what it writes into it."""
    folder.mkdir(exist_ok=True)
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            command, cwd=cwd or folder, stdout=out, stderr=errors, env=surroundings(folder)
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def ended(folder: Path, process: "subprocess.Popen[bytes]") -> Evidence:
    """The one run that a front end has left."""
    code = process.wait(PATIENCE)
    assert code == 0, (folder / "stderr").read_text()
    return left(folder)


def left(folder: Path) -> Evidence:
    [run] = (folder / "reports" / "gpu").iterdir()
    return load(run)


def kept(run: Evidence) -> nbformat.NotebookNode:
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
    given = folder / "given.ipynb"
    nbformat.write(with_parameters(), given)
    edited = folder / "edited.ipynb"
    nbformat.write(with_parameters(added="page.records = page.records[:1]"), edited)
    old = new_notebook(cells=[new_markdown_cell("An old run")])
    for place in (folder / "old.ipynb", folder / "elsewhere" / "old.ipynb"):
        place.parent.mkdir(exist_ok=True)
        nbformat.write(old, place)
    options = ["-k", "wrapped", "--no-request-save-on-cell-execute"]
    commands = {
        "shell": [*PAPERMILL, str(NOTEBOOK), "{pm[run_uuid]}.ipynb", *PARAMETERS, *options],
        "python": [sys.executable, "-c", SERVICE, str(NOTEBOOK), *sum(GIVEN.items(), ())],
        "stdout": [*PAPERMILL, str(NOTEBOOK), "-", *PARAMETERS],
        "cwd": [
            *PAPERMILL, str(NOTEBOOK), "../old.ipynb", *PARAMETERS, "--cwd", "../elsewhere",
        ],
        "nbconvert": [*NBCONVERT, str(given), "--output-dir", "."],
        "edited": [*NBCONVERT, str(edited), "--output-dir", "."],
    }  # fmt: skip
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(started(folder / name, *command))
            for name, command in commands.items()
        }
        return {
            name: (folder / name, ended(folder / name, process))
            for name, process in processes.items()
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shell", "python", "stdout", "cwd", "nbconvert"])
def test_every_front_end_makes_one_and_the_same_complete_run(runs, name):
    run = runs[name][1]
    notebook = kept(run)
    text = nbformat.writes(notebook)

    assert timeless(notebook) == timeless(kept(runs["shell"][1]))
    assert [cell.id for cell in notebook.cells][-1] == "finish"
    assert run.manifest["command"] == (
        "papermill notebooks/validation.ipynb out.ipynb -f params/smoke/validation.yaml "
        "-y '{base: transformer, only: GPU-08}'"
    )
    assert str(ROOT) not in text
    assert str(runs[name][0]) not in text
    assert "An old run" not in text


@pytest.mark.slow
def test_the_outputs_that_are_kept_are_those_that_papermill_saves(runs):
    folder, run = runs["stdout"]
    saved = nbformat.reads((folder / "stdout").read_text(), as_version=4)
    told = {cell.id: cell.get("outputs", []) for cell in saved.cells}

    for cell in kept(run).cells[:-1]:
        there = [o for o in told.get(cell.id, []) if o.output_type != "stream"]
        assert [o for o in cell.get("outputs", []) if o.output_type != "stream"] == there
    said = "".join(output.text for output in told["check"]).rpartition("\r")[2]
    assert [o.text for c in kept(run).cells if c.id == "check" for o in c.outputs] == [said]


@pytest.mark.slow
def test_an_edited_notebook_leaves_a_run_that_says_so_and_is_not_published(runs):
    folder, run = runs["edited"]

    assert run.manifest["status"] == "edited"
    assert run.manifest["reason"] == "another cell ran: page.records = page.records[:1]"
    assert {"measures.csv", "summary.json"} <= set(run.manifest["artifacts"])
    told = nbformat.read(folder / "edited.ipynb", as_version=4).cells[-2].outputs[0]
    assert "Not published" in told.data["text/markdown"]


def opened(folder: Path) -> str:
    """Where the notebook is found in the JupyterLab that is started in a folder."""
    files: list[Path] = []
    deadline = time.monotonic() + PATIENCE
    while not files and time.monotonic() < deadline:
        time.sleep(0.2)
        files = list(folder.glob("runtime/jpserver-*.json"))
    server = json.loads(files[0].read_text())
    return f"{server['url']}lab/tree/{NOTEBOOK.name}?token={server['token']}"


@pytest.mark.browser
@pytest.mark.slow
def test_run_all_in_jupyterlab_makes_the_same_run_with_its_parameters_cell_edited(tmp_path):
    lab, shell = tmp_path / "lab", tmp_path / "shell"
    lab.mkdir()
    (lab / NOTEBOOK.name).write_bytes(NOTEBOOK.read_bytes())
    serve = ["-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1", "--allow-root"]
    command = [*PAPERMILL, str(NOTEBOOK), "out.ipynb", *PARAMETERS]
    [parameters] = [cell for cell in with_parameters().cells if cell.id == "parameters"]
    with launched() as chromium, started(lab, sys.executable, *serve):
        page = chromium.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(opened(lab))
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Control+A")
        page.keyboard.insert_text(parameters.source)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        with started(shell, *command) as process:
            expected = kept(ended(shell, process))
        deadline = time.monotonic() + PATIENCE
        while left(lab).manifest["status"] == "running" and time.monotonic() < deadline:
            time.sleep(0.2)

    assert timeless(kept(left(lab))) == timeless(expected)
