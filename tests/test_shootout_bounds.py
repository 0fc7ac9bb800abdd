"""What no shootout could state is named, and files that its records do not bear out."""

import json
import re
import shutil
from dataclasses import replace

import pytest

from psannlm.evidence.runs import load
from psannlm.evidence.verify import problems as problems_of
from psannlm.pages.shootout import bounds
from psannlm.pages.shootout.bounds import impossible, unequal
from psannlm.pages.shootout.gates import TRAINED_BOUND
from psannlm.pages.shootout.page import PAGE
from psannlm.pages.shootout.plan import Cell, choose, finals, key_of
from psannlm.pages.shootout.records import Learned, Score
from psannlm.train.recorder import Document
from tests.forging import forge, with_more
from tests.synthetic_shootout import LEAK, gates, records, shootout_config, shootout_run

CHANGES = {"base": ("respsann",), "ablation": (), "scale_arms": ("gelu",), "with_lm_eval": True}
CONFIG = shootout_config(**CHANGES)
RECORDS = records(CONFIG)
GATES = gates(CONFIG)
CELLS = {key_of(c, CONFIG): c for c in finals(CONFIG, choose(CONFIG, RECORDS))}
FINAL = next(r for r in RECORDS if r.arm == "respsann" and r.final)
TUNING = RECORDS[0]
POINT = FINAL.curve[-1]
SCORE = FINAL.scores[0]
HASH_ALONE = {
    "overhead_seconds", "peak_rss_bytes", "train_seconds", "train_tokens_per_s", "train_loss",
    "val_top1", "leak",
}  # fmt: skip
"""Of trainings that are not compared these stand nowhere else; only bounds hold them."""


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
        ({"documents": (Document(-1.0, 5),)}, "nats and tokens of at least 0"),
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
        (
            {"device": "NVIDIA H200", "train_tokens_per_s": 6.7e16 / FINAL.flops_per_token},
            r"train_tokens_per_s is 6.7e.16 FLOP/s, NVIDIA H200 can do 6.7e.13",
        ),
        ({"status": "failed"}, "it failed, and no reason is given"),
        ({"status": "failed", "reason": "it ended"}, "it failed, and states a loss"),
    ],
)
def test_a_contradiction_within_a_training_is_named(changes, problem):
    found = impossible(replace(FINAL, **changes), CELLS[FINAL.key], CONFIG)

    assert any(re.search(problem, said) for said in found)


def test_only_compared_trainings_see_the_test_split_and_are_asked():
    cell = Cell(CELLS[FINAL.key].arm, TUNING.setting, TUNING.seed)
    told = replace(TUNING, test_loss=2.0, scores=FINAL.scores)

    [problem] = impossible(told, cell, CONFIG)

    assert problem.startswith("test_loss, scores: only compared trainings")


@pytest.mark.parametrize("name", ["n_steps", "val_tokens", "val_bytes", "test_tokens", "documents"])
def test_trainings_on_other_budgets_or_texts_are_named(name):
    value = getattr(FINAL, name)
    other = replace(FINAL, **{name: (*value[1:], value[0]) if name == "documents" else value + 1})

    [problem] = unequal([*RECORDS, other])

    assert f"{FINAL.key}.json: {name} must be the same in all trainings" in problem
    assert list(unequal(RECORDS)) == []


def stated(made=RECORDS, examined=GATES):
    return list(bounds.problems([*made, *examined], CONFIG))


def test_a_training_that_is_missing_or_of_no_cell_is_named():
    other = replace(TUNING, key="f" * 16)

    assert stated() == []
    assert f"cells/{TUNING.key}.json: is missing, respsann with seed 100" in stated(RECORDS[1:])
    assert any("is that of no training of this shootout" in p for p in stated([*RECORDS, other]))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"leak": 0.5}, "gelu: leak is 0.5 with bound"),
        ({"refused": "it sees the future"}, "refused says 'it sees the future'"),
        ({"bound": 1.0}, "bound must be"),
        ({"bound": TRAINED_BOUND, "leak": 3e-7}, "which is that of no compared training"),
        ({"leak": 1e-13}, f"a training's is nearer to its bound with {LEAK}"),
        ({"nearest": "gelu"}, "nearest must be another arm"),
        ({"distance": -1.0}, "distance must be at least 0"),
        ({"same_as": "swiglu"}, "same_as must be an arm before it"),
    ],
)
def test_a_gate_that_contradicts_itself_or_the_trainings_is_named(changes, problem):
    said = stated(examined=[GATES[0], replace(GATES[1], **changes)])

    assert any(one.startswith("gates.csv: gelu") and problem in one for one in said)


