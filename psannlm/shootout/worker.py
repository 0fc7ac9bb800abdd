"""Inside the process of one training of a shootout."""

import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainingTask:
    """What the process is told."""

    config: dict[str, Any]
    """Fields of a TrainingConfig."""

    folder: str
    """Where log and checkpoints lie while it trains; a training begun there goes on."""

    final: bool
    started: float
    """When the process was asked for, seconds since the epoch."""

    lm_eval_tasks: tuple[str, ...] = ()
    lm_eval_limit: int = 0
    lm_eval_folder: str = ""

    @property
    def worker(self) -> tuple[str, ...]:
        """The command that trains; the paths of the task and of the result follow."""
        return sys.executable, "-m", "psannlm.shootout.worker"

    @property
    def modes(self) -> tuple[str, ...]:
        """What is done."""
        return ("training",)
