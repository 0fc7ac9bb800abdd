"""From a page to the files of a shootout: every training kept at once, none repeated."""

from dataclasses import replace

import pytest
import torch
from psannlm.pages.shootout.files import cell_file
from psannlm.pages.shootout.identities import problems

from psannlm.evidence.runs import Run, load
from psannlm.evidence.session import Page
from psannlm.pages.shootout import run as measured
from psannlm.pages.shootout.plan import distinct, tunings
from tests.synthetic import start_manifest
from tests.synthetic_shootout import gates, records, shootout_config

CONFIG = shootout_config(base=("respsann",), ablation=(), scale_arms=("gelu",))
TRAINED = {record.key: record for record in records(CONFIG)}


class Trainings:
    """Stands in for the processes: gives what a training has left, and remembers the order."""

    def __init__(self, page: Page, place) -> None:
        self.page, self.place = page, place
        self.trained: list[str] = []
        self.kept: list[bool] = []
        self.closed = 0
        self.ends_after = len(TRAINED)

    def run(self, cells, config, *, done, place):
        try:
            place.mkdir(parents=True, exist_ok=True)
            for key in [key for key in cells if key not in done]:
                if len(self.trained) == self.ends_after:
                    raise KeyboardInterrupt
                if self.trained:
                    before = cell_file(TRAINED[self.trained[-1]])
                    self.kept.append((self.page.run.folder / before).is_file())
                self.trained.append(key)
                yield TRAINED[key]
        finally:
            self.closed += 1


def opened(folder, run=None) -> Page:
    run = run or Run.start("benchmarks", start_manifest("shootout", CONFIG), reports=folder)
    return Page("shootout", CONFIG, run, torch.device("cpu"))


@pytest.fixture
def page(tmp_path):
    return opened(tmp_path / "reports")


@pytest.fixture
def trainings(page, tmp_path, monkeypatch):
    stand_in = Trainings(page, tmp_path / "checkpoints")
    monkeypatch.setattr(measured, "CHECKPOINTS", stand_in.place)
    monkeypatch.setattr(measured, "run_cells", stand_in.run)
    monkeypatch.setattr(measured, "refuse_early", lambda config: None)
    monkeypatch.setattr(measured, "read", lambda config: None)
    facts = {"corpus": {"path": CONFIG.corpus, "sha256": "c"}, "tokenizer": {"kind": "bpe"}}
    monkeypatch.setattr(measured, "sources", lambda config, data: facts)
    monkeypatch.setattr(measured, "gates", lambda config, chosen, records: gates(config))
    return stand_in


def test_a_run_trains_every_cell_once_tunings_first_and_keeps_each_before_the_next(page, trainings):
    found = measured.measure(page, CONFIG)

    first = list(distinct(tunings(CONFIG), CONFIG))
    assert trainings.trained[: len(first)] == first
    assert sorted(trainings.trained) == sorted(TRAINED)
    assert trainings.kept
    assert all(trainings.kept)
    assert {record.key for record in found.records} == set(TRAINED)


def test_a_complete_run_holds_all_its_files_and_what_was_read_and_no_checkpoints(page, trainings):
    measured.measure(page, CONFIG)

    page.run.seal("complete")
    assert list(problems(load(page.run.folder))) == []
    assert page.run.manifest["corpus"]["path"] == CONFIG.corpus
    assert page.run.manifest["tokenizer"]["kind"] == "bpe"
    assert not (trainings.place / page.run.folder.name).exists()


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 3, 5, 9])
def test_a_run_that_was_killed_and_resumed_repeats_nothing_and_ends_alike(
    page, trainings, after, tmp_path
):
    trainings.ends_after = after
    with pytest.raises(KeyboardInterrupt):
        measured.measure(page, CONFIG)
    assert not (page.run.folder / "summary.csv").exists()
    assert trainings.closed == 1 + (after > 4)
    manifest = page.run.manifest
    trainings.page = opened(tmp_path, Run.resume(page.run.folder, manifest))

    trainings.ends_after = len(TRAINED)
    measured.measure(trainings.page, CONFIG)

    assert sorted(trainings.trained) == sorted(TRAINED)
    trainings.page.run.seal("complete")
    assert list(problems(load(page.run.folder))) == []


def test_a_shootout_that_is_refused_trains_nothing(page, trainings, monkeypatch):
    def refuse(config):
        raise ValueError("there is no such arm")

    monkeypatch.setattr(measured, "refuse_early", refuse)

    with pytest.raises(ValueError, match="no such arm"):
        measured.measure(page, CONFIG)
    assert trainings.trained == []


def test_the_runner_is_told_of_every_training(page, trainings, monkeypatch):
    told = []
    monkeypatch.setattr(
        page, "report_progress", lambda *what, **unit: told.append((*what, *unit.values()))
    )

    measured.measure(page, CONFIG)

    n = len(TRAINED)
    assert [done for done, *_ in told] == list(range(1, n + 1))
    assert {unit for *_, unit in told} == {"training"}
    assert told[-1][1] == n
    assert told[-1][2].startswith("gelu, seed ")


def test_a_training_is_called_by_its_arm_its_seed_and_what_came_of_it():
    record = next(iter(TRAINED.values()))
    failed = replace(record, status="failed", reason="it ended", val_loss=None)

    assert measured.label(record) == f"respsann, seed 100: {record.val_loss:.3f}"
    assert measured.label(failed) == "respsann, seed 100: failed"
