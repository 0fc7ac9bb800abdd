"""The published figures of 2025-11-07, read from book/published.yaml and refused if altered."""

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from psannlm import ROOT
from psannlm.config.parse import read_parameters
from psannlm.config.schema import ConfigError, Number, OneOrMore, Strict, Text, Whole

PATH = ROOT / "book" / "published.yaml"
DIGITS = 16  # of a figure's hash: enough to see a change, short enough to read


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
    where: Text  # a condition on columns of the page's table; `{base}` is that of the figure
    column: str = ""
    low: str = ""
    high: str = ""
    measure: str = ""  # of a validation: the measure of its findings that is shown
    unit: str = ""
    about: Text


class Figure(Strict):
    """One published figure, what it is of, and what was really measured."""

    id: Text
    kind: Text  # which arithmetic it is held against: a name in plausibility.py
    what: Text
    published: Text  # as it is printed in the bundle
    unit: str = ""
    stated: Conditions
    used: Conditions  # what the public files show it was measured with
    measured: Text  # in sentences; names in braces are filled in from `facts`
    facts: Mapping[str, Number | str] = {}  # what else the public files state
    source: OneOrMore[Source]
    protocol: Protocol | None = None
    beside: tuple[Beside, ...] = ()
    sha256: Text

    @property
    def title(self) -> str:
        """What it is of, in words."""
        tokens = self.stated.batch_tokens
        return self.what.format(batch_tokens=f"{tokens:,}" if tokens else "")

    @property
    def base(self) -> str:
        """The base that it is of; empty where it is of none in particular."""
        return self.stated.base or self.used.base

    @property
    def printed(self) -> str:
        """What is printed, with its unit."""
        return f"{self.published} {self.unit}".strip()

    @property
    def decimal(self) -> Decimal:
        """The printed number, as exact as it is printed; `k` stands for a thousand."""
        return Decimal(self.published.lstrip("~").replace(",", "").replace("k", "e3"))

    @property
    def value(self) -> float:
        """The printed number."""
        return float(self.decimal)

    @property
    def rounding(self) -> float:
        """Half a unit of the last printed digit: how far the number may be from what it was."""
        return float(0.5 * 10.0 ** int(self.decimal.as_tuple().exponent))

    def fact(self, name: str) -> float:
        """A number of `facts`."""
        return float(self.facts[name])


class Published(Strict):
    """All figures of the bundle of a date."""

    bundle: Text
    repository: Text
    figures: Annotated[tuple[Figure, ...], Field(min_length=1)]
    sha256: Text

    def of(self, kind: str) -> list[Figure]:
        """The figures of one kind, in their order."""
        return [figure for figure in self.figures if figure.kind == kind]


def load(path: Path = PATH) -> Published:
    """The figures as they were published.

    Raises:
        ConfigError: The file is missing or malformed, or what it says was altered, by name.
    """
    name, out = f"{path.parent.name}/{path.name}", "git has the file as committed"
    try:
        published = Published.model_validate(read_parameters(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"{name}: {where}: {first['msg']}; {out}") from None
    altered = [f"figure {one.id}" for one in published.figures if one.sha256 != fingerprint(one)]
    if not altered and published.sha256 != fingerprint(published):
        altered = ["the file"]
    rule = "was altered, its sha256 differs; a published figure does not change"
    if altered:
        raise ConfigError("\n".join(f"{name}: {what} {rule}; {out}" for what in altered))
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
