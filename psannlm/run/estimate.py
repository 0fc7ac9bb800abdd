"""What a report will run and how long it should take: less of it where a budget would not do.

A budget is kept by taking less of the parameters that a page names for that, in its order, each
down to the least that its verdicts need. What was taken less of is given to papermill beside the
parameter file, so a run's parameters are those that it used.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import yaml
from pydantic import TypeAdapter, ValidationError

from psannlm import ROOT
from psannlm.bench.pace import Pace, measured
from psannlm.bench.rates import resolve
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
    minutes: float | None = None  # that it should take; None if nobody can tell
    budget: float | None = None  # minutes that it may take; None if there is no limit
    whole: float | None = None  # minutes of all that its parameter file asks for
    lessened: Mapping[str, Any] = MappingProxyType({})  # parameters of which it takes less
    pace: Pace | None = None  # what the minutes follow from

    @property
    def less(self) -> str:
        """What differs from the parameter file, as YAML in a line; empty if nothing does."""
        written = yaml.safe_dump(dict(self.lessened), default_flow_style=True, width=1000)
        return str(written).strip() if self.lessened else ""

    @property
    def arguments(self) -> list[str]:
        """What papermill is given: the parameter file, and what differs from it."""
        return ["-f", shown(self.path), *(["-y", self.less] if self.less else [])]

    @property
    def said(self) -> str:
        """The plan in a line: minutes, and what it takes less of and why."""
        if self.minutes is None or self.whole is None:
            return f"{self.notebook}: time unknown"
        line = f"{self.notebook}: about {_minutes(self.minutes)}"
        if self.less:
            line += f" with {self.less[1:-1]}; all of {shown(self.path)} would take "
            line += f"{_minutes(self.whole)}, {BUDGET} allows {self.budget:g}"
        if self.budget is not None and self.minutes > self.budget:
            line += f"; this is the least, {_minutes(self.minutes - self.budget)} over its budget"
        return line


def told(plan: Sequence[Planned]) -> str:
    """A plan in words: the rates it follows from, each notebook, the minutes of all together."""
    known = [one for one in plan if one.pace is not None and one.minutes is not None]
    lines = [one.said for one in plan]
    if known and known[0].pace:
        lines.insert(0, f"time expected from {known[0].pace.said}:")
        together = _minutes(sum(one.minutes or 0.0 for one in known))
        lines.append(f"together: about {together}" + ("" if known == plan else " and the unknown"))
    return "\n".join(lines)


def jobs(preset: str, only: Sequence[str] = ()) -> dict[str, Path]:
    """The parameter file of each notebook of a preset, or of some; ConfigError tells all problems.

    A file that a variable of the environment names takes the place of the preset's.
    """
    found, problems = {}, []
    for name in chosen(preset, only):
        variable = pages()[name].parameters_variable
        named = os.environ.get(variable)
        usual = ROOT / "params" / preset / f"{name}.yaml"
        found[name] = Path(named).absolute() if named else usual
        try:
            check_parameters(name, found[name])
        except ConfigError as error:
            problems.append(f"{variable}: {error}" if named else str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def plan(preset: str, only: Sequence[str] = ()) -> list[Planned]:
    """How each notebook of a preset, or of some, will be run; ConfigError as of `jobs`.

    The rates of the device are measured for it. One's own file is run as it stands.
    """
    files, folder = jobs(preset, only), ROOT / "params"
    minutes = budgets(folder / BUDGET).get(preset, {})
    return [
        planned(name, path, minutes.get(name) if path.is_relative_to(folder) else None)
        for name, path in files.items()
    ]


def budgets(path: Path) -> dict[str, dict[str, float]]:
    """Minutes that a notebook may take, by preset; ConfigError where the file says no such."""
    try:
        return TypeAdapter(dict[str, dict[str, Positive]]).validate_python(read_parameters(path))
    except ValidationError as error:
        first = error.errors()[0]
        where, got = ".".join(map(str, first["loc"])), first["input"]
        raise ConfigError(f"{shown(path)}: {where} must be minutes above 0, got {got!r}") from None


def planned(name: str, path: Path, budget: float | None, pace: Pace | None = None) -> Planned:
    """How a notebook will be run with a parameter file: all of it, or what fits its budget.

    Where `pace` is not given it is measured; a device that is not here leaves the time unknown.
    """
    page, data = pages()[name], default_parameters(name) | read_parameters(path)
    config = configuration(page, data, shown(path))
    try:
        device = select_device(data.get("device", "auto"))
    except ConfigError:
        return Planned(name, path, config)
    config, pace = resolve(config, device), pace or measured(device)
    whole = minutes = _minutes_of(page, config, pace)
    if whole is None or budget is None or whole <= budget:
        return Planned(name, path, config, whole, budget, whole, pace=pace)
    least = config
    for least in fewer(page, config):
        minutes = _minutes_of(page, least, pace)
        if minutes is not None and minutes <= budget:
            break
    then, now = config.model_dump(mode="json"), least.model_dump(mode="json")
    lessened = {key: now[key] for key in page.lessened if now.get(key) != then.get(key)}
    return Planned(name, path, least, minutes, budget, whole, lessened, pace)


def fewer(page: Page[Any, Any], config: Strict) -> Iterator[Strict]:
    """Configurations that take less and less of what the page may, the last the least of all."""
    for name, least in page.lessened.items():
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
        tenths = (round(value * tenth / 10, 3) for tenth in range(9, 0, -1))
        yield from (one for one in tenths if one > least)
        yield least


def _minutes_of(page: Page[Any, Any], config: Strict, pace: Pace) -> float | None:
    seconds = page.expected_seconds(config, pace)
    return None if seconds is None else (seconds + NOTEBOOK_SECONDS) / 60


def _minutes(minutes: float) -> str:
    return f"{minutes:.0f} min" if minutes >= 9.5 else f"{minutes:.1f} min"


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


def check_parameters(name: str, path: Path) -> None:
    """Refuse a parameter file that its notebook would refuse, or that leaves a parameter out."""
    data, declared = read_parameters(path), default_parameters(name)
    missing = [f"  {key}: missing" for key in declared if key not in data]
    try:
        configuration(pages()[name], declared | data, shown(path))
    except ConfigError as error:
        raise ConfigError("\n".join([str(error), *missing])) from None
    if missing:
        raise ConfigError("\n".join([f"{shown(path)}:", *missing]))


def shown(path: Path) -> str:
    """A path as papermill is given it: from the project's folder, if it lies there."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
