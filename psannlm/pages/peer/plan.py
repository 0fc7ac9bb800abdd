"""The comparison with the published package: which processes there are, and what comes of each."""

import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from psannlm import CACHE
from psannlm.bench.blocks import shuffled_blocks
from psannlm.model.cost import Shape
from psannlm.pages.peer.cells import OURS, PUBLISHED, SIDES, PeerCell, ProtocolCell
from psannlm.pages.peer.config import PeerConfig
from psannlm.pages.peer.process import Sides
from psannlm.pages.peer.protocol import CHECKS, Check

WORKS, PROTOCOL = "works", "protocol"
"""Modules that measure: kinds of work, and checks of the original's own protocol."""


class Cell(NamedTuple):
    """What one process measures, each work of the run in turn, and its place in the run."""

    repeat: int
    order: int
    side: str
    base: str
    setting: str
    precision: str


def plan(config: PeerConfig) -> list[Cell]:
    """All cells, in the order in which they run: every block has each once."""
    settings = [
        (side, base, setting, precision)
        for side in SIDES
        for base in config.base
        for setting in config.setting
        for precision in config.precision
    ]
    blocks = shuffled_blocks(settings, n_repeats=config.n_repeats, seed=config.seed)
    return [Cell(repeat, order, *setting) for repeat, order, setting in blocks]


def compare(
    config: PeerConfig,
    *,
    done: Collection[tuple[Any, ...]] = (),
    cache: Path = CACHE / "peers",
) -> Iterator[list[PeerCell]]:
    """Measure every cell in a fresh process.

    A package that cannot be installed is a failed record of each of its cells; ours are measured
    all the same.

    Args:
        config: What to measure.
        done: Keys of records that an interrupted run has already.
        cache: Folder of the environments of packages, each kept for the next run.

    Yields:
        The records of one cell, one a work, as soon as it is measured.
    """
    with tempfile.TemporaryDirectory(prefix="psannlm-compile-") as folder:
        sides = Sides(config, cache, Path(folder))
        for cell in plan(config):
            keys = {
                (cell.repeat, cell.side, cell.base, cell.setting, work, cell.precision)
                for work in config.work
            }
            if not keys <= set(done):
                yield _measure(cell, config, sides)


def _measure(cell: Cell, config: PeerConfig, sides: Sides) -> list[PeerCell]:
    rows = sides.run(
        cell.side,
        config.network_of(cell.base),
        Shape(config.batch_tokens // config.context_length, config.context_length),
        setting=cell.setting,
        precision=cell.precision,
        modes=config.work,
        measures=WORKS,
    )
    unknown: dict[str, Any] = {
        "choices": "",
        "n_parameters": None,
        "tokens": 0,
        "seconds": (),
        "saved_bytes": None,
    }
    return [
        PeerCell(
            **cell._asdict(),
            work=row.pop("mode"),
            batch_tokens=config.batch_tokens,
            context_length=config.context_length,
            **unknown | row | {"seconds": tuple(row.get("seconds", ()))},
        )
        for row in rows
    ]


def protocol(config: PeerConfig, *, cache: Path = CACHE / "peers") -> Iterator[ProtocolCell]:
    """Repeat the original's own protocol on both sides, each check of a base in a fresh process.

    Args:
        config: Its `protocol_batch_tokens` are those of GPU-03; with none, nothing is repeated.
        cache: Folder of the environments of packages.

    Yields:
        A record a measure.
    """
    if not config.protocol_batch_tokens:
        return
    with tempfile.TemporaryDirectory(prefix="psannlm-compile-") as folder:
        sides = Sides(config, cache, Path(folder))
        for name, check in CHECKS.items():
            for batch_tokens in check.batches(config.protocol_batch_tokens):
                for base in config.base:
                    for side in (OURS, PUBLISHED):
                        yield from _repeat(name, check, batch_tokens, base, side, config, sides)


def _repeat(
    name: Any,
    check: Check,
    batch_tokens: int,
    base: str,
    side: str,
    config: PeerConfig,
    sides: Sides,
) -> Iterator[ProtocolCell]:
    context_length = check.context_length(batch_tokens)
    [row] = sides.run(
        side,
        config.network_of(base, **check.shape, context_length=context_length),
        Shape(max(1, batch_tokens // context_length), context_length),
        setting="defaults",
        precision=check.precision,
        modes=(name,),
        measures=PROTOCOL,
    )
    for measure in check.measures:
        value, lacking = row.get("values", {}).get(measure, (None, ""))
        yield ProtocolCell(
            side=side,
            check=name,
            base=base,
            batch_tokens=batch_tokens,
            context_length=context_length,
            measure=measure,
            value=value,
            status=row["status"],
            reason=row["reason"] or lacking,
            started_at=row["started_at"],
        )
