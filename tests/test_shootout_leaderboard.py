"""The leaderboard as people read it."""

import pytest
from psannlm.pages.shootout.leaderboard import leaderboard, readme

from psannlm.pages.shootout.tables import shootout_of
from tests.synthetic import start_manifest
from tests.synthetic_shootout import gates, records, shootout_config

CONFIG = shootout_config(base=("respsann", "gelu_scaled", "swiglu"), ablation=(), scale_arms=())
SAME = {"gelu_scaled": "respsann"}
MANIFEST = start_manifest("shootout", CONFIG) | {"run": "20260101_000000"}


def shootout(**refused):
    found = gates(CONFIG, same=SAME, refused=refused)
    return shootout_of(records(CONFIG, alike=SAME), found, CONFIG)


def cells(text):
    """Of the rows of the table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_arms_come_by_place_with_the_numbers_of_the_summary():
    found = shootout()

    rows = cells(leaderboard(found, MANIFEST))

    assert [row[1] for row in rows] == list(found.summary["base"])
    best = found.summary.iloc[0]
    assert rows[0][0] == "1"
    assert rows[0][2] == (
        f"{best.val_loss:.4f} ({best.val_loss_low:.4f} – {best.val_loss_high:.4f})"
    )
    assert rows[0][6].startswith(f"{best.difference:+.4f} (")
    assert rows[0][7] == "better"
    assert rows[-1][1] == "gelu"
    assert rows[-1][6] == "—"
    assert rows[-1][7] == "baseline"


def test_a_refused_arm_stands_at_the_end_with_its_reason():
    text = leaderboard(shootout(swiglu="it sees | the future."), MANIFEST)

    assert cells(text)[-1][:2] == ["—", "swiglu"]
    assert cells(text)[-1][7] == "refused"
    assert "swiglu has no place: it sees \\| the future.\n" in text


def test_equal_networks_are_said_to_be_an_a_a_comparison():
    text = leaderboard(shootout(), MANIFEST)

    assert "gelu_scaled is the same network as respsann: the two are an A/A" in text


def test_failed_seeds_stand_beside_the_others():
    made = records(CONFIG, fails=lambda cell: (cell.arm.name, cell.seed) == ("gelu", 2))
    found = shootout_of(made, gates(CONFIG), CONFIG)

    [row] = [row for row in cells(leaderboard(found, MANIFEST)) if row[1] == "gelu"]

    assert row[-1] == "2 (1 failed)"
    assert row[0] == "—"
    assert row[7] == "baseline"


def test_the_readme_says_what_was_trained_and_holds_the_leaderboard():
    found = shootout()

    text = readme(found, MANIFEST)

    assert "16,384 tokens of datasets/lm/sample.txt with 3 seeds" in text
    assert cells(text) == cells(leaderboard(found, MANIFEST))
    assert f"{len(found.records)} trainings" in text


@pytest.mark.parametrize("make", [leaderboard, readme])
def test_a_shootout_of_which_nothing_is_known_yet_has_a_leaderboard_of_dashes(make):
    text = make(shootout_of((), (), CONFIG), MANIFEST)

    assert {row[2] for row in cells(text)} == {"—"}
