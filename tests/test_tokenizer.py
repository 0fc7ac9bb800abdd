"""Tokenizers: whatever text goes in comes out, and ids mean what they say."""

import base64
import hashlib
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers

from psannlm import ROOT
from psannlm.config.schema import ConfigError
from psannlm.train.tokenizer import (
    END_OF_TEXT,
    Tokenizer,
    byte_tokenizer,
    gpt2_tokenizer,
    merges_of,
    pieces,
    read_ranks,
    train_bpe,
)

TEXT = "the cat and the other cat sat there,  and that was that\n\n   so\n" * 3
LONGER = [
    b"  ", b"   ", b"\n\n", b"\n ", b"th", b"at", b"he", b" th", b"the", b"cat", b" the",
    "é".encode(),
]  # fmt: skip
KINDS = ["bytes", "bpe", "gpt2"]
each_kind = pytest.mark.parametrize("kind", KINDS)


# A file that ranks all bytes.
RANKED = "".join(f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256))


def write_ranks(path: Path, longer: list[bytes]) -> Path:
    """A file that ranks all bytes and then the tokens of `longer`."""
    lines = [f"{base64.b64encode(t).decode()} {rank}\n" for rank, t in enumerate(longer, 256)]
    path.write_text(RANKED + "".join(lines))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    gpt2 = gpt2_tokenizer(write_ranks(tmp_path_factory.mktemp("ranks") / "ranks", LONGER))
    return {"bytes": byte_tokenizer(), "bpe": train_bpe([TEXT], 270), "gpt2": gpt2}


def wild_text(chance: random.Random, length: int) -> str:
    """Letters, white space of all sorts, combining marks, emoji, controls, any code point."""
    common = (
        "aet th's  \n\n\r\n\t\x00\x1c\x1f\x85\xa0\u2028é日本\u0301\u200d👩🏽\ufeff" + END_OF_TEXT
    )
    surrogates = range(0xD800, 0xE000)
    rare = [c for c in chance.choices(range(0x110000), k=length) if c not in surrogates]
    return "".join(
        chance.choice(common) if chance.random() < 0.9 else chr(chance.choice(rare))
        for _ in range(length)
    )


@each_kind
def test_any_text_comes_back_unchanged_and_half_a_character_is_shown_as_such(made, kind):
    tokenizer, chance = made[kind], random.Random(0)
    texts = ["", "\r\n", "👩🏽‍🚀 e\u0301\u0301", *(wild_text(chance, 60) for _ in range(50))]

    back = [tokenizer.decode(ids) for ids in tokenizer.encode_batch(texts)]

    assert back == texts
    half = tokenizer.encode("日")[:-1]
    assert tokenizer.decode([*half, *tokenizer.encode("a")]) == "\ufffda"
    with pytest.raises(ConfigError, match="lone surrogate at character 2"):
        tokenizer.encode("ab\udc80")


@each_kind
def test_end_of_text_is_the_last_id_stands_for_nothing_and_is_not_made_by_its_name(made, kind):
    tokenizer, text = made[kind], f"one{END_OF_TEXT}two"
    end = tokenizer.end_of_text

    assert end == tokenizer.vocab_size - 1
    assert tokenizer.decode([*tokenizer.encode("a"), end, *tokenizer.encode("b")]) == "ab"
    assert end not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    for wrong in (-1, end + 1, end + 1000):
        with pytest.raises(ConfigError, match=f"must be from 0 to .*, got {wrong}"):
            tokenizer.decode([0, wrong])


@each_kind
def test_a_saved_tokenizer_is_the_same_tokenizer_also_to_the_library(made, kind, tmp_path):
    path, text = tmp_path / "tokenizer.json", wild_text(random.Random(1), 300)
    made[kind].save(path)
    loaded = Tokenizer.load(path)
    loaded.save(tmp_path / "again.json")
    library = tokenizers.Tokenizer.from_file(str(path))

    assert loaded.kind == made[kind].kind == kind
    assert loaded.vocab_size == made[kind].vocab_size
    assert loaded.encode(text) == made[kind].encode(text)
    assert loaded.sha256 == made[kind].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    text = text.replace(END_OF_TEXT, "")
    assert library.encode(text).ids == made[kind].encode(text)
    assert library.token_to_id(END_OF_TEXT) == made[kind].end_of_text


def test_the_pair_that_stands_most_often_is_merged_first_however_a_text_is_cut():
    tokenizer, texts = train_bpe(["qz qz qzx xy"], 258), [wild_text(random.Random(0), 9000)]

    assert tokenizer.decode([256]) == "qz"
    assert len(tokenizer.encode("qzqz")) == 2
    assert train_bpe(texts, 400).sha256 == train_bpe(iter(texts), 400).sha256
    assert train_bpe(pieces(TEXT, 5), 275).sha256 == train_bpe([TEXT], 275).sha256


