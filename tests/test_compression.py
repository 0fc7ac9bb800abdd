"""The yardsticks: what each has read, and what it then needs."""

import bz2
import lzma
import math
import random
import zlib

import pytest

from psannlm.config.schema import ConfigError
from psannlm.train import compression
from psannlm.train.compression import Yardstick, yardsticks
from psannlm.train.ngrams import NgramModel
from tests.test_ngrams import prose


def noise(seed: int, n_bytes: int) -> str:
    """Six bits a byte, and no two stretches alike."""
    letters = [chr(code) for code in range(48, 112)]
    return "".join(random.Random(seed).choices(letters, k=n_bytes))


def measured(training: str, held_out: str, **options) -> dict[str, Yardstick]:
    return {y.name: y for y in yardsticks([training], [held_out], **options)}


def test_compressors_alone_need_what_their_output_measures():
    text = prose(0, 3000)

    found = measured("other text", text.decode())

    n = len(text)
    assert found["zlib"].bits_per_byte == 8 * len(zlib.compress(text, 9)) / n
    assert found["bz2"].bits_per_byte == 8 * len(bz2.compress(text, 9)) / n
    assert {name: y.training_bytes for name, y in found.items()} == {
        "zlib": 0, "bz2": 0, "xz": 0, "xz after training text": 10, "6-gram model": 10,
    }  # fmt: skip
    assert [y.sees_training_text for y in found.values()] == [False, False, False, True, True]
    assert all(y.seconds > 0 for y in found.values())
    strongest = 9 | lzma.PRESET_EXTREME
    assert found["xz"].bits_per_byte == 8 * len(lzma.compress(text, preset=strongest)) / n


def test_xz_finds_again_what_it_has_read_and_gains_nothing_from_another_text():
    text = noise(1, 4000)

    found = measured(noise(2, 3000) + text + noise(3, 3000), text)
    other = measured(noise(4, 20_000), noise(5, 20_000))

    assert found["xz"].bits_per_byte > 6
    assert 0 < found["xz after training text"].bits_per_byte < 0.1
    assert 6 < other["xz after training text"].bits_per_byte < 6.2


def test_xz_reads_the_last_of_a_training_text_too_long_for_it(monkeypatch):
    monkeypatch.setattr(compression, "MAX_XZ_TRAINING_BYTES", 5000)
    first, last = noise(6, 5000), noise(7, 5000)

    assert measured(first + last, last)["xz after training text"].bits_per_byte < 0.1
    assert measured(first + last, first)["xz after training text"].bits_per_byte > 6
    assert measured(first + last, last)["xz after training text"].training_bytes == 5000


@pytest.mark.parametrize("order", [2, 5])
def test_the_ngram_model_learns_from_the_training_text(order):
    training, held_out = prose(8, 2000), prose(9, 100)

    found = measured(training.decode(), held_out.decode(), order=order)[f"{order}-gram model"]

    expected = NgramModel(training, order).bits(held_out) / len(held_out)
    assert math.isclose(found.bits_per_byte, expected)


def test_no_more_of_the_training_text_is_read_than_is_used():
    def documents():
        yield "a" * 30
        yield "é" * 30
        raise AssertionError("read on")

    found = yardsticks(documents(), ["abc"], max_training_bytes=61)

    assert {y.training_bytes for y in found} == {0, 61}


@pytest.mark.parametrize(
    ("training", "held_out", "what"), [([], ["a"], "training"), (["a"], ["", ""], "held-out")]
)
def test_an_empty_text_is_refused_by_its_name(training, held_out, what):
    with pytest.raises(ConfigError, match=f"the {what} split must hold text, got none"):
        yardsticks(training, held_out)
    assert all(y.bits_per_byte > 0 for y in yardsticks(["a"], ["b"]))
