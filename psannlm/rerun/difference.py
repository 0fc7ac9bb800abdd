"""This machine beside the one that measured a run: what differs, and what that rules out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

from psannlm.bench.conditions import conditions, during
from psannlm.bench.environment import (
    PACKAGES,
    are_recorded,
    decides_speed,
    describe_environment,
    other_settings,
    use_usable_cores,
)
from psannlm.bench.identity import identity
from psannlm.bench.provenance import describe_git
from psannlm.config.schema import ConfigError
from psannlm.device import select_device, unusable_gpu
from psannlm.evidence.runs import Evidence

# Facts in which machines must agree for the same training to reach the same digits.
DIGITS = (
    "device", "device type", "cpu name", "gpu name", "cpu family", "cpu model", "cpu cores",
    "cpu instructions", "cpu capability", "cuda", "compiler", "torch", "triton", "threads",
    "float32_matmul_precision",
)  # fmt: skip
MOMENTS = {
    "load_1min": "load of the last minute", "others_cores": "cores busy with other work",
    "clock_mhz": "clock in MHz", "governor": "governor", "turbo": "turbo",
}  # fmt: skip
DURING = {
    "others_cores": "cores busy with other work while measuring",
    "steal_share": "share of time that the host stole while measuring",
    "throttled_s": "seconds stopped by a quota while measuring",
}
MOST = 6  # packages that are named of those that compute nothing


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
    telling: tuple[str, ...] = ()  # facts by which the two are not one machine
    settings: tuple[str, ...] = ()  # what changes speed and was set otherwise, in words
    during_then: Mapping[str, Any] = field(default_factory=dict)  # what others did in the run
    during_here: Mapping[str, Any] = field(default_factory=dict)  # and as it was repeated

    @property
    def no_verdict(self) -> str:
        """Why speeds cannot be compared; empty if they can."""
        return "another machine" if self.telling else "other settings" if self.settings else ""

    @property
    def same_digits(self) -> bool:
        """Whether the same training should reach the same digits."""
        computes = [said for said in self.settings if not said.startswith(("governor", "turbo"))]
        return not computes and not any(fact.name in DIGITS for fact in self.differing)


def environment_diff(run: Evidence) -> EnvironmentDiff:
    """This machine beside that of a run; ConfigError if it has no device of that kind."""
    environment = run.manifest["environment"]
    kind = environment["device_type"]
    try:
        device = select_device(kind)
    except ConfigError:
        raise ConfigError(
            f"{run.name} was measured on {environment['device']} ({kind}), and torch finds no "
            f"such device here; {unusable_gpu() or 'repeat it on a machine that has one'}"
        ) from None
    use_usable_cores()
    now, git = describe_environment(device), describe_git()
    here = {"environment": now, "conditions": {"start": conditions(device)}}
    return EnvironmentDiff(
        device,
        tuple(_differing(environment, now, run.manifest["git"], git)),
        {"device": environment["device"], **run.manifest["conditions"].get("start", {})},
        {"device": now["device"], **here["conditions"]["start"]},
        tuple(identity(now).differing(identity(environment))),
        tuple(other_settings(here, run.manifest)),
        run.manifest["conditions"].get("during", {}),
    )


def after(found: EnvironmentDiff) -> EnvironmentDiff:
    """The same, with what others did here since it was found."""
    return replace(found, during_here=during(found.here, conditions(found.device)))


def _differing(
    then: Mapping[str, Any], now: Mapping[str, Any], git: Mapping[str, Any], here: Mapping[str, Any]
) -> Iterator[Differing]:
    """Facts that both sides know; a variable that would have been recorded was not set."""
    before, after = facts(then, git), facts(now, here)
    for name in before | after:
        variable = name.removeprefix("variable ")
        known = (name in before and name in after) or (
            variable != name and are_recorded(variable, then, now)
        )
        pair = before.get(name, "absent"), after.get(name, "absent")
        if known and pair[0] != pair[1]:
            yield Differing(name, *pair)
    yield from _packages(*(side["software"].get("distributions") for side in (then, now)))


def _packages(then: Mapping[str, str] | None, now: Mapping[str, str] | None) -> Iterator[Differing]:
    """Those that compute by name, all others in one line; none where a manifest lists none."""
    if then is None or now is None:
        return
    names = sorted((then.keys() | now.keys()) - set(PACKAGES))  # these are told in any case
    names = [name for name in names if then.get(name) != now.get(name)]
    for name in filter(decides_speed, names):
        yield Differing(f"package {name}", then.get(name, "absent"), now.get(name, "absent"))
    if rest := [name for name in names if not decides_speed(name)]:
        more = [f"and {len(rest) - MOST} more"] if len(rest) > MOST else []
        named = ([f"{n} {side.get(n, 'absent')}" for n in rest[:MOST]] for side in (then, now))
        yield Differing("other packages", *(", ".join(one + more) for one in named))


def facts(environment: Mapping[str, Any], git: Mapping[str, Any]) -> dict[str, str]:
    """All that describes where a run was measured, a word or number a name."""
    software, settings = environment["software"], environment["settings"]
    parts: list[tuple[str, Mapping[str, Any]]] = [
        ("", {"device": environment["device"], "device type": environment["device_type"]}),
        ("cpu ", environment["cpu"]),
        ("gpu ", environment["gpu"] or {}),
        ("", software),
        ("", software["packages"]),
        ("", settings),
        ("variable ", settings["variables"]),
        ("", {"commit": git["commit"], "uncommitted changes": git["dirty"]}),
    ]
    plain = ((kind, *item) for kind, part in parts for item in part.items())
    nested = ("packages", "distributions", "variables", "prefixes")
    return {f"{kind}{name}": _word(value) for kind, name, value in plain if name not in nested}


def lines(found: EnvironmentDiff) -> list[str]:
    """The moment and the machine of both sides, as the report has them."""
    told = []
    for name, said in MOMENTS.items():
        then, here = (where.get(name) for where in (found.then, found.here))
        if name == "load_1min" or here is not None:
            now = f"{_word(here)} here before measuring"
            told.append(f"{said}: {_word(then)} when published, {now}")
    for name, said in DURING.items():
        then, here = (side.get(name) for side in (found.during_then, found.during_here))
        if here is not None:
            told.append(f"{said}: {_word(then)} when published, {_word(here)} here")
    if not found.differing:
        return [*told, "differences of the environment: none"]
    head = ("differs in the environment", "published", "here")
    return [*told, *text_table(head, found.differing)]


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in plain text, its columns two blanks apart."""
    table = [head, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    return ["  ".join(f"{c:<{w}}" for c, w in zip(r, widths, strict=True)).rstrip() for r in table]


def _word(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
