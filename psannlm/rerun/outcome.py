"""A row measured again, here: each quantity inside or outside, what differs, and the report of it.

Columns say by `compare` how a repeat is judged: a rate, a time or a ratio by the prediction
interval of the geometric mean over processes; a loss by that of the mean over seeds; what is
counted by a share that it may differ by; what was measured once is shown alone.

The interval of a published median says where the median of endless repeats lies. A few new
processes scatter by themselves as well, so they are held to a prediction interval: for the mean of
m new values, given n published ones with mean y and standard deviation s (n - 1 in the
denominator),

    y +- t * s * sqrt(1/m + 1/n),

t the quantile of Student's distribution with n - 1 degrees of freedom (W. Q. Meeker, G. J. Hahn
and L. A. Escobar, Statistical Intervals, 2nd ed., Wiley 2017, chapter 4). Rates, times and ratios
err by factors: of these y and s are taken over logarithms, and the means are geometric.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, geometric_mean, stdev
from typing import Any, NamedTuple

from scipy.stats import t as student

from psannlm import ROOT
from psannlm.bench.rates import is_emulated
from psannlm.config.schema import ConfigError
from psannlm.evidence.page import Page, Quantity, Repeat, RerunRequest
from psannlm.evidence.runs import Evidence
from psannlm.evidence.table import Column, Compare, Row
from psannlm.evidence.text import number
from psannlm.files import sha256_of
from psannlm.places import located, recall
from psannlm.rerun.difference import EnvironmentDiff, lines, text_table

LEVEL = 0.01
"""Share of repeats that the intervals leave outside, over all that is judged of a row together.

OUTSIDE speaks against a published number, so it should be rare where the number is right. The
formula is exact for normal logarithms; where they have the tails of Student's distribution with 3
degrees of freedom, intervals made for 1% leave out up to 3.5%."""

SURE = f"{1 - LEVEL:.0%}"  # what an interval is called by
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
        cells = [(*quantity[:-1], WORDS[quantity.inside]) for quantity in self.repeat.quantities]
        outside = [q.name for q in self.repeat.quantities if q.inside is False]
        verdict = f"OUTSIDE, in {', '.join(outside)}" if outside else "INSIDE"
        why = self.environment.no_verdict
        if self.inside is None:
            nothing = "NOT COMPARABLE, nothing of this row can be judged here"
            verdict = f"{why}: no verdict" if why else nothing
        elif any(q.expected == f"{why}: no verdict" for q in self.repeat.quantities):
            verdict += f", in all but speeds; {why}: no verdict on them"
        parts = (
            _opening(self),
            text_table(HEAD, cells),
            self.repeat.rules,
            lines(self.environment),
            [f"overall: {verdict}"],
        )
        return "\n\n".join("\n".join(lines) for lines in parts)


class Expected(NamedTuple):
    """Where the mean of new values should lie."""

    low: float
    high: float

    def covers(self, value: float) -> bool:
        """Whether `value` lies inside; no number does not."""
        return self.low <= value <= self.high


def expected_mean(published: Sequence[float], n_new: int, *, judged: int = 1) -> Expected | None:
    """Where the mean of `n_new` values should lie, given one a process or training; None of one.

    Means that are `judged` together share LEVEL, by Bonferroni's inequality.
    """
    n = len(published)
    if n < 2:
        return None
    quantile = float(student.ppf(1 - LEVEL / judged / 2, n - 1))
    half = quantile * stdev(published) * math.sqrt(1 / n_new + 1 / n)
    middle = fmean(published)
    return Expected(middle - half, middle + half)


def expected_rate(
    published: Sequence[float], n_new: int, *, judged: int = 1, floor: float = 0.0
) -> Expected | None:
    """Where the geometric mean of new rates, times or ratios should lie; as `expected_mean`.

    The interval is wider by `floor` at both ends, the noise floor of the run: how far from 1 a
    ratio of equals came. All published values are positive.
    """
    logs = expected_mean([math.log(value) for value in published], n_new, judged=judged)
    return logs and Expected(math.exp(logs.low) / (1 + floor), math.exp(logs.high) * (1 + floor))


@dataclass(frozen=True)
class _Compared:
    """One column of a row: its values by process or seed, then and now."""

    row: Row
    request: RerunRequest[Any]
    column: Column
    then: Mapping[Any, float]
    now: Mapping[Any, float]
    judged: int  # how many columns are judged together

    @property
    def name(self) -> str:
        """What it is, with its unit."""
        quantity = self.column.quantity or self.column.text.removesuffix(".")
        parameters = self.row.run.manifest["parameters"]
        return f"{quantity}, {self.column.unit}".rstrip(", ").format(**parameters)

    @property
    def incomparable(self) -> str:
        """Why rates and times cannot be compared; empty if they can."""
        values, device = self.row.values, self.request.device.type
        precision = str(values.get("precision") or values.get("amp") or "fp32")
        if values.get("emulated") or is_emulated(device, precision):
            return f"{precision} is emulated"
        return self.request.no_verdict

    def show(self, value: Any) -> str:
        """A number in the column's format."""
        return number(value, self.column.format or ".6g")

    def between(self, expected: Expected | None) -> str:
        """Where a number should lie, in words."""
        return " to ".join(map(self.show, expected)) if expected else "no interval"