def test_more_or_fewer_ids_than_the_text_supports_are_refused_with_their_number():
    with pytest.raises(ConfigError, match=r"at most (\d+) for this text, got 5000") as refusal:
        train_bpe([TEXT], 5000)
    supported = int(str(refusal.value).split("at most ")[1].split()[0])

    for vocab_size in (257, 258, supported):
        assert train_bpe([TEXT], vocab_size).vocab_size == vocab_size
    for text, asked, message in (
        (TEXT, supported + 1, f"at most {supported} "),
        ("abcdefg", 258, "at most 257 "),  # no pair stands there twice
        (TEXT, 256, "at least 257 for 256 bytes and end of text, got 256"),
    ):
        with pytest.raises(ConfigError, match=message):
            train_bpe([text], asked)


@each_kind
def test_the_ids_of_pieces_are_the_ids_of_the_text(made, kind):
    text = wild_text(random.Random(3), 3000)

    for n_characters in (1, 3, 50):
        cut = list(pieces(text, n_characters))

        assert len(cut) > 20
        assert "".join(cut) == text
        assert list(itertools.chain(*made[kind].encode_batch(cut))) == made[kind].encode(text)
    assert list(pieces("x" * 50, 3)) == ["x" * 50]


@pytest.mark.parametrize(
    ("longer", "merges"),
    [
        # `the` stands as t, he when its turn comes: he has the lower rank, so th never forms in it.
        (["he", "in", "th", "the", "inthe"], ["h e", "i n", "t h", "t he", "in the"]),
        (["aa", "aaa"], ["a a", "aa a"]),  # of two equal pairs the first
    ],
)
def test_merges_are_found_in_the_order_of_their_ranks(tmp_path, longer, merges):
    ranks = read_ranks(write_ranks(tmp_path / "ranks", [token.encode() for token in longer]))

    assert [b" ".join(pair).decode() for pair in merges_of(ranks)] == merges


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *((f"{RANKED}{line}\n", "line 257 must be") for line in ("", "IQ==", "IQ== x", "I Q 0")),
        (f"{RANKED}!!!! 3\n", "line 257 must be"),
        (f"{RANKED}é 3\n", "cannot be read as ranks"),
        (RANKED.replace(" 0\n", " 256\n"), "must rank its tokens 0 to 255, each once"),
        (f"{RANKED}YQ== 256\n", "must rank its tokens 0 to 256, each once"),
        ("YQ== 0\nYg== 1\n", "must rank all 256 bytes, 254 are missing"),
        (f"{RANKED}YWJj 256\n", "b'abc' of rank 256 is no pair of tokens of lower rank"),
    ],
)
def test_a_file_of_no_ranks_of_byte_pairs_is_refused_by_its_rule(tmp_path, content, message):
    (tmp_path / "ranks").write_text(content)

    with pytest.raises(ConfigError, match=message):
        gpt2_tokenizer(tmp_path / "ranks")


@pytest.mark.parametrize(
    ("special", "reason"), [([], "is not its last id"), ([END_OF_TEXT], "256 of 256 bytes"),
                            ([END_OF_TEXT, "a"], "last id"), (None, "EOF")],
)  # fmt: skip
def test_what_is_no_tokenizer_of_ours_is_refused(tmp_path, special, reason):
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.add_special_tokens(special or [])
    content = "{" if special is None else library.to_str()
    (tmp_path / "tokenizer.json").write_text(content)

    with pytest.raises(ConfigError, match=f"must be byte-level BPE.*{reason}"):
        Tokenizer.load(tmp_path / "tokenizer.json")
    with pytest.raises(ConfigError, match=r"other\.json cannot be read"):
        Tokenizer.load(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "its normalizer is .*Lowercase"),
        ({"pre_tokenizer": None}, "its pre_tokenizer is None"),
        ({"padding": None, "truncation": {"direction": "Right", "max_length": 9,
          "strategy": "LongestFirst", "stride": 0}}, "its truncation is"),
        ({"added_tokens": []}, "other added tokens"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)  # fmt: skip
def test_a_tokenizer_that_treats_text_otherwise_is_refused(made, tmp_path, change, reason):
    made["bpe"].save(tmp_path / "tokenizer.json")
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["model"]["vocab"][END_OF_TEXT] = made["bpe"].end_of_text

    with pytest.raises(ConfigError, match=reason):
        Tokenizer(json.dumps(content | change))
    content["added_tokens"][0]["id"] += 1
    content["model"]["vocab"][END_OF_TEXT] += 1
    with pytest.raises(ConfigError, match="ids are not 0, 1, 2"):
        Tokenizer(json.dumps(content))


FORKED = """
import os
from psannlm.train.tokenizer import train_bpe
tokenizer = train_bpe(["the cat sat " * 50] * 50, 260)
before = tokenizer.encode_batch(["the cat"] * 100)
if (child := os.fork()) == 0:
    os._exit(tokenizer.encode_batch(["the cat"] * 100) != before)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_process_that_forks_is_neither_warned_nor_stuck():
    done = subprocess.run(
        [sys.executable, "-c", FORKED], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, done.stderr) == (0, "")
