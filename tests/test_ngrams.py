"""The n-gram model, against the formula computed slowly from dictionaries."""

import math
import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from psannlm.train import ngrams
from psannlm.train.ngrams import NgramModel

WORDS = ["the", "cat", "sat", "on", "mat", "that", "was", "é", "\n"]


def prose(seed: int, n_words: int) -> bytes:
    return " ".join(random.Random(seed).choices(WORDS, k=n_words)).encode()


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

        # Sums of the same few terms in another order.
        np.testing.assert_allclose(model.probabilities(context), expected, rtol=1e-12)


@pytest.mark.parametrize("order", range(1, 9))
def test_probabilities_after_any_context_are_positive_and_sum_to_one(order):
    text = prose(1, 500)
    model = NgramModel(text, order)
    chance = random.Random(2)
    seen = [text[i : i + 9] for i in chance.choices(range(len(text)), k=30)]

    for context in seen + [chance.randbytes(chance.randint(0, 9)) for _ in range(30)]:
        found = model.probabilities(context)

        assert found.dtype == np.float64
        assert found.min() > 0
        assert math.isclose(found.sum(), 1, rel_tol=1e-12)


@pytest.mark.parametrize("order", [1, 3, 6])
def test_bits_of_a_text_are_those_of_its_bytes_one_by_one_and_of_chunks(order, monkeypatch):
    model = NgramModel(prose(3, 200), order)
    text = prose(4, 20) + b"\xff?"

    one_by_one = sum(-math.log2(model.probabilities(text[:i])[text[i]]) for i in range(len(text)))
    monkeypatch.setattr(ngrams, "CHUNK", 7)
    in_chunks = NgramModel(prose(3, 200), order).bits(text)

    assert math.isclose(model.bits(text), one_by_one, rel_tol=1e-12)
    assert math.isclose(in_chunks, one_by_one, rel_tol=1e-12)


def test_longer_grams_tell_more_of_a_text_like_the_one_counted():
    held_out = prose(8, 300)

    bits = [NgramModel(prose(7, 3000), order).bits(held_out) for order in (1, 2, 3)]

    assert bits == sorted(bits, reverse=True)
    # Which of nine words comes next is all there is to know.
    assert math.isclose(bits[-1], 300 * math.log2(9), rel_tol=0.05)


@pytest.mark.parametrize("order", [0, 9])
def test_an_order_that_no_code_holds_is_refused(order):
    with pytest.raises(ValueError, match=f"order must be 1 to 8, got {order}"):
        NgramModel(b"text", order)
