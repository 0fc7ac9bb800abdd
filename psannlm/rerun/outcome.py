"""What became of repeating a row: each quantity inside or outside, and the report of it as text."""

from collections.abc import Sequence
from dataclasses import dataclass

from psannlm.evidence.rows import Row
from psannlm.evidence.text import number
from psannlm.rerun.expectation import Expected
from psannlm.rerun.surroundings import EnvironmentDiff

WORDS = {True: "INSIDE", False: "OUTSIDE", None: "not judged"}
HEAD = ("quantity", "published", "expected of this repeat", "measured here", "verdict")

KEYS = {
    "validation": ("check", "base"),
    "throughput": ("label", "batch_tokens", "mode", "precision"),
    "memory": ("base", "context_length", "batch_tokens", "grad_checkpoint", "amp", "variant"),
    "tiny_corpus": ("base",),
    "shootout": ("base",),
    "peer": ("side", "base", "setting", "work", "precision"),
}
"""Of each page: the columns that tell what a row measures."""


@dataclass(frozen=True)
class Quantity:
    """One number, or word, of a row: as published, as expected of the repeat, as it came out."""

    name: str
    """With its unit."""

    published: str
    expected: str
    measured: str
    inside: bool | None
    """None where it is shown and not judged."""


@dataclass(frozen=True)
class Repeat:
    """What a page found when it measured a row again."""

    quantities: tuple[Quantity, ...]
    rules: tuple[str, ...]
    """What each kind of quantity is judged by, a sentence each."""


@dataclass(frozen=True)
class Outcome:
    """A row that was measured again."""

    row: Row
    repeat: Repeat
    surroundings: EnvironmentDiff

    @property
    def inside(self) -> bool | None:
        """Whether all that is judged came out as expected; None if nothing could be judged."""
        judged = [q.inside for q in self.repeat.quantities if q.inside is not None]
        return all(judged) if judged else None

    @property
    def text(self) -> str:
        """The report: quantities, rules, what differs here, and the verdict as its last line."""
        lines = [
            *_opening(self.row, self.surroundings),
            "",
            *columns(HEAD, [_cells(quantity) for quantity in self.repeat.quantities]),
            "",
            *self.repeat.rules,
            "",
            *_environment(self.surroundings),
            "",
            _verdict(self),
        ]
        return "\n".join(lines)


def key_text(row: Row) -> str:
    """What a row measures, in words."""
    named = ((name, row.values.get(name)) for name in KEYS[row.page])
    return ", ".join(f"{name} {'unknown' if v is None else v}" for name, v in named)


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in plain text, its columns two blanks apart."""
    table = [head, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    return ["  ".join(f"{c:<{w}}" for c, w in zip(r, widths, strict=True)).rstrip() for r in table]


def rate(
    name: str,
    published: tuple[float | None, float | None, float | None],
    measured: float,
    expected: Expected | None,
    *,
    pattern: str,
    comparable: bool,
) -> Quantity:
    """A rate, a time or a ratio beside the interval that the published processes predict.

    Args:
        name: With its unit.
        published: The number and the ends of its interval.
        measured: Geometric mean of the new processes.
        expected: Where it should lie; None where one process alone was published.
        pattern: Format of all numbers.
        comparable: Whether this machine is the one that was measured.
    """
    middle, low, high = published
    said = number(middle, pattern)
    if low is not None:
        said += f" ({between(low, high, pattern)})"
    inside = expected.covers(measured) if expected and comparable else None
    within = between(expected.low, expected.high, pattern) if expected else "no interval"
    if not comparable:
        within = "not comparable: another device"
    return Quantity(name, said, within, format(measured, pattern), inside)


def between(low: float | None, high: float | None, pattern: str) -> str:
    """Both ends of an interval."""
    return f"{number(low, pattern)} to {number(high, pattern)}"


def exact(name: str, published: str, measured: str) -> Quantity:
    """What has to come out the same."""
    return Quantity(name, published, "the same", measured, published == measured)


def status(published: str, reason: str, measured: str, reason_here: str) -> tuple[Quantity, ...]:
    """Whether the row failed, then or now; nothing of a row that did neither."""
    if published == measured == "ok":
        return ()
    then = f"{published}: {reason}" if reason else published
    here = f"{measured}: {reason_here}" if reason_here else measured
    return (Quantity("status", then, published, here, published == measured),)


def _opening(row: Row, found: EnvironmentDiff) -> list[str]:
    lines = [
        f"row {row.number} of {row.file}, run {row.run.name}, page {row.page}: {key_text(row)}",
        f"published on {found.then['device']} by a run that began "
        f"{row.run.manifest['started_at']}; measured again here, on {found.here['device']}",
    ]
    if row.values.get("status") in ("failed", "refused"):
        reason = row.values.get("reason") or "no reason is stated"
        lines.append(f"when published this row {row.values['status']}: {reason}; tried again")
    if not found.same_device:
        lines.append(
            f"the published interval is that of {found.then['device']}: the verdict is about "
            "repeating there, so speeds are not comparable; bytes and losses are compared all "
            "the same"
        )
    return lines


def _cells(quantity: Quantity) -> tuple[str, ...]:
    return (
        quantity.name,
        quantity.published,
        quantity.expected,
        quantity.measured,
        WORDS[quantity.inside],
    )


def _environment(found: EnvironmentDiff) -> list[str]:
    load = f"load of the last minute: {found.then.get('load_1min', 'unknown')} when published"
    lines = [f"{load}, {found.here.get('load_1min', 'unknown')} here before measuring"]
    if not found.differing:
        return [*lines, "differences of the environment: none"]
    facts = [(fact.name, fact.published, fact.here) for fact in found.differing]
    return [*lines, *columns(("differs in the environment", "published", "here"), facts)]


def _verdict(outcome: Outcome) -> str:
    if outcome.inside is None:
        return "overall: NOT COMPARABLE, nothing of this row can be judged here"
    outside = [q.name for q in outcome.repeat.quantities if q.inside is False]
    if outside:
        return f"overall: OUTSIDE, in {', '.join(outside)}"
    return "overall: INSIDE"
