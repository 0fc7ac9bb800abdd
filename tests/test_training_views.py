"""What people read of a training is what its files hold, and nothing it wrote breaks the page."""

import dataclasses
import math
import re
from html.parser import HTMLParser

import pytest

from psannlm.pages.tiny_corpus import prose as training_views
from tests.trainings import trained, training_config

CONFIG = training_config()
TRAINED = trained(CONFIG)
MANIFEST = {
    "run": "20260101_000000",
    "preset": "cpu",
    "environment": {"device": "a CPU"},
    "command": "papermill x y",
}


def changed(**metrics):
    return dataclasses.replace(TRAINED, metrics={**TRAINED.metrics, **metrics})


def said(result=TRAINED):
    return training_views.answer(result, MANIFEST)


def test_the_answer_states_perplexity_target_and_verdict():
    assert f"**{TRAINED.metrics['perplexity']:.2f}** (respsann)" in said()
    assert "at most 8, is **reached**" in said()
    assert "is **not reached**" in said(changed(target_reached=False))


def test_the_target_is_told_in_bits_per_byte_of_this_tokenizer():
    expected = math.log2(8) / TRAINED.metrics["bytes_per_token"]

    assert f"A perplexity of 8 is {expected:.3f} bits per byte under this tokenizer" in said()
    assert f"**{TRAINED.metrics['bits_per_byte']:.3f} bits per byte**, at 2.50 bytes" in said()


@pytest.mark.parametrize(
    ("bits", "verdict"),
    [
        (1.1, "Fewer bits per byte than every yardstick: zlib (3.100), xz (2.600), bz2 (2.300), "
              "xz after training text (2.200), 6-gram model (1.900)."),
        (2.25, "Fewer bits per byte than zlib (3.100), xz (2.600), bz2 (2.300); **not** fewer "
               "than xz after training text (2.200), 6-gram model (1.900)."),
        (1.9, "xz after training text (2.200); **not** fewer than 6-gram model (1.900)."),
        (3.2, "**No** fewer bits per byte than any yardstick: zlib (3.100)"),
    ],
)  # fmt: skip
def test_every_yardstick_is_told_to_be_beaten_or_not(bits, verdict):
    assert verdict in said(changed(bits_per_byte=bits))


def test_a_loss_that_rose_again_is_said():
    risen = changed(best_step=30, best_val_loss=1.8765)

    assert "lowest validation loss, 1.8765 nats a token, was at step 30 of 40" in said(risen)
    assert "lowest" not in said()


def test_epochs_are_as_they_are_in_the_file():
    table = training_views.epoch_rows(TRAINED)

    assert list(table["epoch"]) == ["1", "2"]
    assert list(table["tokens"]) == ["1,280", "2,560"]
    assert table["perplexity"].iloc[-1] == f"{TRAINED.metrics['perplexity']:.2f}"


def test_the_network_is_a_row_among_its_yardsticks():
    table = training_views.yardstick_rows(TRAINED)

    assert table["model"].iloc[0] == "respsann, the network"
    assert table["over the network's"].iloc[0] == "1.00 ×"
    ngram = table[table["model"] == "6-gram model"].iloc[0]
    assert ngram["over the network's"] == f"{1.9 / TRAINED.metrics['bits_per_byte']:.2f} ×"
    network = f"{TRAINED.metrics['train_split_bytes']:,}"
    assert list(table["read before, bytes"]) == [network, "5,000", "5,000", "0", "0", "0"]


def test_facts_leave_no_unknown_number_to_guess():
    on_cpu = training_views.facts(changed(mfu=None))
    on_gpu = training_views.facts(changed(peak_allocated_mib=1234.5, n_ranks=2))

    assert on_cpu["MFU"] == "— of the measured ceiling"
    assert "GPU" not in on_cpu["peak memory"]
    assert on_gpu["peak memory"].endswith("1,234 MiB allocated on the GPU")
    assert on_gpu["ranks"] == "2, by ddp"


def test_sine_parameters_are_medians_with_the_span_of_most():
    table = training_views.sine_rows(TRAINED)
    layer = TRAINED.sine[TRAINED.sine["layer"] == 1]["frequency_after"]

    assert list(table["layer"]) == ["0", "1"]
    assert set(table["A before"]) == {"1.000"}
    low, high = layer.quantile([0.05, 0.95])
    assert table["f after"].iloc[1] == f"{layer.median():.3f} ({low:.3f} – {high:.3f})"


def test_a_base_without_a_sine_says_so():
    plain = trained(training_config(base="transformer"))

    assert "transformer has no damped sine" in training_views.learned(plain)
    assert "<table" in training_views.learned(TRAINED)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.words = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.words += data


@pytest.mark.parametrize(
    "text",
    ["</p></blockquote><script>alert(1)</script>", "a\n\n```{note}\n$x$", "\x00\x1b[31m", "\ud800"],
    ids=["html", "markdown", "control", "surrogate"],
)
def test_whatever_the_network_writes_stays_text(text):
    sample = {"prompt": "<i>", "temperature": 0.8, "top_p": 0.95, "text": text}

    shown = training_views.samples(dataclasses.replace(TRAINED, samples=[sample]))

    tags = Tags()
    tags.feed(shown)
    assert tags.tags == ["blockquote", "p", "b", "footer"]
    assert tags.words.startswith("<i>" + re.sub(r"[\x00\x1b\ud800]", "\ufffd", text))
    shown.encode()


def test_no_prompt_makes_no_sample():
    assert "No prompt" in training_views.samples(dataclasses.replace(TRAINED, samples=[]))


def test_the_part_of_the_text_that_was_trained_on_is_said():
    part = training_views.reading(TRAINED, CONFIG)
    whole = training_views.reading(TRAINED, training_config(train_megabytes=0.0))

    assert "the first 0.3 MB of the training split, no more" in part
    assert "the whole training split" in whole


def test_the_readme_of_a_run_has_the_answer_and_a_row_an_epoch():
    [(name, text)] = training_views.files(TRAINED, MANIFEST).items()

    assert name == "README.md"
    assert said() in text
    assert text.count("\n| 1 |") == text.count("\n| 2 |") == 1
    assert "Made by `papermill x y`." in text