def test_arms_that_end_alike_must_be_said_to_be_the_same_and_all_have_a_gate():
    alike = {r.seed: r.val_loss for r in RECORDS if r.arm == "respsann" and r.final}
    made = [
        replace(r, val_loss=alike[r.seed]) if r.arm == "gelu" and r.final else r for r in RECORDS
    ]

    assert any("gelu ends as respsann does with every seed" in said for said in stated(made))
    assert "gates.csv: its arms are not respsann, gelu, each once" in stated(examined=GATES[:1])


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return shootout_run(tmp_path_factory.mktemp("reports"), **CHANGES)


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / original.parent.name / original.name)


def problems(folder):
    return list(problems_of(PAGE, load(folder)))


def nudged(text: str) -> str:
    """The number with a digit changed."""
    return str(int(text) + 1) if text.lstrip("-").isdigit() else repr(float(text) * (1 + 1e-6))


@pytest.mark.parametrize(
    "fails",
    [
        lambda cell: False,
        lambda cell: cell.final and cell.seed == 1,
        lambda cell: cell.arm.name == "respsann",
        lambda cell: True,
    ],
)
def test_an_honest_run_passes_whatever_failed(tmp_path, fails):
    made = records(CONFIG, fails=fails)

    assert problems(shootout_run(tmp_path, made=made, **CHANGES)) == []


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("summary", "difference"), ("runs", "val_ppl"), ("tuning", "val_loss"),
        ("scales", "val_loss_low"), ("curves", "flops"), ("matched", "amount"),
        ("learned", "after"), ("scores", "value"), ("documents", "nats"),
    ],
)  # fmt: skip
def test_a_table_with_a_number_changed_is_refused_by_name(folder, name, column):
    forge(folder, f"{name}.csv", with_more(column))

    [problem] = problems(folder)

    assert re.match(rf"{name}.csv: row 1, .*{column} is .*, the records give", problem)


@pytest.mark.parametrize(
    ("name", "pattern", "changed", "problem"),
    [
        ("summary.json", r'"val_ppl": (\d)', r'"val_ppl": 9\1', "val_ppl is 9"),
        ("runs/gelu_seed0/metrics.json", r'"val_ppl": (\d)', r'"val_ppl": 9\1', "val_ppl is 9"),
        ("leaderboard.md", r"\| 1 \|", "| 2 |", "row 1, .*place is '2'"),
        ("README.md", r"\| 1 \|", "| 2 |", "row 1, .*place is '2'"),
    ],
)
def test_another_file_with_a_digit_changed_is_refused_by_name(
    folder, name, pattern, changed, problem
):
    forge(folder, name, lambda text: re.sub(pattern, changed, text, count=1))

    [said] = problems(folder)

    assert re.match(rf"{name}: .*{problem}.*, the records give", said)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["final", "tuning"])
def test_any_number_of_a_training_with_a_digit_changed_is_named(folder, kind):
    record = FINAL if kind == "final" else TUNING
    name = f"cells/{record.key}.json"
    honest = (folder / name).read_text()
    values = json.loads(honest)
    held = {k for k, v in values.items() if type(v) in (int, float) and v}

    for field in held - (set() if record.final else HASH_ALONE):
        value = json.loads(nudged(json.dumps(values[field])))
        forge(folder, name, lambda _, f=field, v=value: json.dumps(values | {f: v}))
        assert problems(folder), field
    forge(folder, name, lambda _: honest)
    assert problems(folder) == []


@pytest.mark.parametrize("name", ["gates.csv", f"cells/{TUNING.key}.json"])
def test_a_file_that_cannot_be_read_is_refused_not_a_crash(folder, name):
    forge(folder, name, lambda text: "arm,\n1")

    [problem] = problems(folder)
    assert "cannot be computed from the records" in problem


def test_a_file_of_no_training_is_named(folder):
    training = (folder / f"cells/{TUNING.key}.json").read_text()
    said = []
    for name, text in (("runs/gelu_seed9/metrics.json", "{}"), ("cells/0.json", training)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
        forge(folder, name, lambda _, text=text: text)
        said.append(problems(folder))

    assert said[0] == ["runs/gelu_seed9/metrics.json: follows from no record"]
    assert "two of its records have one key" in said[1][0]
