"""The published package stands beside ours with a ratio, and with a goal where there is one."""

import pandas as pd
import pytest

from psannlm.files import MIB
from psannlm.pages.memory.peer import GOALS, PEER, goal, goal_verdict, package_name, peer_table
from tests.synthetic_memory import memory_config, peer_record

SMALL = memory_config()
SHAPE = {"vocab_size": 32_000, "d_model": 512, "n_layers": 8, "context_length": 512}
AT_GOAL = memory_config(**SHAPE, batch_tokens=(512,), contexts=())
OURS = {("respsann", "fp32"): 10.0}


def row_of(peer, ours=OURS, config=SMALL):
    table = peer_table([peer], ours, config)
    assert tuple(table.columns) == PEER
    [row] = table.to_dict("records")
    return row


def test_our_bytes_are_divided_by_those_of_the_package():
    row = row_of(peer_record(saved_bytes=25 * MIB))

    assert (row["saved_mib"], row["peer_saved_mib"], row["ratio"]) == (10, 25, 0.4)
    assert (row["package"], row["base"], row["precision"]) == ("package 1.0", "respsann", "fp32")
    assert (row["context_length"], row["batch_tokens"]) == (16, 32)
    assert (row["status"], row["reason"]) == ("ok", "")


def test_every_precision_is_a_row_held_against_ours_in_the_same():
    peers = [peer_record(), peer_record(precision="bf16", saved_bytes=20 * MIB)]
    ours = OURS | {("respsann", "bf16"): 5.0, ("transformer", "bf16"): 1.0}

    table = peer_table(peers, ours, SMALL)

    assert list(table["precision"]) == ["fp32", "bf16"]
    assert list(table["ratio"]) == [0.4, 0.25]


@pytest.mark.parametrize(("precision", "wanted"), [("fp32", 0.45), ("bf16", 0.40), ("fp16", None)])
def test_each_precision_has_its_own_goal(precision, wanted):
    assert goal(precision, AT_GOAL.model_dump()) == wanted


@pytest.mark.parametrize("name", SHAPE)
def test_another_shape_has_no_goal(name):
    other = AT_GOAL.model_dump() | {name: SHAPE[name] * 2}

    assert [goal(precision, other) for precision in GOALS] == [None, None]


def test_a_goal_does_not_ask_for_the_batch():
    wider = AT_GOAL.model_dump() | {"batch_tokens": (4096,), "d_mlp": 4096}

    assert goal("fp32", wider) == 0.45


@pytest.mark.parametrize(
    ("ratio", "wanted", "said"),
    [
        (0.4, 0.45, "reached"),
        (0.45, 0.45, "reached"),
        (0.451, 0.45, "not reached"),
        (0.0, 0.45, "reached"),
        (None, 0.45, None),
        (0.4, None, None),
    ],
)
def test_a_verdict_is_said_in_words_or_not_at_all(ratio, wanted, said):
    assert goal_verdict(ratio, wanted) == said


@pytest.mark.parametrize(
    ("precision", "theirs", "expected"),
    [
        ("fp32", 25, (0.45, "reached")),
        ("fp32", 20, (0.45, "not reached")),
        ("fp32", 24, (0.45, "reached")),
        ("bf16", 24, (0.40, "not reached")),
        ("fp16", 25, (None, None)),
    ],
)
def test_at_the_shape_of_the_goals_a_row_has_goal_and_verdict(precision, theirs, expected):
    peer = peer_record(precision=precision, saved_bytes=theirs * MIB)

    row = row_of(peer, {("respsann", precision): 10.0}, AT_GOAL)

    assert (row["goal"], row["verdict"]) == expected


def test_elsewhere_a_row_has_a_ratio_alone():
    row = row_of(peer_record())

    assert row["ratio"] == 0.4
    assert (row["goal"], row["verdict"]) == (None, None)


def test_a_package_that_failed_is_a_row_with_its_reason_and_no_ratio():
    failed = peer_record(status="failed", reason="cannot install it", saved_bytes=None)

    row = row_of(failed, config=AT_GOAL)

    assert (row["status"], row["reason"]) == ("failed", "cannot install it")
    assert (row["peer_saved_mib"], row["ratio"], row["verdict"]) == (None, None, None)
    assert (row["saved_mib"], row["goal"]) == (10, 0.45)


@pytest.mark.parametrize(
    "ours",
    [{}, {("respsann", "fp32"): None}, {("transformer", "fp32"): 1.0, ("respsann", "bf16"): 1.0}],
)
def test_without_our_own_bytes_there_is_no_ratio(ours):
    row = row_of(peer_record(), ours, AT_GOAL)

    assert (row["saved_mib"], row["ratio"], row["verdict"]) == (None, None, None)
    assert row["peer_saved_mib"] == 25


def test_a_package_that_keeps_nothing_has_no_ratio():
    assert row_of(peer_record(saved_bytes=0))["ratio"] is None


def test_one_precision_that_failed_leaves_the_other_its_ratio():
    peers = [
        peer_record(status="failed", saved_bytes=None),
        peer_record(precision="bf16", saved_bytes=20 * MIB),
    ]

    table = peer_table(peers, OURS | {("respsann", "bf16"): 5.0}, SMALL)

    assert list(pd.isna(table["ratio"])) == [True, False]
    assert table["ratio"][1] == 0.25


def test_without_a_package_the_table_is_empty_but_has_its_columns():
    table = peer_table([], OURS, AT_GOAL)

    assert table.empty
    assert tuple(table.columns) == PEER


def test_a_package_goes_by_name_and_version():
    assert package_name(peer_record(package="other", version="2.0.1")) == "other 2.0.1"
