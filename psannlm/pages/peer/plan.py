"""The comparison with the published package: which processes there are, and what comes of each."""

import dataclasses
import functools
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Collection, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from psannlm import CACHE
from psannlm.bench.environment import utc_now
from psannlm.bench.processes import refuse_what_cannot_fit, run_task
from psannlm.bench.rates import COMPILING, PROCESS_SECONDS, Pace, is_emulated
from psannlm.bench.statistics import Cell, shuffled_blocks
from psannlm.bench.steps import SETTINGS, NetworkTask
from psannlm.bench.worker import reason_of
from psannlm.config.network import ModelConfig
from psannlm.config.schema import ConfigError
from psannlm.corpora.fetch import PIP, run_client
from psannlm.device import select_device
from psannlm.files import locked, write_atomically
from psannlm.pages.peer import records as raw
from psannlm.pages.peer.records import OURS, PUBLISHED, AnyCell, PeerCell, PeerConfig, ProtocolCell
from psannlm.pages.peer.works import CHECKS

PACKAGES = CACHE / "peers"  # environments of packages, each kept for the next run
STAMP = "peer.json"
TORCH = Path(torch.__file__).parents[1]  # with all that is installed beside it
LAYER_SECONDS = 1e-3  # of a generated token: calls, hardly fewer in a small network
WORKER = Path(__file__).with_name("worker.py")


def environment(requirement: str) -> Path:
    """The interpreter of a virtual environment that has the required package and our torch.

    It is made once: under a temporary name, and renamed when it is complete.

    Raises:
        ConfigError: The requirement is not of the form NAME==VERSION, or it cannot be installed.
    """
    if not re.fullmatch(r"[^\W_][\w.+-]*==[^\W_][\w.+-]*", requirement):
        raise ConfigError(f"peer must be NAME==VERSION, got {requirement!r}; name one version")
    folder = PACKAGES / requirement.replace("==", "-")
    made_for = {"requirement": requirement, "python": sys.version, "torch": torch.__version__}
    stamp = json.dumps(made_for | {"packages": str(TORCH)})
    known = folder / STAMP

    def is_there() -> bool:
        return known.exists() and known.read_text(encoding="utf-8") == stamp

    if not is_there():
        with locked(PACKAGES, patience=-1):
            if not is_there():  # no process replaces what another has just made and now uses
                _make(requirement, folder, stamp)
    return folder / "bin" / "python"


def _make(requirement: str, folder: Path, stamp: str) -> None:
    """Put the environment into `folder`, whole or not at all."""
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=PACKAGES) as temporary:
        made = Path(temporary, folder.name)
        _install(requirement, made)
        write_atomically(made / STAMP, stamp)
        shutil.rmtree(folder, ignore_errors=True)
        made.replace(folder)


def _install(requirement: str, folder: Path) -> None:
    """Make the environment; torch, pip and all else that is here is seen, not fetched again."""
    _run("make an environment", sys.executable, "-I", "-m", "venv", "--without-pip", str(folder))
    own = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    # Its own packages come first, ours behind them.
    (own / "zz_shared.pth").write_text(f"{TORCH}\n", encoding="utf-8")
    fixed = folder / "constraints.txt"
    fixed.write_text(f"torch=={torch.__version__}\n", encoding="utf-8")
    pip = [str(folder / "bin" / "python"), "-I", "-m", "pip", "install", *PIP]
    pip += ["--constraint", str(fixed), requirement]
    run_client(pip, f"cannot install {requirement}: pip")


