"""A training whose files contradict each other is refused even if every hash is right."""

import io
import json
import math
import shutil

import pandas as pd
import pytest

from psannlm.evidence.runs import EvidenceError, load
from psannlm.pages.tiny_corpus import tables as training_tables
from psannlm.run.check import check
from tests.forging import forge
from tests.trainings import trained, training_config, training_run

TRAINED = trained(training_config())
NUMBERS = [
    name
    for name, value in TRAINED.metrics.items()
    if isinstance(value, int | float) and not isinstance(value, bool)
]
HASH_ALONE = {"train_split_tokens", "train_split_bytes", "peak_rss_mib"}
"""Fields that follow from nothing else in the folder; only bounds hold them, and the hash."""


def nudged(value):
    """The value with a digit changed."""
    return value + 1 if isinstance(value, int) else value * (1 + 1e-6)


def state(folder, **metrics) -> None:
    """Forge fields of metrics.json."""
    forge(folder, "metrics.json", lambda text: json.dumps(json.loads(text) | metrics))


def edit(folder, name, change) -> None:
    """Forge a CSV file, as a table."""

    def rewrite(text):
        frame = pd.read_csv(io.StringIO(text))
        return change(frame).to_csv(index=False)

    forge(folder, name, rewrite)


def set_value(row, column, value):
    """A change of a table: the field of the first row of that kind, or of that number."""

    def change(frame):
        index = row if isinstance(row, int) else frame.index[frame["per"] == row][0]
        frame[column] = frame[column].astype(object)
        frame.loc[index, column] = nudged(frame.loc[index, column]) if value is None else value
        return frame

    return change


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A sound run, made once."""
    return training_run(tmp_path_factory.mktemp("reports"), result=TRAINED)


@pytest.fixture
def folder(original, tmp_path):
    """A copy of it to forge."""
    return shutil.copytree(original, tmp_path / "benchmarks" / original.name)


def refused(folder) -> str:
    with pytest.raises(EvidenceError) as error:
        check(load(folder))
    return str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"base": "transformer"},
        {"base": "sgrpsann", "epochs": 1.5},
        {"epochs": 3.0, "evaluations": 1, "ngram_order": 4, "prompts": ()},
    ],
    ids=["plain", "no sine", "half an epoch", "others"],
)
def test_an_honest_training_passes(tmp_path, changes):
    check(load(training_run(tmp_path, **changes)))


def test_an_honest_training_without_a_known_ceiling_passes(folder):
    unknown = {"mfu": None, "ceiling_flop_per_s": None}
    state(folder, **unknown)

    check(load(folder))


@pytest.mark.parametrize("name", [n for n in NUMBERS if n not in HASH_ALONE])
def test_a_forged_number_is_refused_with_its_name(folder, name):
    state(folder, **{name: nudged(TRAINED.metrics[name])})

    message = refused(folder)

    assert f"benchmarks/{folder.name}: " in message
    assert "metrics.json: " in message or "loss.csv: " in message


@pytest.mark.parametrize("name", TRAINED.metrics)
def test_any_field_that_was_edited_is_refused_by_its_hash(folder, name):
    path = folder / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: "9"}, indent=2) + "\n")

    with pytest.raises(EvidenceError, match=r"metrics\.json was altered"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("perplexity", 7.0, r"metrics.json: perplexity is 7.0, exp\(val_loss\) gives 6"),
        ("target_reached", False, "target_reached is False, perplexity gives True"),
        ("best_step", 1, "best_step is 1, the evaluations gives 40"),
        ("train_loss", 1.0, "train_loss is 1.0, the last epoch gives"),
        ("base", "waveresnet", "base is 'waveresnet', run.json gives 'respsann'"),
        ("corpus_sha256", "e" * 64, "corpus_sha256 is 'eee"),
        ("tokenizer_sha256", "e" * 64, "tokenizer_sha256 is 'eee"),
        ("n_parameters", 10, "n_parameters is 10, the network gives"),
        ("mfu", None, "mfu is None, tokens_per_s gives 0.25"),
        ("ceiling_flop_per_s", None, "mfu is 0.25, an unknown ceiling gives None"),
        ("vocab_size", 65, "vocab_size 65 is more than was asked for"),
        ("peak_rss_mib", 0.001, "peak_rss_mib 0.001 cannot hold the parameters"),
        ("peak_allocated_mib", 0.001, "peak_allocated_mib 0.001 cannot hold the parameters"),
        ("train_split_tokens", 100, "train_tokens 2560 is more than its epochs hold"),
        ("test_loss", "low", "cannot be checked: TypeError"),
        ("val_tokens", 0, "cannot be checked: ZeroDivisionError"),
    ],
)
def test_what_contradicts_the_rest_is_told_with_both_values(folder, name, value, message):
    state(folder, **{name: value})

    with pytest.raises(EvidenceError, match=message):
        check(load(folder))


def test_a_rate_above_the_ceiling_is_refused(folder):
    state(folder, mfu=2.5, ceiling_flop_per_s=TRAINED.metrics["ceiling_flop_per_s"] / 10)

    assert "mfu 2.5 is more than the measured ceiling" in refused(folder)


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        ("step", "step", 7, "the steps are not 1, 2, 3"),
        ("step", "tokens", None, "step at step 1: tokens is"),
        ("step", "train_loss", None, "epoch 1: train_loss is"),
        ("step", "train_loss", math.inf, "train_loss must be positive and finite"),
        ("step", "learning_rate", -1.0, "learning_rate and grad_norm must be at least 0"),
        ("step", "grad_norm", math.nan, "learning_rate and grad_norm must be at least 0"),
        ("evaluation", "tokens", None, "evaluation at step 10: tokens is"),
        ("evaluation", "val_loss", None, "evaluation at step 10: perplexity is"),
        ("evaluation", "val_loss", -1.0, "val_loss must be positive and finite"),
        ("evaluation", "bits_per_byte", None, "evaluation at step 10: bits_per_byte is"),
        ("evaluation", "perplexity", None, "evaluation at step 10: perplexity is"),
        ("evaluation", "top1", 1.5, "top1 must lie between 0 and 1"),
        ("epoch", "epoch", 3, "epoch 3: epoch is 3.0, the order gives 1.0"),
        ("epoch", "train_loss", None, "epoch 1: train_loss is"),
        ("epoch", "top1", None, "epoch 1: top1 is"),
        ("epoch", "perplexity", None, "epoch at step 20: perplexity is"),
    ],
)
def test_a_forged_row_of_the_losses_is_named(folder, row, column, value, message):
    edit(folder, "loss.csv", set_value(row, column, value))

    with pytest.raises(EvidenceError, match=rf"loss\.csv: .*{message}"):
        check(load(folder))


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (lambda rows: rows[rows["step"] < 40], "the last epoch ends at step 20"),
        (lambda rows: rows[(rows["per"] != "epoch") | (rows["step"] < 40)], "the last epoch ends"),
        (lambda rows: rows[(rows["per"] != "step") | (rows["step"] != 9)], "the steps are not"),
        (lambda rows: rows[(rows["per"] != "evaluation") | (rows["step"] != 20)], "KeyError"),
    ],
    ids=["end", "epoch", "step", "evaluation of an epoch"],
)
def test_rows_that_were_dropped_are_missed(folder, keep, message):
    edit(folder, "loss.csv", keep)

    assert message in refused(folder)


def test_an_earlier_evaluation_cannot_pass_for_the_last(folder):
    def put_last(rows):
        better = (rows["per"] == "evaluation") & (rows["step"] == 30)
        return pd.concat([rows[~better], rows[better]])

    edit(folder, "loss.csv", put_last)

    assert "the last evaluation is of step 30, not of the last step" in refused(folder)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("step", 9, "its steps are not those of loss.csv"),
        ("step_seconds", 0.0, "step 21: waited 0.001 of 0.0 seconds"),
        ("step_seconds", 30.0, "step 21: elapsed_seconds .* is less than its steps took"),
        ("wait_seconds", 0.002, "metrics.json: wait_share is"),
        ("wait_seconds", -1.0, "step 21: waited -1.0"),
        ("elapsed_seconds", 0.1, "step 21: elapsed_seconds 0.1 is less"),
    ],
)
def test_a_forged_time_is_named(folder, column, value, message):
    edit(folder, "speed.csv", set_value(20, column, value))

    with pytest.raises(EvidenceError, match=message):
        check(load(folder))


def test_faster_steps_than_the_speed_that_is_stated_are_named(folder):
    edit(folder, "speed.csv", lambda rows: rows.assign(step_seconds=rows["step_seconds"] / 2))

    assert "metrics.json: tokens_per_s is" in refused(folder)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("yardsticks.csv", lambda rows: rows.iloc[:-1], "no row for 6-gram model"),
        ("yardsticks.csv", set_value(0, "bits_per_byte", 0.0), "zlib: bits_per_byte must be"),
        ("sine.csv", set_value(33, "decay_after", 0.0),
         "layer 1, feature 1: decay_after must be positive"),
        ("sine.csv", set_value(0, "frequency_after", math.nan),
         "layer 0, feature 0: frequency_after must be positive"),
    ],
)  # fmt: skip
def test_a_yardstick_or_sine_that_cannot_be_is_named(folder, name, change, message):
    edit(folder, name, change)

    assert f"{name}: {message}" in refused(folder)


def test_a_prompt_whose_sample_is_gone_is_named(folder):
    forge(folder, "samples.json", lambda text: json.dumps(json.loads(text)[:1]))

    assert "samples.json: no sample of the prompt 'It was '" in refused(folder)


@pytest.mark.parametrize("name", ["loss.csv", "speed.csv", "metrics.json", "sine.csv"])
def test_a_file_that_is_no_table_is_refused_not_a_crash(folder, name):
    forge(folder, name, lambda text: "")

    assert f"cannot be checked: ValueError: {name} cannot be read" in refused(folder)


def test_every_field_that_is_stated_is_listed_or_left_to_its_hash():
    assert set(training_tables.METRICS) == set(TRAINED.metrics)
    assert set(NUMBERS) >= HASH_ALONE
