"""What a report will run and how long it should take: less of it where a budget would not do.

A budget is kept by taking less of the parameters that a page names for that, in its order, each
down to the least that its verdicts need. What was taken less of is given to papermill beside the
parameter file, so a run's parameters are those that it used.
"""

import math
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from pydantic import TypeAdapter, ValidationError

from psannlm import ROOT
from psannlm.bench.rates import Pace, measured, resolve
from psannlm.config.parse import nearest, read_parameters
from psannlm.config.schema import ConfigError, Positive, Strict
from psannlm.device import select_device
from psannlm.evidence.notebook import default_parameters
from psannlm.evidence.page import Page
from psannlm.evidence.session import configuration
from psannlm.pages.registry import pages

BUDGET = "budget.yaml"  # in params/: minutes that a notebook of a preset may take
NOTEBOOK_SECONDS = 12.0  # of a kernel's start, of tables and figures


class Planned(NamedTuple):
    """A notebook of a report, as it will be run."""

    notebook: str
    path: Path  # of its parameter file
    config: Strict
    pace: Pace | None = None  # what the minutes follow from
    minutes: float = math.inf  # that it should take; infinite if nobody can tell
    unreduced: float = math.inf  # minutes of all that its parameter file asks for
    budget: float = math.inf  # minutes that it may take
    reduced: dict[str, Any] | None = None  # parameters of which it takes less

    @property
    def arguments(self) -> list[str]:
        """What papermill is given: the parameter file, and what differs from it."""
        line = yaml.safe_dump(self.reduced, default_flow_style=True, width=math.inf).strip()
        return ["-f", shown(self.path), *(["-y", line] if self.reduced else [])]

    def __str__(self) -> str:
        if math.isinf(self.minutes):
            return f"{self.notebook}: time unknown"
        line = f"{self.notebook}: about {self.minutes:.1f} min"
        if self.reduced:
            values = ", ".join(f"{name} {value}" for name, value in self.reduced.items())
            line += f", reduced to {values}: all of {shown(self.path)} would take "
            line += f"{self.unreduced:.1f} min, the budget is {self.budget:g}"
        if self.minutes > self.budget:
            line += f"; {self.minutes - self.budget:.1f} min over its budget at the least"
        return line


def in_words(plan: Sequence[Planned]) -> str:
    """A plan in lines: the rates it follows from, each notebook, the minutes of all together."""
    known = [one for one in plan if math.isfinite(one.minutes)]
    lines = [f"time expected from {one.pace}:" for one in known[:1]] + [str(one) for one in plan]
    if known:
        together = f"together: about {sum(one.minutes for one in known):.1f} min"
        lines.append(together + ("" if known == plan else " and the unknown"))
    return "\n".join(lines)


def jobs(preset: str, only: Sequence[str] = ()) -> dict[str, tuple[Path, Strict]]:
    """The parameter file of each notebook of a preset, or of some, and what it asks for.

    A file that a variable of the environment names takes the place of the preset's. ConfigError
    tells all problems.
    """
    found, problems = {}, []
    for name in chosen(preset, only):
        variable = pages()[name].parameters_variable
        own = os.environ.get(variable)
        path = Path(own).absolute() if own else ROOT / "params" / preset / f"{name}.yaml"
        try:
            found[name] = path, configuration_in(path, name)
        except ConfigError as error:
            problems.append(f"{variable}: {error}" if own else str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def plan(preset: str, only: Sequence[str] = ()) -> list[Planned]:
    """How each notebook of a preset, or of some, will be run; ConfigError as of `jobs`.

    The rates of the device are measured for it: of a GPU in a process of its own, as a context
    would take memory of the notebooks. One's own file is run as it stands.
    """
    if not torch.cuda.is_available():
        return _plan(preset, only)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_plan, preset, only).result()


def _plan(preset: str, only: Sequence[str]) -> list[Planned]:
    found, folder = jobs(preset, only), ROOT / "params"
    minutes = budgets(folder / BUDGET).get(preset, {})
    return [
        planned(name, path, config, minutes.get(name) if folder in path.parents else None)
        for name, (path, config) in found.items()
    ]


