"""Splits take whole documents of every source, and depend on nothing but them and the seed."""

from collections import Counter

import pytest

from psannlm.config.schema import ConfigError
from psannlm.corpora.split import SLACK, Candidate, assign, assign_blocks

SOURCES = {"novels": [40, 90, 150, 400, 900, 1200], "letters": [10] * 80, "verse": [70] * 300}
DOCUMENTS = [
    Candidate(f"{source} {i}", source, n_bytes)
    for source, sizes in SOURCES.items()
    for i, n_bytes in enumerate(sizes)
]


def split(documents=DOCUMENTS, seed=0, validation=0.05, test=0.05):
    return assign(documents, validation=validation, test=test, seed=seed)


@pytest.mark.parametrize("seed", range(8))
def test_held_out_splits_take_about_their_share_of_every_source(seed):
    held_out = Counter()
    for document, name in zip(DOCUMENTS, split(seed=seed), strict=True):
        held_out[document.source, name] += document.n_bytes

    for source, sizes in SOURCES.items():
        least = 0 if source == "novels" else 0.05  # a single novel may be more than its share
        for name in ("validation", "test"):
            share = held_out[source, name] / sum(sizes)
            assert least <= share <= (1 + SLACK) * 0.05


def test_the_same_seed_draws_the_same_documents_and_another_seed_others():
    assert split(seed=1) == split(seed=1) != split(seed=2)


def test_each_source_is_drawn_from_as_if_it_were_alone():
    alone = [d for d in DOCUMENTS if d.source == "verse"]

    assert split(alone) == split(DOCUMENTS)[-len(alone) :]


def test_documents_of_one_title_are_drawn_one_by_one():
    chosen = split([Candidate("part", "s", 10)] * 200)
    first = [i for i, name in enumerate(chosen) if name == "validation"]

    assert len(first) == 10
    assert max(first) - min(first) > 50


def test_a_fixed_split_stays():
    documents = [Candidate("a", "s", 10, "test"), *DOCUMENTS, Candidate("b", "s", 10, "train")]

    assert split(documents)[:: len(documents) - 1] == ["test", "train"]


def test_few_documents_and_fractions_of_zero_are_shared_out():
    equal = [Candidate(str(i), "s", 1) for i in range(4)]
    unequal = [Candidate("a", "s", 500), Candidate("b", "s", 300), Candidate("c", "s", 400)]

    held_out = Counter(split(equal, validation=0.45, test=0.45))
    assert held_out == {"validation": 2, "test": 1, "train": 1}, "something to train on"
    assert split(unequal) == ["train", "validation", "test"], "the smallest where nothing fits"
    assert set(split(validation=0.0, test=0.0)) == {"train"}


def test_two_documents_are_too_few():
    with pytest.raises(ConfigError, match=r"at least 3 documents, .* got 2; add text"):
        split(DOCUMENTS[:2])


@pytest.mark.parametrize("n_blocks", [3, 50, 1000])
def test_blocks_are_held_out_one_in_twenty_and_scattered(n_blocks):
    chosen = list(assign_blocks(n_blocks, seed=0))
    counts = Counter(chosen)
    quarters = [Counter(chosen[i : i + 250])["validation"] for i in range(0, n_blocks, 250)]

    assert counts["validation"] == counts["test"] == max(1, n_blocks // 20)
    assert counts["train"] == n_blocks - counts["validation"] - counts["test"] > 0
    assert n_blocks < 1000 or all(4 <= n <= 25 for n in quarters)
    assert chosen != list(assign_blocks(n_blocks, seed=1))
