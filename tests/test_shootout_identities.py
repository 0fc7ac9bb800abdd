"""A shootout whose files contradict each other is refused even if every hash is right."""

import csv
import io
import json
import random
import shutil
from dataclasses import replace

import pytest
from psannlm.pages.shootout.identities import problems

from psannlm.evidence.runs import EvidenceError, load
from psannlm.evidence.verify import differences
from psannlm.pages.shootout.gates import TRAINED_BOUND, gates_csv
from psannlm.run.check import check
from tests.forging import forge
from tests.synthetic_shootout import LEAK, gates, records, shootout_config, shootout_run

CHANGES = {"base": ("respsann",), "ablation": (), "scale_arms": ("gelu",), "with_lm_eval": True}
CONFIG = shootout_config(**CHANGES)
TABLES = (
    "summary.csv", "runs.csv", "tuning.csv", "scales.csv", "curves.csv", "matched.csv",
    "learned.csv", "scores.csv", "documents.csv",
)  # fmt: skip
METRICS = "runs/gelu_seed0/metrics.json"
HASH_ALONE = {"overhead_seconds", "peak_rss_bytes", "train_seconds", "train_tokens_per_s"}
"""Clocks and peaks of trainings that are not compared stand nowhere else; only bounds hold them."""


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return shootout_run(tmp_path_factory.mktemp("reports"), **CHANGES)


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / original.parent.name / original.name)


def nudged(text: str) -> str:
    """The number with a digit changed."""
    return str(int(text) + 1) if text.lstrip("-").isdigit() else repr(float(text) * (1 + 1e-6))


def numbers_of(text: str):
    """Rows of a CSV file, and where its numbers stand that are not zero: row and column."""
    rows = list(csv.reader(io.StringIO(text)))
    for i, row in enumerate(rows[1:], start=1):
        for j, field in enumerate(row):
            if field.replace(".", "").replace("-", "").replace("e", "").isdigit() and float(field):
                yield rows, i, j


def forged(rows, i, j) -> str:
    out = io.StringIO()
    changed = [list(row) for row in rows]
    changed[i][j] = nudged(changed[i][j])
    csv.writer(out, lineterminator="\n").writerows(changed)
    return out.getvalue()


def cells(folder):
    return [f"cells/{path.name}" for path in sorted((folder / "cells").iterdir())]


def test_an_honest_run_passes(original):
    check(load(original))


@pytest.mark.slow
@pytest.mark.parametrize(
    "fails",
    [
        lambda cell: cell.final and cell.seed == 1,
        lambda cell: cell.arm.name == "respsann",
        lambda cell: True,
    ],
)
def test_an_honest_run_in_which_trainings_failed_passes(tmp_path, fails):
    check(load(shootout_run(tmp_path, made=records(CONFIG, fails=fails), **CHANGES)))


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_any_number_of_any_table_with_a_digit_changed_is_named(original, name):
    text = (original / name).read_text()

    places = list(numbers_of(text))

    assert places
    for rows, i, j in random.Random(0).sample(places, min(len(places), 400)):
        found = list(differences(name, forged(rows, i, j), text))
        assert len(found) == 1
        assert rows[0][j] in found[0]
        assert f"row {i}," in found[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_a_table_with_a_digit_changed_is_refused_by_name(folder, name):
    rows, i, j = list(numbers_of((folder / name).read_text()))[-1]
    forge(folder, name, lambda _: forged(rows, i, j))

    [problem] = problems(load(folder))

    assert problem.startswith(f"{name}: row {i}, ")
    assert f"{rows[0][j]} is {nudged(rows[i][j])!r}, the records give {rows[i][j]!r}" in problem


@pytest.mark.parametrize("name", ["summary.json", METRICS])
def test_a_number_of_json_with_a_digit_changed_is_refused_by_name(folder, name):
    def lie(text):
        content = json.loads(text)
        row = content["arms"][1] if "arms" in content else content
        row["val_ppl"] *= 1 + 1e-6
        return json.dumps(content)

    forge(folder, name, lie)

    with pytest.raises(EvidenceError, match=rf"{name}: .*val_ppl is .*, the records give"):
        check(load(folder))


@pytest.mark.parametrize("name", ["leaderboard.md", "README.md"])
def test_a_leaderboard_with_a_digit_changed_is_refused_by_name(folder, name):
    forge(folder, name, lambda text: text.replace("| 1 |", "| 2 |", 1))

    with pytest.raises(
        EvidenceError, match=rf"{name}: row \d+, .*place is '2', the records give '1'"
    ):
        check(load(folder))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["final", "tuning"])
