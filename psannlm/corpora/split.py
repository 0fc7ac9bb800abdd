"""Which documents are trained on and which are held out: whole documents, drawn by a seed."""

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from psannlm.config.schema import ConfigError
from psannlm.corpora.recipe import SPLITS, Split

SLACK = 0.25
"""By what fraction of its target a split may be over."""


@dataclass(frozen=True)
class Candidate:
    """A document as the split sees it."""

    title: str
    source: str
    n_bytes: int
    fixed: Split | None = None


def assign(
    documents: Sequence[Candidate], *, validation: float, test: float, seed: int
) -> list[Split]:
    """A split for each document.

    Every source is a stratum: each held-out split takes its share of each source's bytes, as far
    as whole documents allow. Which documents those are depends on the seed and on the titles and
    sizes of the source's own documents alone.

    Args:
        documents: In any order.
        validation: Fraction of a source's bytes to be held out for validation.
        test: And for test.
        seed: Of the drawing.

    Raises:
        ConfigError: Too few documents for a split that is to have some.
    """
    chosen: list[Split] = [document.fixed or "train" for document in documents]
    free = [i for i, document in enumerate(documents) if document.fixed is None]
    order = [i for i in shuffled(documents, seed) if documents[i].fixed is None]
    for split, fraction in (("validation", validation), ("test", test)):
        for source in dict.fromkeys(documents[i].source for i in free):
            stratum = [i for i in order if documents[i].source == source]
            target = fraction * sum(documents[i].n_bytes for i in stratum)
            left = [i for i in stratum if chosen[i] == "train"]
            for i in _drawn(left, [documents[i].n_bytes for i in left], target):
                chosen[i] = split  # type: ignore[call-overload]
    _fill_empty(documents, order, chosen, {"validation": validation, "test": test})
    return chosen


def _drawn(order: Sequence[int], sizes: Sequence[int], target: float) -> list[int]:
    """Documents in drawn order that fit into what is left of the target; the last one stays."""
    drawn: list[int] = []
    total = 0
    for i, size in zip(order[:-1], sizes[:-1], strict=True):
        if total >= target:
            break
        if total + size <= (1 + SLACK) * target:
            drawn.append(i)
            total += size
    return drawn


def _fill_empty(
    documents: Sequence[Candidate],
    order: Sequence[int],
    chosen: list[Split],
    fractions: dict[Split, float],
) -> None:
    """Give a split that fits no document the smallest one there is."""
    for split, fraction in fractions.items():
        if not fraction or split in chosen:
            continue
        left = [i for i in order if chosen[i] == "train"]
        if chosen.count("train") < 2 or not left:
            raise ConfigError(
                f"a corpus must have at least {len(SPLITS)} documents, so that train, validation "
                f"and test each have one, got {len(documents)}; add text, or shorten documents"
            )
        chosen[min(left, key=lambda i: documents[i].n_bytes)] = split


def shuffled(documents: Sequence[Candidate], seed: int) -> list[int]:
    """Indices of the documents in an order drawn by the seed, whatever their order is.

    Those of equal title and source are drawn one after the other.
    """
    seen: Counter[tuple[str, str]] = Counter()
    keys = []
    for document in documents:
        name = document.source, document.title
        keys.append(_random_key(seed, *name, seen[name]))
        seen[name] += 1
    return sorted(range(len(documents)), key=keys.__getitem__)


def _random_key(*parts: Hashable) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def assign_blocks(n_blocks: int, *, seed: int) -> Iterable[Split]:
    """Splits of equal parts: one in twenty for validation, as many for test, at least one each."""
    order = sorted(range(n_blocks), key=lambda i: _random_key(seed, i))
    share = max(1, n_blocks // 20)
    place = {i: rank for rank, i in enumerate(order)}
    for i in range(n_blocks):
        yield "validation" if place[i] < share else "test" if place[i] < 2 * share else "train"
