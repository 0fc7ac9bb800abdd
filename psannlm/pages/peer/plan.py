"""The comparison with the published package: which processes there are, and what comes of each."""

import contextlib
import dataclasses
import functools
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from psannlm import CACHE
from psannlm.bench.environment import utc_now
from psannlm.bench.processes import refuse_what_cannot_fit, run_task
from psannlm.bench.statistics import shuffled_blocks
from psannlm.bench.worker import reason_of
from psannlm.config.network import ModelConfig
from psannlm.config.schema import ConfigError
from psannlm.device import select_device
from psannlm.model.cost import Shape
from psannlm.pages.peer.config import PeerConfig
from psannlm.pages.peer.package import environment
from psannlm.pages.peer.protocol import CHECKS
from psannlm.pages.peer.records import OURS, PUBLISHED, SAVED, SIDES, PeerCell, ProtocolCell

PACKAGES = CACHE / "peers"
"""Folder of the environments of packages, each kept for the next run."""

WORKER = Path(__file__).with_name("worker.py")
SHARED = {"prompt_tokens", "new_tokens", "min_seconds", "min_steps", "learning_rate", "seed"}
"""What tasks take from the configuration as it is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideTask:
    """What one process measures of one side."""

    python: str
    """The interpreter of the published package's environment; empty for our side."""

    model: Mapping[str, Any]
    """A ModelConfig; the published package takes base, shape and positions of it."""

    batch: int
    tokens: int
    """B and T of the batch."""

    setting: str
    precision: str
    prompt_tokens: int
    new_tokens: int
    device: str
    min_seconds: float
    min_steps: int
    learning_rate: float
    seed: int
    modes: tuple[str, ...]
    """Kinds of work, or a check of the original's own protocol."""

    @property
    def worker(self) -> tuple[str, ...]:
        """The command that measures it.

        Ours finds our package by PYTHONPATH, but no module beside the script (-P), as one there is
        named like one of Python's own; the other interpreter is isolated from both (-I).
        """
        if self.python:
            return (self.python, "-I", str(WORKER))
        return (sys.executable, "-P", str(WORKER))


class Sides:
    """Starts the processes of both sides; the package is installed when it is first asked for.

    Args:
        config: Of the run.
        packages: Folder of the environments of packages.
        compiled: Folder of compiled code.
    """

    def __init__(self, config: PeerConfig, packages: Path, compiled: Path) -> None:
        self.config, self.packages, self.compiled = config, packages, compiled

    def run(
        self,
        side: str,
        network: ModelConfig,
        shape: Shape,
        *,
        setting: str,
        precision: str,
        modes: Sequence[str],
    ) -> list[dict[str, Any]]:
        """What a fresh process tells of each mode, in their order; a failure has its reason."""
        device, shared = select_device(self.config.device), self.config.model_dump(include=SHARED)
        unknown: dict[str, Any] = {"started_at": utc_now().isoformat(), "status": "failed"}
        try:
            # One set of 16-bit logits is a lower bound.
            refuse_what_cannot_fit(2 * shape.total * network.vocab_size, "logits alone", device)
            python, reason = self._interpreter if side == PUBLISHED else ("", "")
        except MemoryError as error:
            python, reason = "", reason_of(error)
        if reason:
            return [unknown | {"mode": mode, "reason": reason} for mode in modes]
        task = SideTask(
            python=python,
            model=network.model_dump(),
            batch=shape.batch,
            tokens=shape.tokens,
            setting=setting,
            precision=precision,
            device=device.type,
            modes=tuple(modes),
            **shared,
        )
        # Ours need not compile again what it has compiled: no time of compiling is asked for.
        cache = self.compiled / (PUBLISHED if side == PUBLISHED else OURS)
        rows = run_task(task, cache=cache, timeout_seconds=self.config.timeout_seconds)
        return [unknown | row for row in rows]

    @functools.cached_property
    def _interpreter(self) -> tuple[str, str]:
        """Path of the interpreter that has the package, or why there is none; tried once."""
        try:
            return str(environment(self.config.peer, self.packages)), ""
        except ConfigError as error:
            return "", str(error)
        except (OSError, subprocess.SubprocessError) as error:
            return "", reason_of(error)


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
    settings = list(product(SIDES, config.base, config.setting, config.precision))
    blocks = shuffled_blocks(settings, n_repeats=config.n_repeats, seed=config.seed)
    return [Cell(repeat, order, *setting) for repeat, order, setting in blocks]