def compared(
    page: Page[Any, Any],
    row: Row,
    request: RerunRequest[Any],
    old: Sequence[Any],
    new: Sequence[Any],
) -> Repeat:
    """What new records say of a row, beside all `old` records of its run."""
    if own := page.compare_again(row, request, old, new):
        return own
    then, now = (page.replicates(records, row, request.config) for records in (old, new))
    columns = page.table_of(row).columns
    shared = [column for column in columns if then.get(column.name) and now.get(column.name)]
    judged = [column for column in shared if column.compare not in (None, "single")]
    known = (_Compared(row, request, c, then[c.name], now[c.name], len(judged)) for c in shared)
    measured = "ok" if any(now.get(c.name) for c in columns if c.compare) else "failed"
    stated = str(row.values.get("status") or "ok"), str(row.values.get("reason") or "")
    reason = "; ".join(dict.fromkeys(page.failures(new, row)))
    quantities = [*status(*stated, measured, reason)]
    if request.no_verdict:  # what fits, or has a time to be in, depends on the machine
        quantities = [quantity._replace(inside=None) for quantity in quantities]
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
    published, low = one.show(values.get(name)), values.get(f"{name}_low")
    if low is not None:
        published += f" ({one.show(low)} to {one.show(values.get(f'{name}_high'))})"
    measured = geometric_mean(now)
    why = one.incomparable
    inside = expected.covers(measured) if expected and not why else None
    within = f"{why}: no verdict" if why else one.between(expected)
    return [Quantity(one.name, published, within, one.show(measured), inside)]


def _counted(one: _Compared) -> list[Quantity]:
    """Processes count alike; what differs between them by its nature is the most of all."""
    sides = [sorted(set(values.values())) for values in (one.then, one.now)]
    share = one.column.within
    if not share:
        return [exact(one.name, *(", ".join(f"{v:,.15g}" for v in side) for side in sides))]
    then, now = (side[-1] for side in sides)
    bound = Expected(then * (1 - share), then * (1 + share))
    inside = bound.covers(now)
    return [Quantity(one.name, one.show(then), one.between(bound), one.show(now), inside)]


def _seeds(one: _Compared) -> list[Quantity]:
    """Each seed, and their mean."""
    losses, quantities = list(one.then.values()), []
    for seed in sorted(one.then.keys() & one.now.keys()):
        name, then, now = f"{one.name}, seed {seed}", one.then[seed], one.now[seed]
        if one.request.same_digits:
            quantities.append(exact(name, repr(then), repr(now)))
            continue
        single = expected_mean(losses, 1)
        inside = single.covers(now) if single else None
        quantities.append(Quantity(name, repr(then), one.between(single), repr(now), inside))
    new = list(one.now.values())
    if expected := expected_mean(losses, len(new)):
        name, mean = f"mean {one.name}, {len(new)} seeds", fmean(new)
        published, within = one.show(fmean(losses)), one.between(expected)
        inside = expected.covers(mean)
        quantities.append(Quantity(name, published, within, one.show(mean), inside))
    return quantities


def _check(one: _Compared) -> list[Quantity]:
    then, now = ("passed" if all(values.values()) else "failed" for values in (one.then, one.now))
    return [exact(one.name, then, now)]


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


def key_text(page: Page[Any, Any], row: Row) -> str:
    """What a row measures, in words."""
    return ", ".join(part for part in (row.values.get("base"), page.setting(row)) if part)


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
    row, diff = outcome.row, outcome.environment
    sentences = [
        f"row {row.number} of {row.file}, run {row.run.name}, page {row.page}: "
        f"{key_text(outcome.page, row)}",
        f"published on {diff.then['device']} by a run that began "
        f"{row.run.manifest['started_at']}; measured again here, on {diff.here['device']}",
    ]
    if row.values.get("status") in ("failed", "refused"):
        reason = row.values.get("reason") or "no reason is stated"
        sentences.append(f"when published this row {row.values['status']}: {reason}; tried again")
    if why := diff.no_verdict:
        sentences.append(
            f"{why} ({', '.join(diff.telling or diff.settings)}): the published interval is that "
            f"of {diff.then['device']}, so there is no verdict on speeds; bytes and losses are "
            "compared all the same"
        )
    return sentences


def refuse_other_text(run: Evidence) -> None:
    """Know again where the corpus of a run lies; ConfigError if it is missing or another text."""
    recall(run.folder.name)
    corpus = run.manifest["corpus"]
    if corpus is None:
        return
    path = located(corpus["path"])
    way_out = f"put that text, with the files that belong to it, at {ROOT / corpus['path']}"
    if "/" in corpus["path"]:  # it lies in the project
        way_out = f"make it with `python -m psannlm corpus build {path.stem}`"
    sha256 = sha256_of(path) if path.is_file() else ""
    if sha256 != corpus["sha256"]:
        problem = f"has sha256 {sha256[:16]}" if sha256 else "is missing"
        raise ConfigError(
            f"{corpus['path']} {problem}, and {run.name} read the text with sha256 "
            f"{corpus['sha256'][:16]}; {way_out}"
        )
