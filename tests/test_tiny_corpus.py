"""The tiny-corpus page: a training whose files agree, told truly, refused where they do not."""

import io
import json
import math
import re
import shutil
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch

from psannlm.bench import steps
from psannlm.evidence.page import RerunRequest
from psannlm.model.bases import build
from psannlm.pages.tiny_corpus import figures, prose, tables
from psannlm.pages.tiny_corpus import page as tiny_corpus
from psannlm.pages.tiny_corpus.page import NEAR, PAGE, SAME
from psannlm.pages.tiny_corpus.tables import from_texts
from psannlm.train import data
from tests.forging import forge
from tests.pages import numbers_of, open_session, problems
from tests.trainings import changed, trained, training_config, training_run

CONFIG = training_config()
TRAINED = trained(CONFIG)
HASH_ALONE = {"train_split_tokens", "train_split_bytes", "peak_rss_mib"}
"""Fields that follow from nothing else in the folder; only bounds hold them, and the hash."""

NUMBERS = {n for n, value in TRAINED.metrics.items() if type(value) in (int, float)} - HASH_ALONE


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A session whose network was trained for a few steps, in folders of these tests."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_corpus, "CHECKPOINTS", folder / "checkpoints")
        patch.setattr(tiny_corpus, "CEILING", {"min_seconds": 0.001, "min_steps": 1})
        patch.setattr(steps, "SIZES", {"cpu": (256,)})
        patch.setattr(data, "CACHE", folder / "cache")
        few = {"vocab_size": 257, "tokenizer": "bytes", "train_megabytes": 0.002, "ngram_order": 3}
        few |= {"validation_megabytes": 0.0005, "batch_tokens": 256, "sample_tokens": 9}
        session = open_session(PAGE, training_config(**few), folder / "reports")
        session.measure()
        yield session


def test_a_training_leaves_files_that_agree(finished):
    [found], config, manifest = finished.records, finished.config, finished.run.manifest

    finished.run.seal("complete")
    assert problems(PAGE, finished.run.folder) == []
    assert found.metrics["n_steps"] == len(found.rows("step"))
    assert 0 < found.metrics["mfu"] < 1
    assert manifest["corpus"]["sha256"] == found.metrics["corpus_sha256"]
    assert manifest["tokenizer"]["bytes_per_token"] == found.metrics["bytes_per_token"]
    read = found.yardsticks.set_index("name")["training_bytes"]
    assert (read["3-gram model"], read["zlib"]) == (found.metrics["train_split_bytes"], 0)
    assert [sample["prompt"] for sample in found.samples] == ["The ", "It was "]
    assert all(sample["text"] for sample in found.samples)
    start = build(config.network, seed=config.seed).blocks[0].mlp.nonlinearity
    assert list(found.sine["layer"].unique()) == ["0 mlp", "1 mlp"]
    assert len(found.sine) == config.n_layers * config.d_mlp
    assert found.sine["frequency_before"][0] == pytest.approx(start.frequency[0].item())
    assert (found.sine["frequency_after"] != found.sine["frequency_before"]).any()


def test_a_run_goes_on_in_the_folder_of_its_training(finished):
    [found] = finished.records
    weights = sorted((tiny_corpus.CHECKPOINTS / finished.run.folder.name).rglob("*.safetensors"))
    written = [path.stat().st_mtime_ns for path in weights]

    again = tiny_corpus.train(finished)

    assert again.texts["loss.csv"] == found.texts["loss.csv"]
    assert [path.stat().st_mtime_ns for path in weights] == written


