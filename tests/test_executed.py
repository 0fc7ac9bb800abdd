"""The executed notebook that a run keeps: what the kernel ran and sent, held against the commit."""

import base64
import shlex
from pathlib import Path

import nbformat
import pytest
import yaml
from papermill.cli import papermill as papermill_command

from psannlm import places
from psannlm.bench import provenance
from psannlm.config.parse import read_parameters
from psannlm.evidence import notebook
from psannlm.evidence.notebook import Recording, command, default_parameters, executed, is_complete
from tests.kernels import CELLS, GIVEN, Kernel, a_notebook, said, shown
from tests.repositories import committed
from tests.synthetic import executed_notebook

NAMES = list(CELLS)[:-1]
SOURCES = PARAMETERS, START, MEASURE, ANSWER, FINISH = [CELLS[name] for name in NAMES]
PAPERMILL = "# Parameters\nseed = 3\nbase = ['respsann']\n"
EDITED = GIVEN.replace("= []", '= ["respsann"]').replace("= 0", "= 3")


@pytest.fixture
def recorded(monkeypatch):
    """The executed notebook of cells run in a kernel, whose second begins the recording."""
    monkeypatch.setattr(notebook, "committed", lambda name: a_notebook())

    def run(*ran, messages=()):
        kernel = Kernel(*ran[:2])
        recording = Recording(kernel, "throughput")
        for source in ran[2:]:
            kernel.run(source, *(messages if source == "page.measure()" else ()))
        return executed(recording.committed, recording.cells)

    return run


def outputs(done, name="measure"):
    [cell] = [cell for cell in done.cells if cell.id == name]
    return [dict(output) for output in cell.outputs]


def test_it_is_the_commits_up_to_what_ran_last_from_papermill_or_with_edited_parameters(recorded):
    parameters, *others = SOURCES

    plain = recorded(*SOURCES)
    injected = recorded(parameters, PAPERMILL, *others)
    edited = recorded(EDITED + "\n", *others[:1], "", " \n", *others[1:])
    default = recorded(parameters, "# Parameters\nseed = 0\n", *others)

    assert injected == edited != plain == default
    assert [cell.id for cell in plain.cells] == [c.id for c in a_notebook().cells[: 2 * len(NAMES)]]
    assert plain.metadata == a_notebook().metadata
    assert [cell.id for cell in edited.cells][1:3] == ["parameters", "injected-parameters"]
    assert edited.cells[2].source == "# Parameters\nbase = ['respsann']\nseed = 3"
    counts = [cell.execution_count for cell in edited.cells if cell.cell_type == "code"]
    assert counts == [1, 2, 3, 4, 5, 6]
    assert is_complete(edited)
    nbformat.validate(edited)


def test_what_a_cell_sends_is_kept_as_front_ends_show_it(recorded):
    picture = b"\x89PNG"
    done = recorded(
        *SOURCES,
        messages=[
            said("\r  0%|"), said("\r 50%|#"), said("\r100%|##\n"), said("lone\r\n"),
            said("careful", "stderr"), shown(place="there", text_plain="old"),
            shown("update_display_data", place="there", text_plain="new"),
            shown(image_png=picture), said("after"),
            ("execute_result", {"data": {"text/plain": "1"}, "metadata": {}, "execution_count": 9}),
        ],
    )  # fmt: skip

    progress, careful, there, drawn, after, result = outputs(done)

    assert (progress["name"], progress["text"]) == ("stdout", "100%|##\nlone\r\n")
    assert (careful["name"], careful["text"]) == ("stderr", "careful")
    assert there["data"] == {"text/plain": "new"}
    assert drawn["data"]["image/png"].strip() == base64.b64encode(picture).decode()
    assert after["text"] == "after"
    assert result["execution_count"] == 3, "its cell's own count"


@pytest.mark.parametrize(
    ("wait", "after", "kept"), [(False, [], []), (True, [], ["old"]), (True, ["new"], ["new"])]
)
def test_what_a_cell_clears_is_gone_once_something_follows_if_it_was_to_wait(
    recorded, wait, after, kept
):
    messages = [said("old"), ("clear_output", {"wait": wait}), *map(said, after)]

    assert [o["text"] for o in outputs(recorded(*SOURCES, messages=messages))] == kept


def test_a_message_belongs_to_the_cell_that_caused_it_and_none_to_one_before_the_recording():
    kernel = Kernel(*SOURCES[:2])
    recording = Recording(kernel, "throughput")
    begun = kernel.display_pub.parent_header["msg_id"]
    kernel.run(SOURCES[2])
    kernel.send(*said("late"), parent=begun)
    kernel.send(*said("of another kernel"), parent="request-0")
    kernel.send("status", {"execution_state": "idle"})
    kernel.send("comm_msg", {"comm_id": "1", "data": {}})

    done = executed(a_notebook(), recording.cells)
    assert [o["text"] for o in outputs(done, "start")] == ["late"]
    assert outputs(done) == []


def test_an_error_or_a_cell_that_did_not_end_makes_no_complete_notebook(recorded):
    error = {"ename": "E", "evalue": "v", "traceback": []}
    killed = executed_notebook()
    killed.cells[-1].execution_count = None

    assert not is_complete(recorded(*SOURCES, messages=[("error", error)]))
    assert not is_complete(killed)


