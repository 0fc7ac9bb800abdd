"""What a repeat is asked for: how many processes, on which device, and who is told of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from psannlm.config.schema import ConfigError, Strict
from psannlm.evidence.runs import Evidence, all_runs
from psannlm.evidence.session import configuration
from psannlm.rerun.surroundings import EnvironmentDiff
from psannlm.run.noise import machine_floor

ConfigT = TypeVar("ConfigT", bound=Strict)
MOST = 4
"""Processes of a row that are made again where nothing else is asked for."""


@dataclass(frozen=True)
class RerunRequest:
    """One repeat of one row."""

    run: Evidence
    surroundings: EnvironmentDiff
    repeats: int | None
    """Processes or seeds; None for what is usual."""

    say: Callable[[str], None]
    """Told, in a sentence, what begins."""

    def configuration(self, kind: type[ConfigT]) -> ConfigT:
        """What the run was asked to do, on the kind of device that measured it.

        Raises:
            ConfigError: The manifest's parameters are no such configuration.
        """
        manifest = self.run.manifest
        source = f"parameters of {self.run.name}"
        found = configuration(manifest["notebook"], manifest["parameters"], source)
        assert isinstance(found, kind)
        return found.model_copy(update={"device": self.surroundings.device.type})

    @property
    def floor(self) -> float:
        """Noise floor of times whose run measures nothing twice: that of the machine, if known."""
        return machine_floor(all_runs(self.run.folder.parent.parent), self.run) or 0.0

    def times(self, published: int, *, usual: int = MOST) -> int:
        """How often the row is measured.

        Args:
            published: How often it was.
            usual: The most that is done unasked.
        """
        return self.repeats or max(1, min(published, usual))

    def refuse_repeats(self) -> None:
        """Refuse to do more than once what one repeat decides.

        Raises:
            ConfigError: Another number is asked for.
        """
        if self.repeats not in (None, 1):
            raise ConfigError(
                f"repeats must be 1 on the page {self.run.manifest['notebook']}, whose rows are "
                f"one value each, got {self.repeats}; leave --repeats out"
            )
