"""The comparison with the published package: which processes there are, and what comes of each."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from psannlm import CACHE
from psannlm.bench.peer_cells import PeerCell, ProtocolCell
from psannlm.peer_config import PeerConfig


class Cell(NamedTuple):
    """What one process measures, and its place in the run; each work of the run in turn."""

    repeat: int
    order: int
    side: str
    base: str
    setting: str
    precision: str


def plan(config: PeerConfig) -> list[Cell]:
    """All cells, in the order in which they run."""
    raise NotImplementedError


def compare(
    config: PeerConfig,
    *,
    done: Collection[tuple[Any, ...]] = (),
    cache: Path = CACHE / "peers",
) -> Iterator[list[PeerCell]]:
    """Measure every cell in a fresh process; yields the records of one cell, one a work."""
    raise NotImplementedError


def protocol(config: PeerConfig, *, cache: Path = CACHE / "peers") -> Iterator[ProtocolCell]:
    """Repeat the original's own protocol on both sides; yields a record a measure."""
    raise NotImplementedError
