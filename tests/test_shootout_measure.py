"""A shootout is measured training by training, each kept at once; an arm again, seed by seed."""

import sys

import pytest
import torch

from psannlm.config.schema import ConfigError
from psannlm.evidence.page import RerunRequest
from psannlm.evidence.runs import Run, load
from psannlm.evidence.session import Session
from psannlm.evidence.verify import problems
from psannlm.pages.shootout import measure as measured
from psannlm.pages.shootout.page import PAGE
from psannlm.pages.shootout.plan import distinct, key_of, tunings
from psannlm.pages.shootout.records import label
from tests.synthetic import start_manifest
from tests.synthetic_shootout import gates, records, shootout_config, shootout_run

FEW = {"base": ("respsann",), "ablation": (), "scale_arms": ("gelu",)}
CONFIG = shootout_config(**FEW)
TRAINED = {record.key: record for record in records(CONFIG)}
CPU = torch.device("cpu")


class Trainings:
    """Stands in for the processes: gives what a training has left, and remembers the order."""

    def __init__(self, folder) -> None:
        run = Run.start("benchmarks", start_manifest("shootout", CONFIG), reports=folder)
        self.session = Session(PAGE, CONFIG, run, CPU)
        self.trained: list[str] = []
        self.kept: list[bool] = []
        self.closed = 0
        self.ends_after = len(TRAINED)

    def run(self, cells, config, done, place):
        try:
            place.mkdir(parents=True, exist_ok=True)
            for key in [key for key in cells if key not in done]:
                if len(self.trained) == self.ends_after:
                    raise KeyboardInterrupt
                if self.trained:
                    before = self.session.run.folder / "cells" / f"{self.trained[-1]}.json"
                    self.kept.append(before.is_file())
                self.trained.append(key)
                yield TRAINED[key]
        finally:
            self.closed += 1


@pytest.fixture
def trainings(tmp_path, monkeypatch):
    stand_in = Trainings(tmp_path / "reports")
    facts = {"corpus": {"path": CONFIG.corpus, "sha256": "c"}, "tokenizer": {"kind": "bpe"}}
    for name, value in {
        "CHECKPOINTS": tmp_path / "checkpoints",
        "run_cells": stand_in.run,
        "refuse_early": lambda config: None,
        "read": lambda config: None,
        "sources": lambda config, data: facts,
        "gates": lambda config, chosen, records: gates(config),
    }.items():
        monkeypatch.setattr(measured, name, value)
    return stand_in


def test_a_run_trains_every_cell_once_keeps_each_before_the_next_and_ends_sound(trainings):
    run = trainings.session.run

    trainings.session.measure()
    run.seal("complete")

    first = list(distinct(tunings(CONFIG), CONFIG))
    assert trainings.trained[: len(first)] == first
    assert sorted(trainings.trained) == sorted(TRAINED)
    assert set(trainings.kept) == {True}
    assert PAGE.total(CONFIG) >= len(TRAINED)
    assert list(problems(PAGE, load(run.folder))) == []
    assert run.manifest["corpus"]["path"] == CONFIG.corpus
    assert run.manifest["tokenizer"]["kind"] == "bpe"
    assert not (measured.CHECKPOINTS / run.folder.name).exists()


@pytest.mark.parametrize("after", [0, 3, 9])
def test_a_run_that_was_killed_and_resumed_repeats_nothing_and_ends_alike(trainings, after):
    run, trainings.ends_after = trainings.session.run, after
    with pytest.raises(KeyboardInterrupt):
        trainings.session.measure()
    assert not (run.folder / "summary.csv").exists()
    assert trainings.closed == 1 + (after > 4)
    run.lock.release()
    resumed = Run.resume(run.folder, run.manifest)
    trainings.session = Session(PAGE, CONFIG, resumed, CPU)

    trainings.ends_after = len(TRAINED)
    trainings.session.measure()

    assert sorted(trainings.trained) == sorted(TRAINED)
    resumed.seal("complete")
    assert list(problems(PAGE, load(run.folder))) == []


def test_what_has_begun_ends_with_an_error_of_the_session(trainings, monkeypatch):
    def full() -> None:
        raise OSError("no space is left")

    monkeypatch.setattr(trainings.session, "save", full)

    with pytest.raises(OSError, match="no space"):
        trainings.session.measure()
    assert trainings.closed == 1


def test_the_missing_extra_is_named_with_the_way_to_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "psannlm.pages.shootout.lm_eval", raising=False)
    monkeypatch.setitem(sys.modules, "lm_eval", None)

    with pytest.raises(ConfigError, match=r"run: .* -m pip install -e '\.\[lm-eval\]'"):
        measured.refuse_early(shootout_config(with_lm_eval=True))


def test_a_training_is_called_by_its_arm_its_seed_and_what_came_of_it():
    ended, failed = records(CONFIG)[0], records(CONFIG, fails=lambda cell: True)[0]

    called = [f"respsann, seed 100: {said}" for said in (f"{ended.val_loss:.3f}", "failed")]
    assert [label(one) for one in (ended, failed, gates(CONFIG)[0])] == [*called, "gates"]


@pytest.fixture(scope="module")
def row(tmp_path_factory):
    run = load(shootout_run(tmp_path_factory.mktemp("reports"), **FEW))
    return next(row for row in PAGE.rows(run) if row.values["base"] == "respsann")


@pytest.fixture
def again(row, monkeypatch):
    """Trains an arm again; what was asked of the processes comes back too."""
    asked = {}

    def run_cells(cells, config, done, place):
        asked.update(cells=cells, config=config)
        yield from (TRAINED[key] for key in cells)

    def measure(repeats, made=TRAINED):
        config = CONFIG.model_copy(update={"with_lm_eval": True, "scheduler": "tcp://there:1"})
        request = RerunRequest(config=config, device=CPU, repeats=repeats, say=lambda said: None)
        return PAGE.measure_again(row, request, list(made.values())), asked

    monkeypatch.setattr(measured, "run_cells", run_cells)
    return measure


def test_an_arm_is_trained_again_with_the_first_of_its_seeds(row, again):
    new, asked = again(2)

    published = {r.seed: r for r in TRAINED.values() if r.final and r.arm == "respsann"}
    assert [record.key for record in new] == [published[seed].key for seed in (0, 1)]
    assert [key_of(cell, CONFIG) for cell in asked["cells"].values()] == list(asked["cells"])
    assert (asked["config"].with_lm_eval, asked["config"].scheduler) == (False, "")
    losses = PAGE.replicates(list(TRAINED.values()), row, CONFIG)
    assert losses == {"val_loss": {seed: r.val_loss for seed, r in published.items()}}


def test_failures_of_the_compared_trainings_have_their_reasons(row):
    made = records(CONFIG, fails=lambda cell: cell.final and cell.seed == 1)

    assert PAGE.failures(made, row) == ["ConfigError: the loss is not finite"]


def test_what_cannot_be_trained_again_is_refused(again):
    failed = {r.key: r for r in records(CONFIG, fails=lambda cell: cell.arm.name == "respsann")}

    with pytest.raises(ConfigError, match="at most the number of published seeds, 3, got 4"):
        again(4)
    with pytest.raises(ConfigError, match="all tunings of respsann failed"):
        again(1, failed)