def test_any_number_of_a_training_with_a_digit_changed_is_named(folder, kind):
    is_final = kind == "final"
    name = next(
        n for n in cells(folder) if json.loads((folder / n).read_text())["final"] == is_final
    )
    honest = (folder / name).read_text()
    values = json.loads(honest)
    numeric = [k for k, v in values.items() if type(v) in (int, float) and v]

    for field in numeric:
        if not is_final and field in HASH_ALONE | {"train_loss", "val_top1", "leak"}:
            continue
        value = json.loads(nudged(json.dumps(values[field])))
        forge(folder, name, lambda _, f=field, v=value: json.dumps(values | {f: v}))
        assert list(problems(load(folder))), field
    forge(folder, name, lambda _: honest)
    assert list(problems(load(folder))) == []


def drop(folder, name):
    """Take a file out of a run, and out of its manifest."""
    forge(folder, name, lambda text: text)
    manifest = json.loads((folder / "run.json").read_text())
    del manifest["artifacts"][name]
    (folder / name).unlink()
    rewrite(folder, manifest)


def rewrite(folder, manifest):
    from psannlm.evidence import runs

    del manifest["sha256"]
    manifest["sha256"] = runs._fingerprint(manifest)
    (folder / "run.json").write_text(json.dumps(manifest))


def add(folder, name, text):
    """Put another file into a run, and into its manifest."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("")
    forge(folder, name, lambda _: text)


def test_a_training_that_is_missing_is_named(folder):
    name = next(n for n in cells(folder) if json.loads((folder / n).read_text())["final"])

    drop(folder, name)

    assert any(said.startswith(f"{name}: is missing, ") for said in problems(load(folder)))


@pytest.mark.slow
def test_a_training_under_another_name_is_named(folder):
    add(folder, "cells/0.json", (folder / cells(folder)[0]).read_text())

    assert any("cells/0.json: key is" in said for said in problems(load(folder)))


@pytest.mark.slow
def test_a_training_of_no_cell_is_named(folder):
    values = json.loads((folder / cells(folder)[0]).read_text()) | {"key": "f" * 16}

    add(folder, f"cells/{'f' * 16}.json", json.dumps(values))

    assert any("is that of no training of this shootout" in said for said in problems(load(folder)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["summary.csv", METRICS])
def test_a_file_that_was_taken_out_is_missed(folder, name):
    drop(folder, name)

    assert f"{name}: is missing" in list(problems(load(folder)))


@pytest.mark.slow
def test_metrics_of_no_training_are_named(folder):
    add(folder, "runs/gelu_seed9/metrics.json", "{}")

    assert list(problems(load(folder))) == [
        "runs/gelu_seed9/metrics.json: no such training was compared"
    ]


@pytest.mark.slow
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
def test_a_gate_that_contradicts_itself_or_the_trainings_is_named(folder, changes, problem):
    first, second = gates(CONFIG)
    forge(folder, "gates.csv", lambda _: gates_csv([first, replace(second, **changes)]))

    found = problems(load(folder))

    assert any(said.startswith("gates.csv: gelu") and problem in said for said in found)


@pytest.mark.slow
def test_arms_that_end_alike_must_be_said_to_be_the_same(tmp_path):
    made = records(CONFIG, alike={"gelu": "respsann"}, effects={})
    alike = {r.seed: r for r in made if r.arm == "respsann" and r.final}
    made = [
        replace(r, val_loss=alike[r.seed].val_loss) if r.arm == "gelu" and r.final else r
        for r in made
    ]

    found = problems(load(shootout_run(tmp_path, made=made, **CHANGES)))

    assert any("gelu ends as respsann does with every seed" in said for said in found)


@pytest.mark.slow
def test_an_arm_without_a_gate_is_named(folder):
    forge(folder, "gates.csv", lambda _: gates_csv(gates(CONFIG)[:1]))

    assert "gates.csv: its arms are not respsann, gelu, each once" in list(problems(load(folder)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gates.csv", "cells"])
def test_a_file_that_cannot_be_read_is_refused_not_a_crash(folder, name):
    forge(folder, cells(folder)[0] if name == "cells" else name, lambda text: "arm,\n1")

    with pytest.raises(EvidenceError, match="cannot be checked"):
        check(load(folder))
