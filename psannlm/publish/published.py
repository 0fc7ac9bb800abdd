"""The published figures of 2025-11-07, read from book/published.yaml and refused if altered."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from psannlm import ROOT
from psannlm.config.parse import read_parameters
from psannlm.config.schema import ConfigError, Number, OneOrMore, Strict, Text, Whole

PATH = ROOT / "book" / "published.yaml"
DIGITS = 16
"""Of a figure's hash: enough to see a change, short enough to read."""

Kind = Literal[
    "speed", "batch", "held", "time", "precision", "averaged", "sample", "flag", "machines", "label"
]
"""Which arithmetic a figure is held against; plausibility.py has one of each."""


class Conditions(Strict):
    """What a figure was measured under, as far as it is known."""

    device: str = ""
    base: str = ""
    work: str = ""
    precision: str = ""
    batch: Whole | None = None
    context_length: Whole | None = None
    batch_tokens: Whole | None = None
    steps: Whole | None = None
    d_model: Whole | None = None
    n_layers: Whole | None = None
    n_heads: Whole | None = None
    d_mlp: Whole | None = None
    vocab_size: Whole | None = None
    world_size: Whole | None = None
    grad_checkpoint: bool | None = None
    timestamp: str = ""

    def known(self) -> dict[str, Any]:
        """Those that are known, by name."""
        return {k: v for k, v in dict(self).items() if v is not None and v != ""}


class Source(Strict):
    """Where in the public repository something stands."""

    file: Text
    lines: str = ""
    commit: Text


class Protocol(Strict):
    """Which measure of our repetition of the original protocol stands beside a figure."""

    check: Text
    measure: Text


class Beside(Strict):
    """Which rows of ours stand beside a figure under a fair protocol."""

    page: Text
    where: Text
    """A condition on columns of the page's table; `{base}` is that of the figure."""

    column: str = ""
    low: str = ""
    high: str = ""
    measure: str = ""
    """Of a validation: the measure of its findings that is shown."""

    unit: str = ""
    about: Text


class Figure(Strict):
    """One published figure, what it is of, and what was really measured."""

    id: Text
    kind: Kind
    what: Text
    published: Text
    """As it is printed in the bundle."""

    unit: str = ""
    stated: Conditions
    used: Conditions
    """What the public files show it was measured with."""

    measured: Text
    """What was really measured, in sentences; names in braces are filled in from `facts`."""

    facts: Mapping[str, Number | str] = {}
    """What else the public files state, by name."""

    source: OneOrMore[Source]
    protocol: Protocol | None = None
    beside: tuple[Beside, ...] = ()
    sha256: Text

    @property
    def value(self) -> float:
        """The printed number; `k` stands for a thousand.

        Raises:
            ConfigError: What is printed is no number.
        """
        text = self.published.lstrip("~").replace(",", "")
        factor = 1000.0 if text.endswith("k") else 1.0
        try:
            return float(text.removesuffix("k")) * factor
        except ValueError:
            raise ConfigError(f"figure {self.id}: {self.published!r} is no number") from None

    @property
    def rounding(self) -> float:
        """Half a unit of the last printed digit: how far the number may be from what it was."""
        text = self.published.lstrip("~").replace(",", "")
        factor = 1000.0 if text.endswith("k") else 1.0
        mantissa, _, power = text.removesuffix("k").partition("e")
        decimals = len(mantissa.partition(".")[2])
        return float(0.5 * 10.0 ** (int(power or 0) - decimals) * factor)

    def fact(self, name: str) -> float:
        """A number of `facts`.

        Raises:
            ConfigError: There is none of that name.
        """
        found = self.facts.get(name)
        if not isinstance(found, float | int):
            raise ConfigError(f"figure {self.id}: facts must have the number {name!r}")
        return float(found)

    @property
    def printed(self) -> str:
        """What is printed, with its unit."""
        return f"{self.published} {self.unit}".strip()


class Published(Strict):
    """All figures of the bundle."""

    bundle: Text
    """Its date."""

    repository: Text
    figures: Annotated[tuple[Figure, ...], Field(min_length=1)]
    sha256: Text

    def of(self, kind: Kind) -> list[Figure]:
        """The figures of one kind, in their order."""
        return [figure for figure in self.figures if figure.kind == kind]


def load(path: Path = PATH) -> Published:
    """The figures as they were published.

    Raises:
        ConfigError: The file is missing or malformed, or what it says was altered, by name.
    """
    data, name = read_parameters(path), _name(path)
    try:
        published = Published.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(
            f"{name}: {where}: {first['msg']}; git has the file as committed"
        ) from None
    if broken := _altered(published, name):
        raise ConfigError("\n".join(broken))
    return published


def problems(path: Path = PATH) -> list[str]:
    """What is wrong with the file, a line each; none if it says what was published."""
    try:
        load(path)
    except ConfigError as error:
        return str(error).splitlines()
    return []


def fingerprint(part: Figure | Published) -> str:
    """The hash of all that a figure, or the file, says beside its hash."""
    content = part.model_dump(mode="json", exclude={"sha256"})
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _altered(published: Published, name: str) -> list[str]:
    out = "a published figure does not change; git has the file as committed"
    broken = [
        f"{name}: figure {figure.id} was altered, its sha256 differs; {out}"
        for figure in published.figures
        if figure.sha256 != fingerprint(figure)
    ]
    if not broken and published.sha256 != fingerprint(published):
        broken = [f"{name}: the file was altered, its sha256 differs; {out}"]
    return broken


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
