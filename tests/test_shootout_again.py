"""An arm trained again is held seed by seed to what was published, and in the mean."""

from dataclasses import replace

import pytest
from psannlm.pages.shootout.files import trainings_of

from psannlm.config.schema import ConfigError
from psannlm.evidence.rows import rows_of
from psannlm.evidence.runs import load
from psannlm.pages.shootout.plan import key_of
from psannlm.pages.shootout.rerun import cells_of, compared
from tests.synthetic_shootout import records, shootout_config, shootout_run

FEW = {"base": ("respsann", "gelu"), "scale_arms": (), "ablation": ()}
"""Arms, and no controls, to be quick."""


@pytest.fixture(scope="module")
def row(tmp_path_factory):
    run = load(shootout_run(tmp_path_factory.mktemp("reports"), **FEW))
    return next(row for row in rows_of(run) if row.values["base"] == "respsann")


@pytest.fixture(scope="module")
def published(row):
    return {r.seed: r for r in trainings_of(row.run) if r.final and r.arm == "respsann"}


def test_the_cells_are_the_published_trainings_of_the_first_seeds(row, published):
    config = shootout_config(**FEW)

    cells = cells_of(row, config, trainings_of(row.run), 2)

    assert [cell.seed for cell in cells] == [0, 1]
    assert [key_of(cell, config) for cell in cells] == [published[s].key for s in (0, 1)]


def test_the_same_loss_is_inside_and_another_digit_outside(published):
    same, other = published[0], replace(published[0], val_loss=published[0].val_loss + 1e-12)

    assert [q.inside for q in compared(published, [same], same_digits=True).quantities] == [
        True, True
    ]  # fmt: skip
    assert [q.inside for q in compared(published, [other], same_digits=True).quantities] == [
        False, True
    ]  # fmt: skip


def test_elsewhere_a_seed_is_held_to_the_spread_of_seeds(published):
    near = replace(published[0], val_loss=published[0].val_loss + 1e-6)
    far = replace(published[0], val_loss=published[0].val_loss + 1)

    assert all(q.inside for q in compared(published, [near], same_digits=False).quantities)
    assert not any(q.inside for q in compared(published, [far], same_digits=False).quantities)


def test_a_training_that_fails_now_is_outside(published):
    failed = replace(published[1], status="failed", reason="killed", val_loss=None)

    [only] = compared(published, [failed], same_digits=True).quantities

    assert only.inside is False
    assert only.measured == "failed: killed"


def test_more_seeds_than_were_published_are_refused(row):
    with pytest.raises(ConfigError, match="at most the number of published seeds, 3, got 4"):
        cells_of(row, shootout_config(**FEW), trainings_of(row.run), 4)


def test_an_arm_that_was_never_tuned_is_refused(row):
    config = shootout_config(**FEW)
    old = records(config, fails=lambda cell: cell.arm.name == "respsann")

    with pytest.raises(ConfigError, match="all tunings of respsann failed"):
        cells_of(row, config, old, 1)
