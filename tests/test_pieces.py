"""The computed pieces of the written pages say what the evidence says, or that there is none."""

import io

import pandas as pd

from psannlm.evidence.runs import Refused, load
from psannlm.model.bases import BASES
from psannlm.publish import pieces
from tests.trainings import training_run


def test_every_piece_is_written_whatever_there_is(tmp_path):
    run = load(training_run(tmp_path))
    refused = Refused(tmp_path / "benchmarks" / "x", "benchmarks/x: broken")

    empty, full = pieces.computed([]), pieces.computed([run, refused])

    assert set(empty) == set(full)
    history = pd.read_csv(io.StringIO(full["data/history/tiny_corpus.csv"]))
    assert list(history["run"].astype(str)) == [run.folder.name]
    assert "refused: benchmarks/x: broken" in full["history.md"]


def test_costs_have_a_row_for_every_base():
    text = pieces.costs()

    assert all(f"\n| {base} | " in text for base in BASES)
