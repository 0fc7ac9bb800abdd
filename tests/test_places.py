"""Runs go where the environment says, and below reports/ otherwise."""

from pathlib import Path

import pytest

from psannlm import REPORTS
from psannlm.evidence import places

ELSEWHERE = {"OUT_DIR": "/elsewhere/a", "BENCH_OUT": "b", "TINY_CONFIG": "mine.yaml"}


@pytest.mark.parametrize(
    ("notebook", "usual", "named"),
    [
        ("validation", REPORTS / "gpu", Path("/elsewhere/a")),
        ("throughput", REPORTS / "benchmarks", Path("b")),
        ("tiny_corpus", REPORTS / "benchmarks", Path("b")),
        ("shootout", REPORTS / "benchmarks", Path("b")),
    ],
)
def test_the_environment_moves_the_runs_of_a_notebook(notebook, usual, named):
    assert places.home(notebook, {}) == places.home(notebook, {"OUT_DIR": ""}) == usual
    assert places.home(notebook, ELSEWHERE) == named


def test_only_the_training_takes_another_file():
    root = Path("/project")

    usual = places.parameter_file("gpu", "tiny_corpus", root=root, environment={})
    named = places.parameter_file("gpu", "tiny_corpus", root=root, environment=ELSEWHERE)
    other = places.parameter_file("gpu", "throughput", root=root, environment=ELSEWHERE)

    assert usual == root / "params" / "gpu" / "tiny_corpus.yaml"
    assert named == Path.cwd() / "mine.yaml"
    assert other == root / "params" / "gpu" / "throughput.yaml"


def test_a_folder_means_the_same_from_another_folder():
    pinned = places.pinned(ELSEWHERE)

    assert pinned == {"OUT_DIR": "/elsewhere/a", "BENCH_OUT": str(Path.cwd() / "b")}
    assert places.pinned({}) == {}