def compare(
    config: PeerConfig, *, done: Collection[tuple[Any, ...]] = (), cache: Path = PACKAGES
) -> Iterator[list[PeerCell]]:
    """Measure every cell in a fresh process.

    A package that cannot be installed is a failed record of each of its cells; ours are measured
    all the same.

    Args:
        config: What to measure.
        done: Keys of records that an interrupted run has already.
        cache: Folder of the environments of packages.

    Yields:
        The records of one cell, one a work, as soon as it is measured.
    """
    with _sides(config, cache) as sides:
        for cell in plan(config):
            keys = {
                (cell.repeat, cell.side, cell.base, cell.setting, work, cell.precision)
                for work in config.work
            }
            if not keys <= set(done):
                yield _measure(cell, config.work, sides)


def saved_bytes(config: PeerConfig, *, cache: Path = PACKAGES) -> Iterator[PeerCell]:
    """Count what a training step of the published package saves for backward.

    Args:
        config: Its first base is measured, in its first setting.
        cache: Folder of the environments of packages.

    Yields:
        A record a precision, as soon as it is measured.
    """
    with _sides(config, cache) as sides:
        for order, precision in enumerate(config.precision):
            cell = Cell(0, order, PUBLISHED, config.base[0], config.setting[0], precision)
            yield from _measure(cell, (SAVED,), sides)


@contextlib.contextmanager
def _sides(config: PeerConfig, cache: Path) -> Iterator[Sides]:
    with tempfile.TemporaryDirectory(prefix="psannlm-compile-") as folder:
        yield Sides(config, cache, Path(folder))


def _measure(cell: Cell, works: Sequence[str], sides: Sides) -> list[PeerCell]:
    config = sides.config
    rows = sides.run(
        cell.side,
        config.network_of(cell.base),
        Shape(config.batch_tokens // config.context_length, config.context_length),
        setting=cell.setting,
        precision=cell.precision,
        modes=works,
    )
    unknown = {"choices": "", "n_parameters": None, "tokens": 0, "saved_bytes": None}
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


class Repetition(NamedTuple):
    """A check of the original's own protocol on one side."""

    check: Any
    batch_tokens: int
    base: str
    side: str


def protocol_plan(config: PeerConfig) -> list[Repetition]:
    """All repetitions, in the order in which they run; none if no batches are named for them."""
    asked = config.protocol_batch_tokens
    return [
        Repetition(name, batch_tokens, base, side)
        for name, check in CHECKS.items()
        for batch_tokens in (check.batches(asked) if asked else ())
        for base in config.base
        for side in (OURS, PUBLISHED)
    ]


def protocol(
    config: PeerConfig, *, done: Collection[tuple[Any, ...]] = (), cache: Path = PACKAGES
) -> Iterator[list[ProtocolCell]]:
    """Repeat the original's own protocol on both sides, each check of a base in a fresh process.

    Args:
        config: Its `protocol_batch_tokens` are those of GPU-03; with none, nothing is repeated.
        done: Keys of records that an interrupted run has already.
        cache: Folder of the environments of packages.

    Yields:
        The records of one process, one a measure.
    """
    known = {key[:4] for key in done}
    with _sides(config, cache) as sides:
        for one in protocol_plan(config):
            if (one.side, one.check, one.base, one.batch_tokens) not in known:
                yield _repeat(one, sides)


def _repeat(one: Repetition, sides: Sides) -> list[ProtocolCell]:
    check = CHECKS[one.check]
    context_length = check.context_length(one.batch_tokens)
    [row] = sides.run(
        one.side,
        sides.config.network_of(one.base, **check.shape, context_length=context_length),
        Shape(max(1, one.batch_tokens // context_length), context_length),
        setting="defaults",
        precision=check.precision,
        modes=(one.check,),
    )
    cells = []
    for measure in check.measures:
        value, lacking = row.get("values", {}).get(measure, (None, ""))
        found = {name: row[name] for name in ("status", "started_at")}
        found |= {"measure": measure, "value": value, "reason": row["reason"] or lacking}
        cells.append(ProtocolCell(**one._asdict(), context_length=context_length, **found))
    return cells
