"""This machine beside the one that measured a run: what differs, and what that rules out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from psannlm.bench import environment, machine
from psannlm.bench.conditions import conditions, during
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
    ("start", "load_1min"): "load of the minute before measuring",
    ("start", "others_cores"): "cores busy with other work before measuring",
    ("start", "clock_mhz"): "clock in MHz",
    ("during", "others_cores"): "cores busy with other work while measuring",
    ("during", "steal_share"): "share of time that the host stole while measuring",
    ("during", "throttled_s"): "seconds stopped by a quota while measuring",
}
FIRST_PREFIXES = ("OMP_", "MKL_", "KMP_", "CUDA_VISIBLE", "PYTORCH_")
"""How the names of variables open that manifests recorded before they listed that."""

CLOCKS = ("governor", "turbo")  # settings that change speed and no digit
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
    then: Mapping[str, Any]  # device, and conditions of the run, as its manifest has them
    here: Mapping[str, Any]
    telling: tuple[str, ...] = ()  # facts by which the two are not one machine
    settings: tuple[str, ...] = ()  # what changes speed and was set otherwise, in words

    @property
    def no_verdict(self) -> str:
        """Why speeds cannot be compared; empty if they can."""
        return "another machine" if self.telling else "other settings" if self.settings else ""

    @property
    def same_digits(self) -> bool:
        """Whether the same training should reach the same digits."""
        computing = [text for text in self.settings if not text.startswith(CLOCKS)]
        return not computing and not any(fact.name in DIGITS for fact in self.differing)


def environment_diff(run: Evidence) -> EnvironmentDiff:
    """This machine beside that of a run; ConfigError if it has no device of that kind."""
    then = run.manifest["environment"]
    kind = then["device_type"]
    try:
        device = select_device(kind)
    except ConfigError:
        raise ConfigError(
            f"{run.name} was measured on {then['device']} ({kind}), and torch finds no "
            f"such device here; {unusable_gpu() or 'repeat it on a machine that has one'}"
        ) from None
    environment.use_usable_cores()
    here = environment.describe_environment(device)
    now = {"environment": here, "git": describe_git(), "conditions": {"start": conditions(device)}}
    return EnvironmentDiff(
        device,
        (*differing(run.manifest, now), *_packages(then["software"], here["software"])),
        {"device": then["device"], **run.manifest["conditions"]},
        {"device": here["device"], **now["conditions"]},
        tuple(machine.differing_facts(machine.identity(here), machine.identity(then))),
        tuple(other_settings(now, run.manifest)),
    )


def after(diff: EnvironmentDiff) -> EnvironmentDiff:
    """The same, with what others did here since it was made."""
    others = during(diff.here["start"], conditions(diff.device))
    return replace(diff, here={**diff.here, "during": others})


def other_settings(newer: Mapping[str, Any], older: Mapping[str, Any]) -> Iterator[str]:
    """What was set otherwise in one of two manifests and changes speed, in words."""
    for name, before, now in differing(older, newer):
        kind, _, last = name.rpartition(" ")
        changes_speed = kind == "variable" and not environment.HARMLESS.search(last)
        if changes_speed or name in ("threads", *CLOCKS):
            yield f"{last}: {now}, before {before}"


def differing(older: Mapping[str, Any], newer: Mapping[str, Any]) -> Iterator[Differing]:
    """Facts that both sides know; a variable that would have been recorded was not set."""
    then, now = _facts(older), _facts(newer)
    settings = (manifest["environment"]["settings"] for manifest in (older, newer))
    recorded = [tuple(one.get("prefixes", FIRST_PREFIXES)) for one in settings]
    for name in then | now:
        kind, _, last = name.rpartition(" ")
        known = kind == "variable" and all(last.startswith(prefixes) for prefixes in recorded)
        published, here = (side.get(name, "absent") for side in (then, now))
        if published != here and (known or (name in then and name in now)):
            yield Differing(name, published, here)


def _packages(older: Mapping[str, Any], newer: Mapping[str, Any]) -> Iterator[Differing]:
    """Those that compute by name, all others in one line; none where a manifest lists none."""
    then, now = (software.get("distributions") or {} for software in (older, newer))
    if not then:
        return
    names = sorted((then.keys() | now.keys()) - set(environment.PACKAGES))  # told in any case
    names = [name for name in names if then.get(name) != now.get(name)]
    for name in filter(environment.decides_speed, names):
        yield Differing(f"package {name}", then.get(name, "absent"), now.get(name, "absent"))
    if rest := [name for name in names if not environment.decides_speed(name)]:
        more = f", and {len(rest) - MOST} more" if len(rest) > MOST else ""
        named = ((f"{n} {side.get(n, 'absent')}" for n in rest[:MOST]) for side in (then, now))
        yield Differing("other packages", *(", ".join(one) + more for one in named))


def _facts(manifest: Mapping[str, Any]) -> dict[str, str]:
    """All that describes where a run was measured, a word or number a name."""
    told, git = manifest["environment"], manifest["git"]
    software, settings = told["software"], told["settings"]
    values = {"device": told["device"], "device type": told.get("device_type")}
    values |= {"commit": git["commit"], "uncommitted changes": git["dirty"]}
    values |= {**software, **software["packages"], **settings}
    variables = {name: value for name, value in settings.get("variables", {}).items() if value}
    parts = {"cpu": told["cpu"], "gpu": told["gpu"] or {}, "variable": variables}
    values |= {f"{kind} {name}": part[name] for kind, part in parts.items() for name in part}
    begun = manifest.get("conditions", {}).get("start", {})
    values |= {name: begun[name] for name in CLOCKS if begun.get(name) is not None}
    nested = ("packages", "distributions", "variables", "prefixes")
    return {name: _word(value) for name, value in values.items() if name not in nested}


def lines(diff: EnvironmentDiff) -> list[str]:
    """The moment and the machine of both sides, as the report has them."""
    moments = []
    for (moment, name), text in MOMENTS.items():
        then, here = (side.get(moment, {}).get(name) for side in (diff.then, diff.here))
        if here is not None:
            moments.append(f"{text}: {_word(then)} when published, {_word(here)} here")
    if not diff.differing:
        return [*moments, "differences of the environment: none"]
    head = ("differs in the environment", "published", "here")
    return [*moments, *text_table(head, diff.differing)]


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