def budgets(path: Path) -> dict[str, dict[str, float]]:
    """Minutes that a notebook may take, by preset; ConfigError where the file says no such."""
    try:
        return TypeAdapter(dict[str, dict[str, Positive]]).validate_python(read_parameters(path))
    except ValidationError as error:
        first = error.errors()[0]
        where, got = ".".join(map(str, first["loc"])), first["input"]
        raise ConfigError(f"{shown(path)}: {where} must be minutes above 0, got {got!r}") from None


def planned(
    name: str, path: Path, config: Strict, budget: float | None, pace: Pace | None = None
) -> Planned:
    """How a notebook will be run: all that its parameter file asks for, or what fits its budget.

    Where `pace` is not given it is measured; a device that is not here leaves the time unknown.
    """
    page = pages()[name]
    if (device := device_of(config)) is None:
        return Planned(name, path, config)
    pace, config = pace or measured(device), resolve(config, device)

    def minutes_of(config: Strict) -> float:
        return (page.expected_seconds(config, pace) + NOTEBOOK_SECONDS) / 60

    unreduced, limit = minutes_of(config), budget or math.inf
    options = [config, *(reductions(page, config) if unreduced < math.inf else ())]
    used = next((one for one in options if minutes_of(one) <= limit), options[-1])
    asked, now = config.model_dump(mode="json"), used.model_dump(mode="json")
    reduced = {key: now[key] for key in page.reducible if now[key] != asked[key]}
    return Planned(name, path, used, pace, minutes_of(used), unreduced, limit, reduced)


def device_of(config: Strict) -> torch.device | None:
    """The device that a configuration asks for; None if it is not here."""
    try:
        return select_device(getattr(config, "device", "auto"))
    except ConfigError:
        return None


def reductions(page: Page[Any, Any], config: Strict) -> Iterator[Strict]:
    """Configurations that take less and less of what the page may, the last the least of all."""
    for name, least in page.reducible.items():
        for value in _smaller(getattr(config, name), least):
            config = config.model_copy(update={name: value})
            yield config


def _smaller(value: Any, least: float) -> Iterator[Any]:
    """Values from below `value` to `least`: numbers, or lists by their length."""
    if isinstance(value, tuple):
        yield from (value[:n] for n in _smaller(len(value), least))
    elif isinstance(value, int):
        yield from range(value - 1, int(least) - 1, -1)
    elif value > least:
        yield from (round(least + (value - least) * tenth / 10, 3) for tenth in range(9, -1, -1))


def chosen(preset: str, only: Sequence[str] = ()) -> list[str]:
    """The notebooks of `only`, or all that install no other package, in the order of a report."""
    files = (path for name in pages() for path in (ROOT / "params").glob(f"*/{name}.yaml"))
    presets = sorted({path.parent.name for path in files})
    asked = [("preset", preset, presets), *(("notebook", name, [*pages()]) for name in only)]
    for what, name, known in asked:
        if name not in known:
            near = nearest(name, known)
            raise ConfigError(f"unknown {what} {name!r}{near} There are: {', '.join(known)}")
    wanted = only or [name for name, page in pages().items() if not page.installs]
    return [name for name in pages() if name in wanted]


def configuration_in(path: Path, name: str) -> Strict:
    """Of a notebook, in a parameter file.

    ConfigError if the notebook would refuse it, or a parameter is left out.
    """
    data, declared = read_parameters(path), default_parameters(name)
    missing = [f"  {key}: missing" for key in declared if key not in data]
    try:
        config: Strict = configuration(pages()[name], declared | data, shown(path))
    except ConfigError as error:
        raise ConfigError("\n".join([str(error), *missing])) from None
    if missing:
        raise ConfigError("\n".join([f"{shown(path)}:", *missing]))
    return config


def shown(path: Path) -> str:
    """A path as papermill is given it: from the project's folder, if it lies there."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