def _run(what: str, *command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("ERROR")] or said or ["it said nothing"]
        raise ConfigError(f"cannot {what}: {errors[-1][:300]}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideTask(NetworkTask):
    """What one process measures of one side: kinds of work, or a check of the protocol."""

    python: str  # the interpreter of the published package's environment; empty for our side
    setting: str
    prompt_tokens: int
    new_tokens: int

    @property
    def worker(self) -> tuple[str, ...]:
        """The command that measures it.

        Ours finds our package by PYTHONPATH, but no module beside the script (-P), as one there is
        named like one of Python's own; the other interpreter is isolated from both (-I).
        """
        if self.python:
            return (self.python, "-I", str(WORKER))
        return (sys.executable, "-P", str(WORKER))


@dataclasses.dataclass
class Sides:
    """Starts the processes of both sides; the package is installed when it is first asked for."""

    config: PeerConfig
    compiled: Path  # folder of compiled code

    def run(self, side: str, network: ModelConfig, **asked: Any) -> list[dict[str, Any]]:
        """What a fresh process tells of each mode that is asked for; a failure has its reason."""
        device, started_at = select_device(self.config.device), utc_now().isoformat()
        fields = SETTINGS | {"batch_tokens", "prompt_tokens", "new_tokens"}
        values = self.config.model_dump(include=fields)
        values |= {"device": device.type, "model": network.model_dump()}
        values["emulated"] = is_emulated(device.type, asked["precision"])
        task = SideTask(python="", **values | asked)
        python = reason = ""
        try:
            # One set of 16-bit logits is a lower bound.
            needed = 2 * task.shape.total * network.vocab_size
            refuse_what_cannot_fit(needed, "logits alone", device)
            if side == PUBLISHED:
                python, reason = self._interpreter
        except MemoryError as error:
            reason = reason_of(error)
        if reason:
            failed = {"started_at": started_at, "status": "failed", "reason": reason}
            return [{"mode": mode, **failed} for mode in task.modes]
        # Ours need not compile again what it has compiled: no time of compiling is asked for.
        cache = self.compiled / (PUBLISHED if side == PUBLISHED else OURS)
        task = dataclasses.replace(task, python=python)
        rows = run_task(task, cache=cache, timeout_seconds=self.config.timeout_seconds)
        return [{"started_at": started_at} | row for row in rows]

    @functools.cached_property
    def _interpreter(self) -> tuple[str, str]:
        """Path of the interpreter that has the package, or why there is none; tried once."""
        try:
            return str(environment(self.config.peer)), ""
        except ConfigError as error:
            return "", str(error)
        except (OSError, subprocess.SubprocessError) as error:
            return "", reason_of(error)


class Setting(NamedTuple):
    """What one process measures, each work of the run in turn."""

    side: str
    base: str
    setting: str
    precision: str


def plan(config: PeerConfig) -> list[Cell[Setting]]:
    """All cells, in the order in which they run: every block has each once."""
    settings = product(raw.SIDES, config.base, config.setting, config.precision)
    cells = [Setting(*setting) for setting in settings]
    return shuffled_blocks(cells, n_repeats=config.n_repeats, seed=config.seed)


def expected_seconds(config: PeerConfig, pace: Pace) -> float:
    """What all cells should take were both packages equally fast; see `Page`."""
    seconds = 2 * PROCESS_SECONDS * len(protocol_plan(config))
    for cell in plan(config):
        _, base, setting, precision = cell.setting
        network, compiled = config.network_of(base), setting == "best"
        given = network, config.batch_tokens, precision
        steps = pace.forward(*given, compiled=compiled), pace.step(*given, compiled=compiled)
        generation = config.new_tokens * network.n_layers * LAYER_SECONDS
        seconds += sum(pace.timed(step, precision, config) for step in (*steps, generation))
        # What is loaded to count what is saved takes as long as what was loaded before.
        seconds += 2 * PROCESS_SECONDS + compiled * len(steps) * COMPILING[cell.repeat == 0]
    return seconds


class Repetition(NamedTuple):
    """A check of the original's own protocol on one side."""

    side: str
    check: Any
    base: str
    batch_tokens: int


def protocol_plan(config: PeerConfig) -> list[Repetition]:
    """All repetitions, in the order in which they run; none if no batches are named for them."""
    asked = config.protocol_batch_tokens
    return [
        Repetition(side, name, base, batch_tokens)
        for name, check in CHECKS.items()
        for batch_tokens in check.batches or asked
        for base in config.base
        for side in (OURS, PUBLISHED)
        if asked
    ]


def compare(
    config: PeerConfig,
    *,
    done: Collection[tuple[Any, ...]] = (),
    cells: Sequence[Cell[Setting]] | None = None,
) -> Iterator[list[AnyCell]]:
    """Yield the records of every cell, from a fresh process, then of each check of the protocol.

    A package that cannot be installed is a failed record of each of its cells; ours are measured
    all the same. What is `done`, by the keys of its records, is left out; `cells` are all of the
    plan if not given.
    """
    with tempfile.TemporaryDirectory(prefix="psannlm-compile-") as folder:
        sides = Sides(config, Path(folder))
        for cell in plan(config) if cells is None else cells:
            *place, precision = cell.setting
            keys = {(cell.repeat, *place, work, precision) for work in config.work}
            if not keys <= set(done):
                yield [*_measure(cell, sides)]
        known = {key[:4] for key in done}
        for one in protocol_plan(config):
            if one not in known:
                yield [*_repeat(one, sides)]


def _measure(cell: Cell[Setting], sides: Sides) -> Iterator[PeerCell]:
    config = sides.config
    side, base, setting, precision = cell.setting
    network = config.network_of(base)
    rows = sides.run(side, network, setting=setting, precision=precision, modes=config.work)
    known = cell.setting._asdict() | {"repeat": cell.repeat, "order": cell.order}
    known |= {"batch_tokens": config.batch_tokens, "context_length": config.context_length}
    for row in rows:
        found = row | {"seconds": tuple(row.get("seconds", ()))}
        yield PeerCell(work=found.pop("mode"), **known, **found)


def _repeat(one: Repetition, sides: Sides) -> Iterator[ProtocolCell]:
    check = CHECKS[one.check]
    context_length = check.context_length(one.batch_tokens)
    network = sides.config.network_of(one.base, **check.shape, context_length=context_length)
    asked = {"batch_tokens": one.batch_tokens, "precision": check.precision, "modes": (one.check,)}
    [row] = sides.run(one.side, network, setting="defaults", **asked)
    known = one._asdict() | {name: row[name] for name in ("status", "started_at")}
    for measure in check.measures:
        value, lacking = row.get("values", {}).get(measure, (None, ""))
        found = {"measure": measure, "value": value, "reason": row["reason"] or lacking}
        yield ProtocolCell(context_length=context_length, **known, **found)
