"""A row measured again: each quantity inside or outside, and the report of it as text.

Columns say by `compare` how a repeat is judged: a rate, a time or a ratio by the prediction
interval of the geometric mean over processes; a loss by that of the mean over seeds; what is
counted by a share that it may differ by; what was measured once is shown alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, geometric_mean
from typing import Any

from psannlm.evidence.page import Page, Quantity, Repeat, RerunRequest
from psannlm.evidence.rows import Row
from psannlm.evidence.table import Column, Compare
from psannlm.evidence.text import number
from psannlm.rerun.environment_diff import EnvironmentDiff
from psannlm.rerun.expectation import SURE, Expected, expected_mean, expected_rate

WORDS = {True: "INSIDE", False: "OUTSIDE", None: "not judged"}
HEAD = ("quantity", "published", "expected of this repeat", "measured here", "verdict")
RULES: Mapping[Compare, str] = {
    "noise": "speeds, times and ratios: the geometric mean of the new processes must lie in the "
    f"{SURE} prediction interval that the published processes give for so many new ones, widened "
    "by the noise floor of the run, or of this machine where the run measures nothing twice; one "
    "process gives none",
    "interval": "losses: a seed gives the same digits on the same processor and torch; elsewhere, "
    f"as the mean does, it lies within the {SURE} prediction interval of the published seeds",
    "counted": "what is counted: the same, or within the share that is named",
    "check": "checks: as they came out when published",
}


@dataclass(frozen=True)
class Outcome:
    """A row that was measured again."""

    page: Page[Any, Any]
    row: Row
    repeat: Repeat
    environment: EnvironmentDiff

    @property
    def inside(self) -> bool | None:
        """Whether all that is judged came out as expected; None if nothing could be judged."""
        judged = [q.inside for q in self.repeat.quantities if q.inside is not None]
        return all(judged) if judged else None

    @property
    def text(self) -> str:
        """The report: quantities, rules, what differs here, and the verdict as its last line."""
        lines = [
            *_opening(self),
            "",
            *text_table(HEAD, [_cells(quantity) for quantity in self.repeat.quantities]),
            "",
            *self.repeat.rules,
            "",
            *_environment(self.environment),
            "",
            _verdict(self),
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class _Compared:
    """One column of a row: its values by process or seed, then and now."""

    row: Row
    request: RerunRequest[Any]
    column: Column
    then: Mapping[Any, float]
    now: Mapping[Any, float]
    judged: int
    """How many columns are judged together."""

    @property
    def name(self) -> str:
        """What it is, with its unit."""
        asked = self.row.run.manifest["parameters"]
        column = self.column
        said = column.quantity or column.text.removesuffix(".")
        return f"{said}, {column.unit}".rstrip(", ").format(**asked)

    def show(self, value: Any) -> str:
        """A number in the column's format."""
        return number(value, self.column.format or ".6g")


def compared(
    page: Page[Any, Any],
    row: Row,
    request: RerunRequest[Any],
    old: Sequence[Any],
    new: Sequence[Any],
) -> Repeat:
    """What new records say of a row.

    Args:
        page: Of the row.
        row: As published.
        request: What the new records were made for.
        old: All records of the run.
        new: Those of the repeat.
    """
    if own := page.compare_again(row, request, old, new):
        return own
    then, now = (page.replicates(records, row, request.config) for records in (old, new))
    columns = page.table_of(row).columns
    shared = [column for column in columns if then.get(column.name) and now.get(column.name)]
    judged = [column for column in shared if column.compare not in (None, "single")]
    known = (_Compared(row, request, c, then[c.name], now[c.name], len(judged)) for c in shared)
    reason = "; ".join(dict.fromkeys(page.failures(new, row)))
    measured = "ok" if any(now.get(c.name) for c in columns if c.compare) else "failed"
    stated = str(row.values.get("status") or "ok"), str(row.values.get("reason") or "")
    quantities = [*status(*stated, measured, reason)]
    for one in known:
        quantities += JUDGES.get(one.column.compare, _shown)(one)
    kinds = dict.fromkeys(column.compare for column in judged if column.compare)
    return Repeat(tuple(quantities), tuple(RULES[kind] for kind in kinds if kind in RULES))


