"""The computed pieces of the written pages say what the evidence says, or that there is none."""

import io

import pandas as pd

from psannlm.config import CONFIGS
from psannlm.model.bases import BASES
from psannlm.publication import pieces
from psannlm.report.runs import Refused, load
from tests.synthetic import throughput_run
from tests.synthetic_memory import memory_run
from tests.synthetic_peer import peer_run
from tests.trainings import training_run
from tests.validations import made_up_checks, validation_run


def test_every_notebook_has_an_answer_for_the_landing_page():
    assert set(pieces.ANSWERS) == set(CONFIGS)


def test_without_a_run_the_landing_page_says_how_to_make_one():
    assert pieces.answers([]) == "No complete run yet: `make report` makes the first.\n"


def test_a_notebook_without_a_run_is_named_beside_those_that_have_one(tmp_path):
    run = load(training_run(tmp_path))

    text = pieces.answers([run])

    assert "**Throughput.** No complete run yet." in text
    assert f"**Tiny corpus.** Run {run.folder.name}" in text
    assert "[the page](results/tiny_corpus)" in text
    assert "bits per byte" in text


def test_each_answer_stands_under_its_own_name(tmp_path):
    runs = [load(throughput_run(tmp_path)), load(training_run(tmp_path))]

    throughput, training = pieces.answers(runs).split("**Tiny corpus.**")

    assert "tokens/s" in throughput
    assert "perplexity" not in throughput.lower()
    assert "perplexity" in training.lower()


def test_the_landing_page_tells_what_checkpointing_saves(tmp_path):
    run = load(memory_run(tmp_path))

    text = pieces.answers([run])

    assert f"**Memory.** Run {run.folder.name}" in text
    assert "[the page](results/memory)" in text
    assert "**respsann** keeps 10.0 MiB for backward against 4.0" in text


def test_the_landing_page_says_how_the_published_package_compares(tmp_path):
    run = load(peer_run(tmp_path))

    text = pieces.answers([run])

    assert f"**Against the published package.** Run {run.folder.name}" in text
    assert "[the page](results/peer)" in text
    assert "**Speed of ours to that of psannlm 2.0.1**" in text


def test_the_landing_page_says_which_checks_failed(tmp_path, monkeypatch):
    made_up_checks(monkeypatch)
    run = load(validation_run(tmp_path, only="GPU-02"))

    text = pieces.answers([run])

    assert text.startswith(f"**Validation.** Run {run.folder.name}")
    assert "**1 of 2 checks failed**" in text
    assert "GPU-02 Precision" in text


def test_the_history_has_trainings_only_if_there_are_any(tmp_path):
    without = [load(throughput_run(tmp_path))]
    run = load(training_run(tmp_path))

    assert "## Trainings" not in pieces.history_page(without)
    page = pieces.history_page([*without, run])
    assert "## Trainings" in page
    assert page.count(run.folder.name) == 2


def test_the_history_of_nothing_says_so():
    assert "No run yet" in pieces.history_page([])


def test_every_piece_is_written_whatever_there_is(tmp_path):
    run = load(training_run(tmp_path))
    refused = Refused(tmp_path / "benchmarks" / "x", "benchmarks/x: broken")

    empty, full = pieces.computed([]), pieces.computed([run, refused])

    assert set(empty) == set(full)
    history = pd.read_csv(io.StringIO(full["tiny_corpus_history.csv"]))
    assert list(history["run"].astype(str)) == [run.folder.name]
    assert "refused: benchmarks/x: broken" in full["history.md"]


def test_costs_have_a_row_for_every_base():
    text = pieces.costs()

    assert all(f"\n| {base} | " in text for base in BASES)
