"""The executed notebook that a run keeps is the one papermill wrote, without folders in it."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from psannlm import ROOT
from psannlm.evidence import session
from psannlm.evidence.session import finished, is_complete, output_path
from tests.synthetic import executed_notebook


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("in.ipynb", "out.ipynb"), "out.ipynb"),
        (("-p", "base", "respsann", "in.ipynb", "out.ipynb"), "out.ipynb"),
        (("in.ipynb", "out.ipynb", "-f", "x.yaml", "--log-output"), "out.ipynb"),
        (("in.ipynb", "{base}_{seed}.ipynb", "-p", "seed", "3"), "respsann_3.ipynb"),
        (("in.ipynb", "{pm[current_datetime_utc]}.ipynb"), None),
    ],
)
@pytest.mark.parametrize("called", [["/bin/papermill"], ["-m", "papermill"]])
def test_the_output_is_found_as_papermill_reads_its_command(
    monkeypatch, called, arguments, expected
):
    assert output_path(os.getpid(), {}) is None, "no papermill"
    words = ["/bin/python", *called, *arguments]
    process = SimpleNamespace(cmdline=lambda: words, cwd=lambda: "/folder")
    monkeypatch.setattr(session.psutil, "Process", lambda pid: process)

    found = output_path(1, {"base": "respsann", "seed": 3})

    assert found == (expected and Path("/folder", expected))


def with_cells_of_papermill(*statuses):
    """A notebook whose last cells are as papermill marks them; those that ran have an output."""
    notebook = executed_notebook()
    for status in statuses:
        cell = nbformat.v4.new_code_cell(status, metadata={"papermill": {"status": status}})
        if status == "completed":
            cell.execution_count = 3
            cell.outputs = [nbformat.v4.new_output("stream", text="kept")]
        notebook.cells.append(cell)
    return notebook


def test_the_sealing_cell_is_marked_as_run_and_a_cell_behind_it_left_out():
    notebook = with_cells_of_papermill("completed", "running", "pending")

    done = finished(notebook)

    assert not is_complete(notebook)
    assert is_complete(done)
    assert done.metadata["papermill"]["end_time"][:4] == time.strftime("%Y", time.gmtime())
    assert [cell.source for cell in done.cells[-2:]] == ["completed", "running"]
    assert done.cells[-2].outputs[0].text == "kept"
    assert done.cells[-1].execution_count == 4
    assert done.cells[-1].metadata["papermill"]["status"] == "completed"
    assert len(notebook.cells) == len(done.cells) + 1


def test_a_sealing_cell_before_a_cell_that_did_not_run_makes_nothing_complete():
    assert not is_complete(finished(with_cells_of_papermill("pending", "running")))


@pytest.mark.parametrize("path", [f"{ROOT}/_build/out.ipynb", "/elsewhere/out.ipynb"])
def test_no_folder_of_the_machine_is_kept(path):
    notebook = executed_notebook()
    notebook.metadata["papermill"] = {"output_path": path}

    kept = finished(notebook).metadata["papermill"]["output_path"]

    assert kept in {"_build/out.ipynb", "out.ipynb"}


def test_a_notebook_that_was_killed_or_holds_an_error_is_not_complete():
    killed, failed = executed_notebook(), executed_notebook()
    killed.cells[-1].execution_count = None
    killed.cells[-1].metadata["papermill"] = {"status": "completed", "exception": None}
    error = nbformat.v4.new_output("error", ename="E", evalue="v", traceback=[])
    failed.cells[-1].outputs.append(error)

    assert not is_complete(killed)
    assert not is_complete(failed)