def _rate(one: _Compared) -> list[Quantity]:
    """A rate, a time or a ratio beside the interval that the published processes predict."""
    values, name = one.row.values, one.column.name
    floor = values.get("noise_floor") or one.request.floor
    then, now = list(one.then.values()), list(one.now.values())
    expected = expected_rate(then, len(now), judged=one.judged, floor=floor)
    said, low = one.show(values.get(name)), values.get(f"{name}_low")
    if low is not None:
        said += f" ({one.show(low)} to {one.show(values.get(f'{name}_high'))})"
    measured = geometric_mean(now)
    inside = expected.covers(measured) if expected and one.request.same_device else None
    within = _between(one, expected)
    if not one.request.same_device:
        within = "not comparable: another device"
    return [Quantity(one.name, said, within, one.show(measured), inside)]


def _counted(one: _Compared) -> list[Quantity]:
    """Processes count alike; what differs between them by its nature is the most of all."""
    share = one.column.within
    if not share:
        said, here = (
            ", ".join(f"{value:,.15g}" for value in sorted(set(values.values())))
            for values in (one.then, one.now)
        )
        return [exact(one.name, said, here)]
    then, now = max(one.then.values()), max(one.now.values())
    bound = Expected(then * (1 - share), then * (1 + share))
    inside = bound.covers(now)
    return [Quantity(one.name, one.show(then), _between(one, bound), one.show(now), inside)]


def _seeds(one: _Compared) -> list[Quantity]:
    """Each seed, and their mean."""
    losses, found = list(one.then.values()), []
    for seed in sorted(one.then.keys() & one.now.keys()):
        name, then, now = f"{one.name}, seed {seed}", one.then[seed], one.now[seed]
        if one.request.same_digits:
            found.append(exact(name, repr(then), repr(now)))
            continue
        single = expected_mean(losses, 1)
        inside = single.covers(now) if single else None
        found.append(Quantity(name, repr(then), _between(one, single), repr(now), inside))
    new = list(one.now.values())
    if expected := expected_mean(losses, len(new)):
        name, mean = f"mean {one.name}, {len(new)} seeds", fmean(new)
        within, inside = _between(one, expected), expected.covers(mean)
        found.append(Quantity(name, one.show(fmean(losses)), within, one.show(mean), inside))
    return found


def _check(one: _Compared) -> list[Quantity]:
    said, here = ("passed" if all(values.values()) else "failed" for values in (one.then, one.now))
    return [exact(one.name, said, here)]


def _shown(one: _Compared) -> list[Quantity]:
    """What nothing judges: it tells a slower machine from a slower network."""
    then, now = (one.show(geometric_mean(values.values())) for values in (one.then, one.now))
    return [Quantity(one.name, then, "shown only", now, None)]


JUDGES: Mapping[Compare | None, Callable[[_Compared], list[Quantity]]] = {
    "noise": _rate,
    "counted": _counted,
    "interval": _seeds,
    "check": _check,
}


def _between(one: _Compared, expected: Expected | None) -> str:
    if expected is None:
        return "no interval"
    return f"{one.show(expected.low)} to {one.show(expected.high)}"


def key_text(page: Page[Any, Any], row: Row) -> str:
    """What a row measures, in words."""
    return ", ".join(part for part in (row.values.get("base"), page.setting(row)) if part)


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in plain text, its columns two blanks apart."""
    table = [head, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    return ["  ".join(f"{c:<{w}}" for c, w in zip(r, widths, strict=True)).rstrip() for r in table]


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


def _opening(outcome: Outcome) -> list[str]:
    row, found = outcome.row, outcome.environment
    said = key_text(outcome.page, row)
    lines = [
        f"row {row.number} of {row.file}, run {row.run.name}, page {row.page}: {said}",
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
    return [*lines, *text_table(("differs in the environment", "published", "here"), facts)]


def _verdict(outcome: Outcome) -> str:
    if outcome.inside is None:
        return "overall: NOT COMPARABLE, nothing of this row can be judged here"
    outside = [q.name for q in outcome.repeat.quantities if q.inside is False]
    if outside:
        return f"overall: OUTSIDE, in {', '.join(outside)}"
    return "overall: INSIDE"