def nudged(value):
    """The value with a digit changed."""
    return value + 1 if isinstance(value, int) else value * (1 + 1e-6)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A sound run, made once."""
    return training_run(tmp_path_factory.mktemp("reports"), result=TRAINED)


@pytest.fixture
def folder(original, tmp_path):
    """A copy of it to forge."""
    return shutil.copytree(original, tmp_path / "benchmarks" / original.name)


def stated(**metrics):
    """Forges fields of metrics.json."""
    return lambda text: json.dumps(json.loads(text) | metrics)


def rows(change):
    """Forges a CSV file, as a table."""
    return lambda text: change(pd.read_csv(io.StringIO(text))).to_csv(index=False)


def cell(row, column, value):
    """Forges a field of the first row of that kind, or of that number; None nudges it."""

    def change(frame):
        index = row if isinstance(row, int) else frame.index[frame["per"] == row][0]
        frame[column] = frame[column].astype(object)
        frame.loc[index, column] = nudged(frame.loc[index, column]) if value is None else value
        return frame

    return rows(change)


def refused(folder, name, change):
    forge(folder, name, change)
    found = problems(PAGE, folder)
    assert found
    return "\n".join(found)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"base": "transformer"},
        {"base": "sgrpsann", "epochs": 1.5},
        {"epochs": 3.0, "evaluations": 1, "ngram_order": 4, "prompts": ()},
        {"result": changed(TRAINED, mfu=None, ceiling_flop_per_s=None)},
    ],
    ids=["plain", "no sine", "half an epoch", "others", "no known ceiling"],
)
def test_an_honest_training_passes(tmp_path, changes):
    assert problems(PAGE, training_run(tmp_path, **changes)) == []


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_a_forged_number_is_refused_with_its_file(folder, name):
    change = stated(**{name: nudged(TRAINED.metrics[name])})

    assert re.search(r"metrics\.json: |loss\.csv: ", refused(folder, "metrics.json", change))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"perplexity": 7.0}, r"metrics.json: perplexity is 7.0, the records give 6"),
        ({"target_reached": False}, "target_reached is False, the records give True"),
        ({"best_step": 1}, "best_step is 1, the records give 40"),
        ({"base": "waveresnet"}, "base is 'waveresnet', the records give 'respsann'"),
        ({"corpus_sha256": "e" * 64}, "corpus_sha256 is 'eee"),
        ({"tokenizer_sha256": "e" * 64}, "tokenizer_sha256 is 'eee"),
        ({"n_parameters": 10}, "n_parameters is 10, the records give"),
        ({"mfu": None}, "mfu is None, the records give 0.25"),
        ({"ceiling_flop_per_s": None}, "mfu is 0.25, the records give None"),
        ({"mfu": 2.5, "ceiling_flop_per_s": 1.0}, "mfu 2.5 is more than the measured ceiling"),
        ({"vocab_size": 65}, "vocab_size 65 is more than was asked for"),
        ({"peak_rss_mib": 0.001}, "peak_rss_mib 0.001 cannot hold the parameters"),
        ({"peak_allocated_mib": 0.001}, "peak_allocated_mib 0.001 cannot hold the parameters"),
        ({"train_split_tokens": 100}, "train_tokens 2560 is more than its epochs hold"),
        ({"test_loss": "low"}, "cannot be computed from the records: TypeError"),
        ({"val_tokens": 0}, "cannot be computed from the records: ZeroDivisionError"),
    ],
)
def test_what_contradicts_the_rest_is_named(folder, changes, message):
    assert re.search(message, refused(folder, "metrics.json", stated(**changes)))


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        ("step", "step", 7, "the steps are not 1, 2, 3"),
        ("step", "tokens", None, "step at step 1: tokens is"),
        ("step", "train_loss", None, "epoch 1: train_loss is"),
        ("step", "train_loss", math.inf, "train_loss must be positive and finite"),
        ("step", "learning_rate", -1.0, "learning_rate and grad_norm must be at least 0"),
        ("step", "grad_norm", math.nan, "learning_rate and grad_norm must be at least 0"),
        ("evaluation", "val_loss", None, "evaluation at step 10: perplexity is"),
        ("evaluation", "val_loss", -1.0, "val_loss must be positive and finite"),
        ("evaluation", "bits_per_byte", None, "evaluation at step 10: bits_per_byte is"),
        ("evaluation", "top1", 1.5, "top1 must lie between 0 and 1"),
        ("epoch", "epoch", 3, "epoch 3: epoch is 3.0, the order gives 1.0"),
        ("epoch", "train_loss", None, "epoch 1: train_loss is"),
        ("epoch", "top1", None, "epoch 1: top1 is"),
    ],
)
def test_a_forged_row_of_the_losses_is_named(folder, row, column, value, message):
    found = refused(folder, "loss.csv", cell(row, column, value))

    assert re.search(rf"loss\.csv: .*{message}", found)


def earlier_last(rows):
    """An earlier evaluation where the last one should be."""
    better = (rows["per"] == "evaluation") & (rows["step"] == 30)
    return pd.concat([rows[~better], rows[better]])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("loss.csv", rows(lambda r: r[r["step"] < 40]), "the last epoch ends at step 20"),
        ("loss.csv", rows(lambda r: r[(r["per"] != "epoch") | (r["step"] < 40)]), "the last epoch"),
        ("loss.csv", rows(lambda r: r[(r["per"] != "step") | (r["step"] != 9)]), "the steps are"),
        ("loss.csv", rows(lambda r: r[(r["per"] != "evaluation") | (r["step"] != 20)]), "KeyError"),
        ("loss.csv", rows(earlier_last), "metrics.json: val_loss is"),
        ("speed.csv", cell(20, "step", 9), "its steps are not those of loss.csv"),
        ("speed.csv", cell(20, "step_seconds", 0.0), "step 21: waited 0.001 of 0.0 seconds"),
        ("speed.csv", cell(20, "step_seconds", 30.0), "21: elapsed_seconds .* is less than its"),
        ("speed.csv", cell(20, "wait_seconds", 0.002), "metrics.json: wait_share is"),
        ("speed.csv", cell(20, "elapsed_seconds", 0.1), "step 21: elapsed_seconds 0.1 is less"),
        ("yardsticks.csv", rows(lambda r: r.iloc[:-1]), "yardsticks.csv: no row for 6-gram model"),
        ("yardsticks.csv", cell(0, "bits_per_byte", 0.0), "zlib: bits_per_byte must be"),
        ("sine.csv", cell(33, "decay_after", 0.0), "layer 1, feature 1: decay_after must be posi"),
        ("sine.csv", cell(0, "frequency_after", math.nan), "layer 0, feature 0: frequency_after"),
        ("samples.json", lambda text: json.dumps(json.loads(text)[:1]),
         "samples.json: no sample of the prompt 'It was '"),
        ("loss.csv", lambda _: "per,step\nstep,1\n", "cannot be computed from the records"),
        ("speed.csv", lambda _: "", "cannot be computed from the records"),
        ("metrics.json", lambda _: "[]", "cannot be computed from the records"),
        ("samples.json", lambda _: "nothing", "cannot be computed from the records"),
        ("sine.csv", lambda _: "", "cannot be computed from the records"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_are_named_and_no_table_is_a_crash(folder, name, change, message):
    assert re.search(message, refused(folder, name, change))


def test_a_training_is_told_by_perplexity_against_its_target(folder):
    perplexity = numbers_of(PAGE, folder)["tiny_corpus.respsann.perplexity"]

    assert perplexity.value == TRAINED.metrics["perplexity"]
    assert (perplexity.target, perplexity.verdict) == ("at most 8", "reached")


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"target_reached": False}, "at most 8, is **not reached**"),
        ({"best_step": 30, "best_val_loss": 1.8765},
         "lowest validation loss, 1.8765 nats a token, was at step 30 of 40"),
        ({"bits_per_byte": 1.1},
         "Fewer bits per byte than every yardstick: zlib (3.100), xz (2.600), bz2 (2.300), "
         "xz after training text (2.200), 6-gram model (1.900)."),
        ({"bits_per_byte": 2.25},
         "Fewer bits per byte than zlib (3.100), xz (2.600), bz2 (2.300); **not** fewer than "
         "xz after training text (2.200), 6-gram model (1.900)."),
        ({"bits_per_byte": 1.9},
         "xz after training text (2.200); **not** fewer than 6-gram model (1.900)."),
        ({"bits_per_byte": 3.2},
         "**No** fewer bits per byte than any yardstick: zlib (3.100)"),
    ],
)  # fmt: skip
def test_target_yardsticks_and_a_loss_that_rose_again_are_told(metrics, said):
    assert said in prose.answer(changed(TRAINED, **metrics), "a CPU")
    assert "lowest" not in prose.answer(TRAINED, "a CPU")


def test_the_network_is_a_row_among_its_yardsticks():
    first = prose.yardstick_rows(TRAINED).iloc[0]

    assert (first["model"], first["over the network's"]) == ("respsann, the network", "1.00 ×")
    assert tables.beside_yardsticks(TRAINED)["bits_per_byte"].is_monotonic_increasing


def test_sine_parameters_are_medians_with_the_span_of_most():
    table = prose.sine_rows(TRAINED)
    layer = TRAINED.sine[TRAINED.sine["layer"] == 1]["frequency_after"]

    low, high = layer.quantile([0.05, 0.95])
    assert table["f after"].iloc[1] == f"{layer.median():.3f} ({low:.3f} – {high:.3f})"
    assert "no damped sine" in prose.learned(trained(training_config(base="transformer")))


@pytest.mark.parametrize(
    "text",
    ["</p></blockquote><script>alert(1)</script>", "a\n\n```{note}\n$x$", "\x00\x1b[31m", "\ud800"],
    ids=["html", "markdown", "control", "surrogate"],
)
def test_whatever_the_network_writes_stays_text(text):
    sample = {"prompt": "<i>", "temperature": 0.8, "top_p": 0.95, "text": text}

    quote = ElementTree.fromstring(prose.samples(replace(TRAINED, samples=[sample])))

    assert [element.tag for element in quote.iter()] == ["blockquote", "p", "b", "footer"]
    words = "<i>" + re.sub(r"[\x00\x1b\ud800]", "\ufffd", text)
    assert "".join(quote.itertext()).startswith(words)


@pytest.mark.parametrize("n", [1, 240, 241, 10_000])
def test_a_line_is_short_whatever_the_number_of_steps(n):
    rows = pd.DataFrame({"at": np.arange(n, dtype=float), "train_loss": np.ones(n)})

    line = figures.binned(rows)

    together = -(-n // figures.POINTS)
    assert len(line) == -(-n // together) <= figures.POINTS
    assert line["at"].iloc[0] == (together - 1) / 2
    assert set(line["train_loss"]) == {1.0}


@pytest.mark.parametrize(
    ("seconds", "unit"), [(4, "s"), (299, "s"), (300, "min"), (17_999, "min"), (18_000, "h")]
)
def test_time_is_told_in_a_unit_that_fits(seconds, unit):
    assert figures._unit(seconds)[0] == unit


def test_figures_show_every_yardstick_every_layer_and_no_gradient_that_overflowed():
    frame = TRAINED.losses.copy()
    frame.loc[frame["step"].between(2, 4), "grad_norm"] = np.inf

    def words(figure):
        return set(re.findall(r">([^<>]+)</text>", figure.html))

    assert {*TRAINED.yardsticks["name"], "respsann"} <= words(figures.yardsticks(TRAINED))
    sines = figures.sines(TRAINED)
    assert list(sines.panels) == ["amplitude", "frequency", "decay"]
    assert {"0", "1", "before", "after"} <= words(sines)
    drawn = figures.course(replace(TRAINED, losses=frame), 1.0).html
    assert not re.search("inf|nan", drawn)
    losses = words(figures.losses(TRAINED))
    assert {"perplexity 8 (loss 2.079)", "tokens trained on", "time, s", "validation"} <= losses


@pytest.mark.parametrize(
    ("shift", "same_digits", "inside"),
    [(0.0, True, True), (1e-12, True, False), (0.004, False, True), (-0.006, False, False)],
)
def test_a_repeat_reaches_the_same_digits_or_is_near_elsewhere(folder, shift, same_digits, inside):
    row = next(n.row for n in numbers_of(PAGE, folder).values())
    request = RerunRequest(CONFIG, torch.device("cpu"), 1, print, same_digits=same_digits)
    new = changed(TRAINED, val_loss=row.values["val_loss"] + shift)

    found = PAGE.compare_again(row, request, [TRAINED], [new])

    assert [quantity.inside for quantity in found.quantities] == [inside, True, None]
    assert found.rules == ((SAME,) if same_digits else (NEAR,))


def test_a_training_comes_back_from_its_files():
    [back] = from_texts(TRAINED.texts)
    assert back.metrics == TRAINED.metrics
    assert {kind: len(back.rows(kind)) for kind in ("step", "evaluation", "epoch")} == {
        "step": 40, "evaluation": 4, "epoch": 2,
    }  # fmt: skip
