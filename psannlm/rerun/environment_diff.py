"""What differs between the machine that measured a run and this one, and what that rules out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from psannlm import ROOT
from psannlm.bench.environment import conditions, describe_environment, describe_git
from psannlm.config.schema import ConfigError
from psannlm.device import select_device
from psannlm.evidence.runs import Evidence
from psannlm.files import sha256_of

SPEED = ("device", "device type", "cpu name", "gpu name")
"""Facts in which machines must agree for speeds to be comparable."""

DIGITS = (
    *SPEED, "cpu family", "cpu model", "cpu cores", "cpu instructions", "cuda", "compiler",
    "torch", "triton", "threads", "float32_matmul_precision",
)  # fmt: skip
"""Facts in which they must agree for the same training to reach the same digits."""


class Differing(NamedTuple):
    """A fact that is not as it was."""

    name: str
    published: str
    here: str


@dataclass(frozen=True)
class EnvironmentDiff:
    """This machine beside the one that measured a run."""

    device: torch.device  # that measures again
    differing: tuple[Differing, ...]
    then: Mapping[str, Any]  # device, and conditions at the start, as the run's manifest has them
    here: Mapping[str, Any]

    @property
    def same_device(self) -> bool:
        """Whether speeds can be compared."""
        return not any(fact.name in SPEED for fact in self.differing)

    @property
    def same_digits(self) -> bool:
        """Whether the same training should reach the same digits."""
        return not any(fact.name in DIGITS for fact in self.differing)


def environment_diff(run: Evidence) -> EnvironmentDiff:
    """This machine beside that of a run; ConfigError if it has no device of that kind."""
    environment, git = run.manifest["environment"], run.manifest["git"]
    kind = environment["device_type"]
    try:
        device = select_device(kind)
    except ConfigError:
        raise ConfigError(
            f"{run.name} was measured on {environment['device']} ({kind}), and torch finds no "
            f"such device here; repeat it on a machine that has one"
        ) from None
    now = describe_environment(device)
    return EnvironmentDiff(
        device,
        tuple(differing(facts(environment, git), facts(now, describe_git()))),
        {"device": environment["device"], **run.manifest["conditions"].get("start", {})},
        {"device": now["device"], **conditions(device)},
    )


def facts(environment: Mapping[str, Any], git: Mapping[str, Any]) -> dict[str, str]:
    """All that describes where a run was measured, a word or number a name."""
    software, settings = environment["software"], environment["settings"]
    parts: list[tuple[str, Mapping[str, Any]]] = [
        ("", {"device": environment["device"], "device type": environment["device_type"]}),
        ("cpu ", environment["cpu"]),
        ("gpu ", environment["gpu"] or {}),
        ("", {name: value for name, value in software.items() if name != "packages"}),
        ("", software["packages"]),
        ("", {name: value for name, value in settings.items() if name != "variables"}),
        ("variable ", settings["variables"]),
        ("", {"commit": git["commit"], "uncommitted changes": git["dirty"]}),
    ]
    return {f"{kind}{name}": _word(value) for kind, part in parts for name, value in part.items()}


def differing(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Differing]:
    """The facts that differ, in the order in which they are told."""
    for name in dict.fromkeys([*before, *after]):
        then, now = before.get(name, "absent"), after.get(name, "absent")
        if then != now:
            yield Differing(name, then, now)


def refuse_other_text(run: Evidence) -> None:
    """Raise ConfigError if the corpus of a run is missing here, or is another text by its name."""
    corpus = run.manifest["corpus"]
    if corpus is None:
        return
    path = ROOT / corpus["path"]
    found = sha256_of(path) if path.is_file() else ""
    if found != corpus["sha256"]:
        problem = f"has sha256 {found[:16]}" if found else "is missing"
        raise ConfigError(
            f"{corpus['path']} {problem}, and {run.name} read the text with sha256 "
            f"{corpus['sha256'][:16]}; make it with `python -m psannlm corpus build {path.stem}`"
        )


def _word(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
