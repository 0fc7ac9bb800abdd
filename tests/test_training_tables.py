"""A training is read back as it was written, or refused with what it lacks."""

import json
import math

import pandas as pd
import pytest

from psannlm.pages.tiny_corpus import tables as training_tables
from psannlm.train import journal
from tests.trainings import trained, training_config, training_files, training_run

TRAINED = trained(training_config())


def test_a_training_is_read_back_as_it_was_written(tmp_path):
    back = training_tables.read(training_run(tmp_path, result=TRAINED))

    for name in ("losses", "speed", "yardsticks", "sine"):
        written, read = getattr(TRAINED, name), getattr(back, name)
        pd.testing.assert_frame_equal(read, written, check_dtype=False, rtol=1e-15)
    assert back.metrics == TRAINED.metrics
    assert back.samples == TRAINED.samples


def test_a_base_without_a_sine_has_no_rows_of_it(tmp_path):
    back = training_tables.read(training_run(tmp_path, base="transformer"))

    assert back.sine.empty


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("loss.csv", "per,step\nstep,1\n", r"loss\.csv lacks epoch, tokens"),
        ("speed.csv", "", r"speed\.csv cannot be read"),
        ("metrics.json", "[]", r"metrics\.json must hold a dict, got list"),
        ("metrics.json", '{"val_loss": 1}', r"metrics\.json lacks train_loss, perplexity"),
        ("samples.json", "nothing", r"samples\.json cannot be read"),
        ("samples.json", '[{"prompt": ""}]', r"samples\.json lacks temperature, top_p, text"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path, name, text, message):
    for file, content in (training_files(TRAINED) | {name: text}).items():
        (tmp_path / file).write_text(content)

    with pytest.raises(ValueError, match=message):
        training_tables.read(tmp_path)


def test_rows_are_told_apart_by_what_they_are_per():
    per = {kind: len(TRAINED.rows(kind)) for kind in ("step", "evaluation", "epoch")}

    assert per == {"step": 40, "evaluation": 4, "epoch": 2}
    assert sum(per.values()) == len(TRAINED.losses)


def test_bits_per_byte_and_perplexity_are_two_ways_to_say_a_loss():
    loss = math.log(8)  # as sure as a choice among eight equally likely tokens: three bits

    assert journal.perplexity(loss) == pytest.approx(8, rel=1e-12)
    assert journal.bits_per_byte(loss, 1.0) == pytest.approx(3, rel=1e-12)
    assert journal.bits_per_byte(loss, 2.5) == pytest.approx(1.2, rel=1e-12)


def test_a_loss_beyond_all_measure_has_an_infinite_perplexity():
    assert journal.perplexity(1e4) == math.inf


def test_speed_is_that_of_the_median_step_after_the_first_tenth():
    seconds = [100.0, 100.0, *[0.5] * 9, *[0.25] * 9]  # of the 18 that count, half and half
    speed = pd.DataFrame({"step": range(1, 21), "step_seconds": seconds})

    assert journal.tokens_per_s(speed, 300) == pytest.approx(300 / 0.375, rel=1e-12)
    assert journal.tokens_per_s(speed.iloc[:1], 300) == 3


def test_waiting_is_a_share_of_all_steps_time():
    speed = pd.DataFrame({"step_seconds": [3.0, 1.0], "wait_seconds": [0.5, 0.5]})

    assert journal.wait_share(speed) == 0.25


def test_a_moment_of_a_training_has_its_time():
    speed = pd.DataFrame({"step": [1, 2, 3], "elapsed_seconds": [1.0, 2.5, 4.0]})

    assert list(training_tables.elapsed_at(speed, pd.Series([3, 2]))) == [4.0, 2.5]


def test_the_network_stands_among_its_yardsticks_by_what_it_needs():
    table = training_tables.beside_yardsticks(TRAINED)

    assert list(table["bits_per_byte"]) == sorted(table["bits_per_byte"])
    assert list(table[table["is_network"]]["name"]) == ["respsann"]
    assert len(table) == len(TRAINED.yardsticks) + 1


@pytest.mark.parametrize(("best", "before"), [(40, False), (30, True)])
def test_a_training_whose_loss_rose_again_is_known(best, before):
    metrics = {**TRAINED.metrics, "best_step": best}

    found = training_tables.Trained(
        TRAINED.losses, TRAINED.speed, metrics, TRAINED.yardsticks, TRAINED.sine, []
    )

    assert found.has_best_before_end is before


def test_metrics_open_with_the_names_of_the_original_plan():
    assert training_tables.METRICS[:4] == ("train_loss", "val_loss", "perplexity", "corpus_path")
    assert set(json.loads(training_files(TRAINED)["metrics.json"])) == set(training_tables.METRICS)
