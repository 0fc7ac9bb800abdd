"""Ranks read from a file, and the merges found behind them."""

import base64
from pathlib import Path

import pytest

from psannlm.train.gpt2 import RanksError, merges_of, read_ranks

BYTES = [bytes([byte]) for byte in range(256)]


def write_ranks(path: Path, longer: list[bytes], first: int = 0) -> Path:
    """A file that ranks all bytes and then the tokens of `longer`."""
    lines = [
        f"{base64.b64encode(token).decode()} {rank}"
        for rank, token in enumerate(BYTES + longer, start=first)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_token_has_the_rank_of_its_line(tmp_path):
    ranks = read_ranks(write_ranks(tmp_path / "ranks", [b"in", b" in"]))

    assert len(ranks) == 258
    assert ranks[b"\xff"] == 255
    assert ranks[b" in"] == 257


def test_merges_are_found_in_the_order_of_their_ranks(tmp_path):
    ranks = read_ranks(write_ranks(tmp_path / "ranks", [b"he", b"in", b"th", b"the", b"inthe"]))

    merges = list(merges_of(ranks))

    # `the` stands as t, he when its turn comes: he has the lower rank, so th never forms in it.
    assert merges == [(b"h", b"e"), (b"i", b"n"), (b"t", b"h"), (b"t", b"he"), (b"in", b"the")]


def test_of_two_equal_pairs_the_first_is_merged(tmp_path):
    ranks = read_ranks(write_ranks(tmp_path / "ranks", [b"aa", b"aaa"]))

    assert list(merges_of(ranks)) == [(b"a", b"a"), (b"aa", b"a")]


def test_a_token_that_is_no_pair_is_refused(tmp_path):
    ranks = read_ranks(write_ranks(tmp_path / "ranks", [b"abc"]))

    with pytest.raises(RanksError, match=r"b'abc' of rank 256 is no pair of tokens of lower rank"):
        list(merges_of(ranks))


@pytest.mark.parametrize("line", ["", "IQ==", "IQ== x", "I Q 0", "é 3", "!!!! 3"])
def test_a_line_that_is_no_rank_is_refused_by_its_number(tmp_path, line):
    path = write_ranks(tmp_path / "ranks", [])
    path.write_bytes(path.read_bytes() + line.encode() + b"\n")

    with pytest.raises(RanksError, match=r"line 257 must be|cannot be read as ranks"):
        read_ranks(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RanksError, match="nowhere cannot be read as ranks"):
        read_ranks(tmp_path / "nowhere")


def test_ranks_with_a_gap_are_refused(tmp_path):
    with pytest.raises(RanksError, match="must rank its tokens 0 to 255, each once"):
        read_ranks(write_ranks(tmp_path / "ranks", [], first=1))


def test_a_token_ranked_twice_is_refused(tmp_path):
    with pytest.raises(RanksError, match="must rank its tokens 0 to 256, each once"):
        read_ranks(write_ranks(tmp_path / "ranks", [b"a"]))


def test_a_file_without_all_bytes_is_refused(tmp_path):
    path = tmp_path / "ranks"
    path.write_text("YQ== 0\nYg== 1\n")

    with pytest.raises(RanksError, match="must rank all 256 bytes, 254 are missing"):
        read_ranks(path)