@pytest.mark.parametrize(
    ("ran", "said"),
    [
        (SOURCES, ""),
        ([PARAMETERS, START], ""),
        ([*SOURCES, "page.judge()"], ""),
        ([EDITED, START, MEASURE], ""),
        ([PARAMETERS, START, "page.records = []", MEASURE], "another cell ran: page.records = []"),
        ([PARAMETERS, START, MEASURE + "[:1]"], "another cell ran: page.measure()[:1]"),
        (
            [PARAMETERS, START, MEASURE + "[:1]", ANSWER],
            "cell measure was edited: - page.measure() + page.measure()[:1]",
        ),
        ([PARAMETERS, START, ANSWER], "cell measure did not run in its place"),
        ([PARAMETERS, START, MEASURE, MEASURE, ANSWER], "cell measure ran again or out of its"),
        ([PARAMETERS, START, ANSWER, MEASURE, FINISH], "out of its place"),
        ([START, MEASURE], "cell parameters did not run in its place"),
        (["import torch", *SOURCES], "another cell ran: import torch"),
        ([*SOURCES, *SOURCES], "cell parameters ran again or out of its place"),
        ([f"{GIVEN}\n# {'x ' * 500}\nf()", START], "cell parameters was edited: + # x x"),
        (["import os\n" + GIVEN, START], "cell parameters was edited: + import os"),
        ([GIVEN.replace("0", "1 + 1"), START], "cell parameters was edited: "),
        ([GIVEN.rpartition("\n")[0], START], "cell parameters was edited: - seed"),
        ([PARAMETERS, PAPERMILL + "seed += 1", START], "another cell ran: # Parameters seed"),
        ([PARAMETERS, PAPERMILL + "other = 1", START], "another cell ran: # Parameters seed"),
        ([PARAMETERS, START, PAPERMILL, MEASURE], "another cell ran: # Parameters seed"),
        ([*SOURCES[:-1], "page.finish()  # now"], "another cell ran: page.finish() # now"),
        ([PARAMETERS, "%matplotlib inline\n" + START, MEASURE], "start was edited: + %"),
    ],
)  # fmt: skip
def test_what_ran_otherwise_than_committed_is_said_cell_by_cell(ran, said):
    cells = [nbformat.v4.new_code_cell(source) for source in ran]

    edits = list(notebook.edits(a_notebook(), cells))

    assert said in "; ".join(edits)
    assert bool(said) == bool(edits)
    assert all(len(edit) < 250 for edit in edits)


def test_a_notebook_is_that_of_the_commit_and_where_none_has_it_the_file(tmp_path, monkeypatch):
    def save(text, start=START):
        one = a_notebook()
        one.cells[0].source, one.cells[3].source = text, start
        nbformat.write(one, tmp_path / "notebooks" / "page.ipynb")

    def text():
        return notebook.committed("page").cells[0].source

    monkeypatch.setattr(notebook, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(provenance.committed, "__defaults__", (tmp_path,))
    (tmp_path / "inner" / "notebooks").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    save("as it lies")
    assert text() == "as it lies"
    committed(tmp_path)
    save("edited")
    assert text() == "as it lies"
    assert notebook.uncommitted("page") == [], "text does not run"

    save("edited", start="page.records.clear()")

    [edit] = notebook.uncommitted("page")
    assert edit.startswith("cell start was edited: + page.records.clear() - page = session")
    monkeypatch.setattr(provenance.committed, "__defaults__", (tmp_path / "inner",))
    assert text() == "edited", "of another repository nothing is taken"


def given(arguments):
    """The parameters that papermill takes from its arguments."""
    words = papermill_command.make_context("papermill", ["in", "out", *arguments]).params
    values = default_parameters("throughput")
    for file in words["parameters_file"]:
        values |= read_parameters(Path(file))
    for text in words["parameters_yaml"]:
        values |= yaml.safe_load(text)
    return values | {n: yaml.safe_load(v.lower()) for n, v in words["parameters"]}


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "-f params/cpu/throughput.yaml -p n_repeats 12 -p base gelu",
        "-p compile False -y '{base: [respsann, waveresnet], learning_rate: 1.0e-05}'",
    ],
)
def test_the_command_of_a_run_gives_what_was_given_in_any_way(typed):
    parameters = given(shlex.split(typed))

    first, source, target, *arguments = shlex.split(command("throughput", parameters))

    assert (first, source, target) == ("papermill", "notebooks/throughput.ipynb", "out.ipynb")
    assert given(arguments) == parameters


@pytest.mark.parametrize(
    "folder", ["/elsewhere/private", "../elsewhere/private", "/private/größer, x"]
)
def test_the_command_of_a_run_names_no_folder_outside_the_project(folder, monkeypatch):
    monkeypatch.setenv(places.VARIABLE, "{}")
    places.published(f"{folder}/text.txt")
    outside, inside = (
        command("shootout", default_parameters("shootout") | {"corpus": f"{place}/text.txt"})
        for place in (folder, "datasets/lm")
    )

    assert yaml.safe_load(shlex.split(outside)[-1])["corpus"] == "text.txt"
    assert "private" not in outside
    assert "datasets/lm/text.txt" in inside
