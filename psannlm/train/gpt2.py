"""Ranks of byte pairs, as GPT-2's tokenizer is published, and the merges that lie behind them."""

import base64
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

from psannlm.config.schema import ConfigError

N_BYTES = 256


class RanksError(ConfigError):
    """A file of ranks that cannot be used; names the file and the rule it breaks."""


def read_ranks(path: Path) -> dict[bytes, int]:
    """Rank of each token, which is its id.

    Args:
        path: A line a token: its bytes in base64, a space, its rank.

    Raises:
        RanksError: The file cannot be read, or its lines are not ranks 0, 1, 2, ... of tokens,
            all single bytes among them.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RanksError(
            f"{path} cannot be read as ranks: {error}; give a file in the form of gpt2.tiktoken"
        ) from None
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(lines, start=1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError:
            raise RanksError(
                f"{path}: line {number} must be a token in base64, a space and its rank, "
                f"got {line[:40]!r}; give a file in the form of gpt2.tiktoken"
            ) from None
    if sorted(ranks.values()) != list(range(len(lines))):
        raise RanksError(
            f"{path} must rank its tokens 0 to {len(lines) - 1}, each once, and does not; "
            "give the whole file"
        )
    if missing := [byte for byte in range(N_BYTES) if bytes([byte]) not in ranks]:
        raise RanksError(
            f"{path} must rank all 256 bytes, {len(missing)} are missing; give the whole file"
        )
    return ranks


def merges_of(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """The two tokens that each longer token was merged from, in the order of its rank.

    A token came to be when all merges of lower rank had been made, so applying these to its bytes
    leaves two parts.

    Raises:
        RanksError: More than two parts are left of a token.
    """
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) > 1:
            parts = _parts(ranks, token)
            if len(parts) != 2:
                raise RanksError(
                    f"ranks must be those of byte pairs, but {token!r} of rank {ranks[token]} is "
                    f"no pair of tokens of lower rank; give a file in the form of gpt2.tiktoken"
                )
            yield parts[0], parts[1]


def _parts(ranks: Mapping[bytes, int], token: bytes) -> list[bytes]:
    """What is left of `token` once all merges before its own are made, lowest rank first."""
    parts = [bytes([byte]) for byte in token]
    while True:
        pairs = [ranks.get(a + b, len(ranks)) for a, b in itertools.pairwise(parts)]
        if not pairs or min(pairs) >= ranks[token]:
            return parts
        at = pairs.index(min(pairs))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
