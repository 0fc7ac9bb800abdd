"""What a notebook's cells call, without a notebook."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from psannlm import REPORTS
from psannlm.config.schema import ConfigError
from psannlm.evidence import figures
from psannlm.evidence import notebook as executed
from psannlm.evidence import session as notebook
from psannlm.evidence.notebook import assigned, default_parameters, given_parameters
from psannlm.evidence.runs import EvidenceError, Run, home, load, pinned
from psannlm.evidence.session import Session
from psannlm.files import unlock
from psannlm.model.bases import BASES
from psannlm.pages.registry import pages
from psannlm.pages.throughput.page import PAGE
from tests.kernels import CELLS, Kernel, a_notebook
from tests.synthetic import record, start_manifest, throughput_config, throughput_records


def test_assignments_are_read_with_and_without_annotation_and_no_literal_is_kept_as_text():
    source = 'a: int = 1  # one\nb = ["x", 2]\nc: float = -0.5\nprint(a)\nd = float("nan")'

    read = assigned(source)

    assert read == {"a": 1, "b": ["x", 2], "c": -0.5, "d": "float('nan')"}


@pytest.mark.parametrize(
    "cell",
    [
        "# Parameters\nbase = 'respsann'\nsetps = 3\n",
        "# Parameters\nsetps = 3",
        "base = 'respsann'  # edited\nsetps = 3",
    ],
)
def test_names_that_the_notebook_lacks_are_parameters_if_they_are_given_with_others(cell):
    declared = default_parameters("throughput")
    cells = [
        "",
        "scratch = 1",
        "base = 'x'; stpes = 3",
        cell,
        "%who",
        "get_ipython().run_line_magic('who', '')",
    ]
    others = {"scratch": 1, "stpes": 3, "In": cells}  # of these, one was given and then corrected

    given = given_parameters("throughput", declared | {"setps": 3, "base": "respsann"} | others)

    assert given == declared | {"setps": 3, "base": "respsann"}


def test_a_configuration_is_refused_with_its_source_and_an_open_base_means_all():
    data = throughput_config().model_dump(mode="json")

    with pytest.raises(ConfigError, match="base: unknown base 'respsan', did you mean 'respsann'"):
        notebook.configuration(PAGE, data | {"base": ["respsan"]}, "here")
    assert notebook.configuration(PAGE, data | {"base": []}, "here").base == tuple(BASES)


def test_a_run_opens_in_the_folder_of_its_page_and_states_what_was_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_OUT", str(tmp_path / "benchmarks"))
    monkeypatch.setattr(notebook.environment, "describe_environment", lambda device: {})
    monkeypatch.setattr(notebook, "conditions", lambda device: {})
    monkeypatch.setattr(PAGE, "suffix", "_x", raising=False)

    facts = {"command": "papermill"}
    run = notebook._open_run(PAGE, throughput_config(), torch.device("cpu"), **facts)

    assert re.fullmatch(r"\d{8}_\d{6}_x", run.folder.name)
    assert run.manifest["run"] == run.folder.name
    assert run.manifest["seeds"] == [0]
    assert run.manifest["command"] == "papermill"
    assert run.artifacts == {"config_used.yaml", "system.json"}


@pytest.mark.parametrize(
    ("kind", "usual", "named"),
    [
        ("gpu", REPORTS / "gpu", Path("/elsewhere/a")),
        ("benchmarks", REPORTS / "benchmarks", Path("b")),
    ],
)
def test_the_environment_moves_the_runs_of_a_kind(kind, usual, named):
    elsewhere = {"OUT_DIR": "/elsewhere/a", "BENCH_OUT": "b"}

    assert home(kind, {}) == home(kind, {"OUT_DIR": "", "BENCH_OUT": ""}) == usual
    assert home(kind, elsewhere) == named
    assert pinned(elsewhere) == {"OUT_DIR": "/elsewhere/a", "BENCH_OUT": str(Path.cwd() / "b")}


@pytest.mark.parametrize("name", pages())
def test_a_notebook_declares_its_parameters(name):
    declared = set(default_parameters(name))

    assert {"preset", "device"} <= declared
    assert {"seed", "seeds"} & declared


@pytest.fixture
def page(tmp_path):
    """A session of a run that has measured nothing yet."""
    config = throughput_config()
    run = Run.start("benchmarks", start_manifest("throughput", config), reports=tmp_path)
    return Session(PAGE, config, run, torch.device("cpu"))


def test_each_batch_is_saved_before_the_next_is_measured_and_tables_follow(page, monkeypatch):
    found = throughput_records(page.config, {"respsann": 900.0, "transformer": 1000.0})

    def measure(session):
        for one in found:
            yield [one]
            held = Session(PAGE, page.config, page.run, page.device)
            assert held.records[-1] == one
            assert one.key in held.done

    monkeypatch.setattr(PAGE, "measure", measure, raising=False)

    page.measure()

    assert {"cells.csv", "samples.csv", "throughput.csv", "README.md"} <= page.run.artifacts
    assert "slower" in page.table("throughput.csv").data
    assert "that speed" in page.answer().data
    assert page.reading().data.startswith("- **Noise.**")


def test_a_run_without_all_files_of_its_records_has_measured_nothing(page):
    page.records = [record()]
    page.save()
    page.run.artifacts.discard("samples.csv")

    assert Session(PAGE, page.config, page.run, page.device).records == []


@pytest.fixture
def kernel(page, monkeypatch):
    """A kernel in whose second cell the session began."""
    monkeypatch.setattr(executed, "committed", lambda name: a_notebook())
    kernel = Kernel(*list(CELLS.values())[:2])
    page.recording = executed.Recording(kernel, "throughput")
    return kernel


def test_what_ran_as_committed_is_sealed_with_its_notebook_and_not_sealed_again(page, kernel):
    for name in ("measure", "answer", "finish"):
        kernel.run(CELLS[name])

    assert "is complete" in page.finish().data
    sealed = dict(page.run.manifest)
    assert sealed["status"] == "complete"
    assert "throughput.ipynb" in sealed["artifacts"]
    kernel.run(CELLS["finish"])
    assert "has ended before, as complete" in page.finish().data
    assert page.run.manifest == sealed


def test_a_run_whose_cells_were_edited_keeps_its_data_and_is_not_complete(page, kernel):
    page.run.write("cells.csv", "measured")
    for source in ("page.measure()[:1]", CELLS["answer"], CELLS["finish"]):
        kernel.run(source)

    told = page.finish().data

    evidence = load(page.run.folder)
    assert (evidence.manifest["status"], evidence.is_complete) == ("edited", False)
    assert evidence.manifest["reason"].startswith("cell measure was edited: - page.measure()")
    assert set(evidence.manifest["artifacts"]) == {"cells.csv"}
    assert "Not published" in told
    assert "cell measure was edited" in told
    assert "restart the kernel" in told


def test_an_edit_is_in_the_manifest_before_its_cell_runs_so_that_nothing_goes_on_from_it(
    page, kernel, capsys
):
    kernel.run(CELLS["measure"])
    notebook._note_edits(page.run, page.recording)
    assert "edited" not in page.run.manifest

    kernel.run("page.records.clear()")
    notebook._note_edits(page.run, page.recording)
    kernel.run("page.records")
    notebook._note_edits(page.run, page.recording)

    added = "another cell ran: page.records.clear()"
    assert load(page.run.folder).manifest["edited"] == [added]
    assert "Markdown" in capsys.readouterr().out, "shown once"
    page.run.seal("failed", "the kernel died")
    unlock(page.run.lock)
    with pytest.raises(EvidenceError, match=rf"edited notebook: {re.escape(added)}; start a"):
        Run.resume(page.run.folder, page.run.manifest, mixed=True)


@pytest.mark.parametrize("status", ["complete", "edited", "failed"])
def test_a_cell_that_runs_after_the_end_changes_nothing(page, status):
    page.run.write("cells.csv", "measured")
    page.run.seal(status)

    with pytest.raises(EvidenceError, match=f"has ended, as {status}: cells.csv cannot be written"):
        page.run.write("cells.csv", "again")
    assert load(page.run.folder).text("cells.csv") == "measured"


def test_a_shell_without_a_kernel_is_refused(monkeypatch):
    shell = SimpleNamespace(display_pub=SimpleNamespace())

    with pytest.raises(ConfigError, match=r"notebooks/peer\.ipynb must be run by a Jupyter kernel"):
        executed.Recording(shell, "peer")


def test_the_runner_is_told_how_far_a_run_is(page, tmp_path, monkeypatch):
    monkeypatch.setenv(notebook.PROGRESS, str(tmp_path / "progress.json"))

    page.report_progress(3, 10, "epoch 1", unit="step")

    told = json.loads((tmp_path / "progress.json").read_text())
    progress = {"done": 3, "total": 10, "label": "epoch 1", "unit": "step"}
    assert told == progress | {"run": str(page.run.folder)}


def test_a_fast_run_does_not_tell_every_step_but_always_the_last(page, tmp_path, monkeypatch):
    monkeypatch.setenv(notebook.PROGRESS, str(tmp_path / "progress.json"))
    monkeypatch.setattr(notebook, "PROGRESS_SECONDS", 3600)
    told = []

    for step in (1, 2, 3):
        page.report_progress(step, 3, "")
        told.append(json.loads((tmp_path / "progress.json").read_text())["done"])

    assert told == [1, 1, 3]


def test_a_run_that_nobody_follows_tells_nothing(page, tmp_path, monkeypatch):
    monkeypatch.delenv(notebook.PROGRESS, raising=False)
    before = sorted(tmp_path.rglob("*"))

    page.report_progress(1, 2, "")

    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("pixels", [False, True])
def test_a_figure_is_saved_panel_by_panel_and_as_pixels_if_asked_for(page, monkeypatch, pixels):
    figure = figures.Figure({"by tokens": "<svg/>", "s(z), all": "<svg></svg>"}, b"PNG", "")
    monkeypatch.setattr(PAGE, "figures", lambda tables, info: {"curve": figure}, raising=False)

    assert page.show("curve", pixels=pixels) is figure

    names = {"curve_by_tokens.svg", "curve_s_z_all.svg"}
    assert page.run.artifacts == names | ({"curve.png"} if pixels else set())
    assert (page.run.folder / "curve_by_tokens.svg").read_text() == "<svg/>"
