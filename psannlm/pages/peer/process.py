"""Processes of the comparison with the published package: what each is told, or why none ran."""

import dataclasses
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from psannlm.bench.environment import utc_now
from psannlm.bench.processes import refuse_what_cannot_fit, run_task
from psannlm.bench.upkeep import reason_of
from psannlm.config.network import ModelConfig
from psannlm.config.schema import ConfigError
from psannlm.device import select_device
from psannlm.model.cost import Shape
from psannlm.pages.peer.cells import OURS, PUBLISHED
from psannlm.pages.peer.config import PeerConfig
from psannlm.pages.peer.package import environment

WORKER = Path(__file__).with_name("worker.py")


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
    measures: str
    """The module that measures the modes: works or protocol."""

    modes: tuple[str, ...]

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
        self._python: str | None = None
        self._reason = ""

    def run(
        self,
        side: str,
        network: ModelConfig,
        shape: Shape,
        *,
        setting: str,
        precision: str,
        modes: Sequence[str],
        measures: str,
    ) -> list[dict[str, Any]]:
        """What a fresh process tells of each mode, in their order; a failure has its reason."""
        started_at = utc_now().isoformat()
        unknown: dict[str, Any] = {"started_at": started_at, "status": "failed"}
        try:
            self._refuse_what_cannot_fit(network, shape)
            task = SideTask(
                python=self.python() if side == PUBLISHED else "",
                model=network.model_dump(),
                batch=shape.batch,
                tokens=shape.tokens,
                setting=setting,
                precision=precision,
                prompt_tokens=self.config.prompt_tokens,
                new_tokens=self.config.new_tokens,
                device=select_device(self.config.device).type,
                min_seconds=self.config.min_seconds,
                min_steps=self.config.min_steps,
                learning_rate=self.config.learning_rate,
                seed=self.config.seed,
                measures=measures,
                modes=tuple(modes),
            )
        except (ConfigError, MemoryError) as error:
            reason = str(error) if isinstance(error, ConfigError) else reason_of(error)
            return [unknown | {"mode": mode, "reason": reason} for mode in modes]
        # Ours need not compile again what it has compiled: no time of compiling is asked for.
        cache = self.compiled / (PUBLISHED if side == PUBLISHED else OURS)
        rows = run_task(task, cache=cache, timeout_seconds=self.config.timeout_seconds)
        return [unknown | row for row in rows]

    def python(self) -> str:
        """Path of the interpreter that has the package.

        Raises:
            ConfigError: It cannot be installed, which is tried once.
        """
        if self._python is None and not self._reason:
            try:
                self._python = str(environment(self.config.peer, self.packages))
            except ConfigError as error:
                self._reason = str(error)
            except (OSError, subprocess.SubprocessError) as error:
                self._reason = reason_of(error)
        if self._python is None:
            raise ConfigError(self._reason)
        return self._python

    def _refuse_what_cannot_fit(self, network: ModelConfig, shape: Shape) -> None:
        # One set of 16-bit logits is a lower bound.
        needed = 2 * shape.total * network.vocab_size
        refuse_what_cannot_fit(needed, "logits alone", select_device(self.config.device))
