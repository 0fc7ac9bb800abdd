"""What no training of a shootout could state is named, each by what it contradicts."""

import re
from dataclasses import replace

import pytest

from psannlm.pages.shootout.bounds import impossible, unequal
from psannlm.pages.shootout.plan import Cell, choose, finals, key_of
from psannlm.pages.shootout.records import DocumentLoss, Learned, Score
from tests.synthetic_shootout import records, shootout_config

CONFIG = shootout_config(base=("respsann",), ablation=(), scale_arms=(), with_lm_eval=True)
RECORDS = records(CONFIG)
CELLS = {key_of(c, CONFIG): c for c in finals(CONFIG, choose(CONFIG, RECORDS))}
FINAL = next(r for r in RECORDS if r.arm == "respsann" and r.final)
TUNING = RECORDS[0]
POINT = FINAL.curve[-1]
SCORE = FINAL.scores[0]


def found(config=CONFIG, **changes):
    return list(impossible(replace(FINAL, **changes), CELLS[FINAL.key], config))


def test_an_honest_training_states_nothing_impossible():
    assert found() == []


def test_an_honest_failure_states_nothing_impossible():
    failed = records(CONFIG, fails=lambda cell: cell.final)[-1]

    assert list(impossible(failed, CELLS[failed.key], CONFIG)) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"arm": "gelu"}, "arm is 'gelu', its key gives 'respsann'"),
        ({"base": "transformer"}, "base is 'transformer', its key"),
        ({"seed": 7}, "seed is 7, its key gives 0"),
        ({"setting": FINAL.setting._replace(learning_rate=9.0)}, "setting is .*9.0"),
        ({"d_mlp": 1}, "d_mlp is 1, the network gives"),
        ({"n_parameters": FINAL.n_parameters + 1}, "n_parameters is .*, the network gives"),
        ({"flops_per_token": 1}, "flops_per_token is 1, the network gives"),
        ({"train_tokens": 1}, "train_tokens is 1, n_steps . batch_tokens gives"),
        ({"val_loss": -1.0}, "val_loss must lie between 0 and 100"),
        ({"train_loss": 101.0}, "train_loss must lie between 0 and 100"),
        ({"test_loss": float("nan")}, "test_loss must lie between 0 and 100"),
        ({"val_top1": 1.1}, "val_top1 must lie between 0 and 1"),
        ({"test_top1": -0.1}, "test_top1 must lie between 0 and 1"),
        ({"test_bytes": 0}, "test_bytes must be positive"),
        ({"leak": -1.0}, "leak must be at least 0"),
        ({"peak_rss_bytes": 4 * FINAL.n_parameters}, "peak_rss_bytes is .* cannot hold"),
        ({"peak_allocated_bytes": 1}, "peak_allocated_bytes is 1, which cannot hold"),
        ({"val_loss": FINAL.val_loss + 1e-6}, "val_loss is .*, the mean of documents gives"),
        ({"val_tokens": 1}, "val_tokens is 1, the sum of documents gives"),
        ({"documents": ()}, "documents must be known"),
        ({"documents": (DocumentLoss(-1.0, 5),)}, "nats and tokens of at least 0"),
        ({"curve": ()}, "its curve has no evaluation"),
        ({"curve": FINAL.curve[:-1]}, "the last step is 8, n_steps gives 16"),
        ({"curve": (*FINAL.curve[:-1], POINT._replace(val_loss=1.0))}, "the last val_loss is 1.0"),
        ({"curve": (*FINAL.curve[:-1], POINT._replace(seconds=9.0))}, "the last seconds is 9.0"),
        ({"curve": (*FINAL.curve[:-1], POINT._replace(tokens=9))}, r"curve\[1\]: tokens is 9"),
        ({"curve": (FINAL.curve[0], POINT, POINT)}, "curve: step must rise"),
        (
            {"curve": (FINAL.curve[0]._replace(val_loss=101.0), POINT)},
            r"curve\[0\]: val_loss must lie",
        ),
        ({"train_seconds": -1.0}, "train_seconds must be positive"),
        ({"overhead_seconds": 0.0}, "overhead_seconds must be positive"),
        ({"train_tokens_per_s": FINAL.train_tokens_per_s / 4}, "train_tokens_per_s needs"),
        ({"learned": ()}, "learned must hold the parameters"),
        ({"learned": (Learned("0 mlp", "decay", 1.0, 1.0, 2.0, 1.0),)}, "low at most high"),
        ({"scores": (SCORE._replace(value=0.9),)}, "value is 0.9, the mean of items gives"),
        ({"scores": (SCORE._replace(n_items=255),)}, "n_items is 255, items gives 256"),
        ({"scores": (SCORE._replace(n_items=257, items=()),)}, "n_items must lie between"),
        ({"scores": (Score("a", "acc", 0.1, -0.1, 9, None, ()),)}, "stderr must be at least 0"),
        ({"test_loss": None, "n_steps": None}, "n_steps, test_loss must be known"),
        ({"status": "failed"}, "it failed, and no reason is given"),
        ({"status": "failed", "reason": "it ended"}, "it failed, and states a loss"),
    ],
)
def test_a_contradiction_within_a_training_is_named(changes, problem):
    assert any(re.search(problem, said) for said in found(**changes))


def test_only_compared_trainings_see_the_test_split_and_are_asked():
    cell = Cell(CELLS[FINAL.key].arm, TUNING.setting, TUNING.seed)
    told = replace(TUNING, test_loss=2.0, scores=FINAL.scores)

    [problem] = impossible(told, cell, CONFIG)

    assert problem.startswith("test_loss, scores: only compared trainings")


def test_a_rate_beyond_what_the_device_can_do_is_named():
    fast = 1e3 * 67e12 / FINAL.flops_per_token
    changes = {"device": "NVIDIA H200", "train_tokens_per_s": fast}

    assert found(**changes) == ["train_tokens_per_s is 6.7e+16 FLOP/s, NVIDIA H200 can do 6.7e+13"]


@pytest.mark.parametrize("name", ["n_steps", "val_tokens", "val_bytes", "test_tokens"])
def test_trainings_on_other_budgets_or_texts_are_named(name):
    other = replace(FINAL, **{name: getattr(FINAL, name) + 1})

    found = list(unequal([*RECORDS, other]))

    assert len(found) == 1
    assert f"{FINAL.key}.json: {name} must be the same in all trainings" in found[0]


def test_trainings_asked_of_other_documents_are_named():
    other = replace(FINAL, documents=(*FINAL.documents[1:], FINAL.documents[0]))

    [problem] = unequal([*RECORDS, other])

    assert "tokens of documents must be the same" in problem
    assert list(unequal(RECORDS)) == []
