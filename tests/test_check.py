"""Whatever a run is of, it is checked when it is read, and named when it is refused."""

import pytest

from psannlm.evidence.runs import EvidenceError, Refused, load
from psannlm.run.check import check, checked_runs
from tests.forging import forge
from tests.peers import peer_run
from tests.synthetic import throughput_run
from tests.synthetic_memory import memory_run
from tests.trainings import training_run

each_run = pytest.mark.parametrize("made", [throughput_run, memory_run, training_run, peer_run])


@each_run
def test_an_honest_run_passes_unless_it_is_of_no_page(tmp_path, made, monkeypatch):
    run = load(made(tmp_path))
    check(run)
    monkeypatch.setattr("psannlm.run.check.pages", dict)

    with pytest.raises(EvidenceError, match="there is no page"):
        check(run)


@each_run
def test_a_notebook_that_did_not_run_to_its_end_is_no_evidence(tmp_path, made):
    folder = made(tmp_path)
    [notebook] = folder.glob("*.ipynb")
    count = '"execution_count": '
    forge(folder, notebook.name, lambda text: text.replace(f"{count}2", f"{count}null"))

    with pytest.raises(EvidenceError, match=rf"{notebook.name} did not run to its end"):
        check(load(folder))


@each_run
def test_an_interrupted_run_is_kept_as_what_it_is(tmp_path, made):
    made(tmp_path, status="failed")

    [run] = checked_runs(tmp_path)

    assert not isinstance(run, Refused)
    assert not run.is_complete


def test_a_refused_run_comes_with_its_name_and_file(tmp_path):
    folder = training_run(tmp_path)
    forge(folder, "loss.csv", lambda text: "")

    [refused] = checked_runs(tmp_path)

    assert isinstance(refused, Refused)
    assert f"benchmarks/{folder.name}: " in refused.reason
    assert "cannot be computed from the records" in refused.reason
