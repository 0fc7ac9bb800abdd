"""The yardsticks: compressors and an n-gram model, what each has read and what it then needs."""

import bz2
import lzma
import math
import random
import zlib
from collections import Counter, defaultdict

import numpy as np
import pytest

from psannlm.config.schema import ConfigError
from psannlm.train import compression
from psannlm.train.compression import NgramModel, Yardstick, yardsticks

WORDS = ["the", "cat", "sat", "on", "mat", "that", "was", "é", "\n"]


def prose(seed: int, n_words: int) -> bytes:
    return " ".join(random.Random(seed).choices(WORDS, k=n_words)).encode()


def noise(seed: int, n_bytes: int) -> str:
    """Six bits a byte, and no two stretches alike."""
    letters = [chr(code) for code in range(48, 112)]
    return "".join(random.Random(seed).choices(letters, k=n_bytes))


def measured(training: str, held_out: str, order: int = 6) -> dict[str, Yardstick]:
    return {y.name: y for y in yardsticks([training], [held_out], order=order)}


def test_every_method_needs_what_its_output_measures():
    text = prose(0, 3000)

    found = measured("other text", text.decode())

    n, strongest = len(text), 9 | lzma.PRESET_EXTREME
    bits = {
        "zlib": 8 * len(zlib.compress(text, 9)),
        "bz2": 8 * len(bz2.compress(text, 9)),
        "xz": 8 * len(lzma.compress(text, preset=strongest)),
        "6-gram model": NgramModel(b"other text", 6).bits(text),
    }
    assert {name: found[name].bits_per_byte for name in bits} == {k: b / n for k, b in bits.items()}
    assert [y.training_bytes for y in found.values()] == [0, 0, 0, 10, 10]
    assert all(y.seconds > 0 for y in found.values())


def test_xz_finds_again_what_it_has_read_and_gains_nothing_from_another_text(monkeypatch):
    text, first = noise(1, 4000), noise(6, 5000)

    found = measured(noise(2, 3000) + text + noise(3, 3000), text)
    other = measured(noise(4, 20_000), noise(5, 20_000))

    assert found["xz"].bits_per_byte > 6
    assert 0 < found["xz after training text"].bits_per_byte < 0.1
    assert 6 < other["xz after training text"].bits_per_byte < 6.2
    monkeypatch.setattr(compression, "MAX_XZ_TRAINING_BYTES", 4000)  # it reads the last of it
    for again, low, high in ((text, 0, 0.1), (first, 6, 8)):
        yardstick = measured(first + text, again)["xz after training text"]
        assert low < yardstick.bits_per_byte < high
        assert yardstick.training_bytes == 4000


def test_no_more_of_the_training_text_is_read_than_is_used(monkeypatch):
    def documents():
        yield "a" * 30
        yield "é" * 30
        raise AssertionError("read on")

    monkeypatch.setattr(compression, "MAX_TRAINING_BYTES", 61)
    found = yardsticks(documents(), ["abc"], order=6)

    assert {y.training_bytes for y in found} == {0, 61}


@pytest.mark.parametrize(
    ("training", "held_out", "what"), [([], ["a"], "training"), (["a"], ["", ""], "held-out")]
)
def test_an_empty_text_is_refused_by_its_name(training, held_out, what):
    with pytest.raises(ConfigError, match=f"the {what} split must hold text, got none"):
        yardsticks(training, held_out, order=6)
    assert all(y.bits_per_byte > 0 for y in yardsticks(["a"], ["b"], order=6))


class SlowModel:
    """Interpolated modified Kneser-Ney, gram by gram, as Chen and Goodman write it."""

    def __init__(self, text: bytes, order: int) -> None:
        self.order = order
        data = b"\n" * (order - 1) + text
        self.counts = {order: Counter(data[i : i + order] for i in range(len(text)))}
        for length in range(order - 1, 0, -1):
            self.counts[length] = Counter(gram[1:] for gram in self.counts[length + 1])
        self.discounts = {k: self.discounts_of(counts) for k, counts in self.counts.items()}
        self.after = defaultdict(dict)
        for counts in self.counts.values():
            for gram, count in counts.items():
                self.after[gram[:-1], len(gram)][gram] = count

    @staticmethod
    def discounts_of(counts: Counter) -> list[float]:
        n = [sum(1 for c in counts.values() if c == k) for k in (1, 2, 3, 4)]
        if 0 in n:
            return [0.5] * 3
        y = n[0] / (n[0] + 2 * n[1])
        raw = [k - (k + 1) * y * n[k] / n[k - 1] for k in (1, 2, 3)]
        return [min(max(d, 0.01), k) for k, d in enumerate(raw, start=1)]

    def probability(self, gram: bytes) -> float:
        if not gram:
            return 1 / 256
        shorter = self.probability(gram[1:])
        siblings = self.after[gram[:-1], len(gram)]
        if not siblings:
            return shorter
        discounts = self.discounts[len(gram)]
        total = sum(siblings.values())
        taken = sum(discounts[min(c, 3) - 1] for c in siblings.values())
        count = siblings.get(gram, 0)
        own = count - discounts[min(count, 3) - 1] if count else 0
        return own / total + taken / total * shorter


@pytest.mark.parametrize("order", range(1, 9))
@pytest.mark.parametrize("n_words", [3, 300])
def test_probabilities_are_those_of_the_formula(order, n_words):
    text = prose(0, n_words)
    model, slow = NgramModel(text, order), SlowModel(text, order)
    contexts = [b"", b"t", b"the c", b"zzz", b"a\xff\0", text[-9:], text[:1]]

    for context in contexts:
        before = (b"\n" * order + context)[-order + 1 :] if order > 1 else b""
        expected = [slow.probability(before + bytes([byte])) for byte in range(256)]

        alone = model.bits(context)
        found = [2 ** (alone - model.bits(context + bytes([byte]))) for byte in range(256)]
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("order", [1, 3, 6])
def test_bits_of_a_text_are_those_of_its_chunks(order, monkeypatch):
    text = prose(4, 20) + b"\xff?"
    whole = NgramModel(prose(3, 200), order).bits(text)

    monkeypatch.setattr(compression, "CHUNK", 7)

    assert math.isclose(NgramModel(prose(3, 200), order).bits(text), whole, rel_tol=1e-12)
