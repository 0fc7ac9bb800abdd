"""Whether a number became worse: two published numbers, and a bound that was known before them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from psannlm.bench.statistics import FEWEST_REPEATS, SMALLEST_EFFECT
from psannlm.publish.numbers import Number, Rule

Verdict = Literal["regressed", "improved", "within the noise", "unchanged", "not comparable"]


@dataclass(frozen=True)
class Judged:
    """What one number is against the same number of an earlier run."""

    verdict: Verdict
    bound: str = ""
    """What a difference had to exceed, in words."""

    change: float | None = None
    """The value over the one before, minus one."""

    reason: str = ""


def judge(now: Number, then: Number | None, machine_floor: float | None) -> Judged:
    """The verdict on a number.

    Args:
        now: Of the newest run.
        then: The same of the run before; None if that has no such row.
        machine_floor: The noise floor of times that state none of their own; None if unknown.
    """
    if then is None:
        return Judged("not comparable", reason="the run before has no such row")
    if now.quantity.rule == "check" or now.value is None or then.value is None:
        return _by_status(now, then)
    return RULES[now.quantity.rule](now, then, machine_floor)


def _by_status(now: Number, then: Number) -> Judged:
    """A check, or what could be measured in one of two runs at most."""
    bound = "a check passes or does not"
    if now.quantity.rule != "check":
        bound = "a number is there or is not"
    if now.status == then.status:
        return Judged("unchanged", bound)
    good = ("ok", "passed")
    if then.status in good:
        return Judged("regressed", bound)
    if now.status in good:
        return Judged("improved", bound)
    return Judged("not comparable", reason="neither run has a result")


def _beyond_noise(now: Number, then: Number, machine_floor: float | None) -> Judged:
    """Disjoint intervals, and a change above both noise floors and the smallest effect."""
    floors = [floor for floor in (now.floor, then.floor) if floor is not None]
    whose = "noise floor"
    if not floors and machine_floor is not None:
        floors, whose = [machine_floor], "noise floor of this machine's throughput run"
    if not floors:
        return Judged("not comparable", reason="no noise floor is known of this machine")
    if min(now.n, then.n) < FEWEST_REPEATS:
        why = f"a verdict needs {FEWEST_REPEATS} processes, these are {min(now.n, then.n)}"
        return Judged("not comparable", reason=why)
    bound = max(*floors, SMALLEST_EFFECT)
    said = f"{bound:.1%} ({whose}) and disjoint intervals"
    changed = are_disjoint(now, then) and abs(_change(now, then)) > bound
    return _judged(now, then, changed=changed, bound=said, otherwise="within the noise")


def _single(now: Number, then: Number, machine_floor: float | None) -> Judged:
    """Single runs have no interval: the machine's noise floor alone bounds them."""
    if machine_floor is None:
        return Judged("not comparable", reason="no noise floor is known of this machine")
    bound = max(machine_floor, SMALLEST_EFFECT)
    said = f"{bound:.1%} (noise floor of this machine's throughput run); single runs, no interval"
    changed = abs(_change(now, then)) > bound
    return _judged(now, then, changed=changed, bound=said, otherwise="within the noise")


def _counted(now: Number, then: Number, machine_floor: float | None) -> Judged:
    """What the same code would repeat to the digit, or nearly so: a fixed share bounds it."""
    said = f"{SMALLEST_EFFECT:.0%}; repeated alike, it has no interval"
    changed = abs(_change(now, then)) > SMALLEST_EFFECT
    return _judged(now, then, changed=changed, bound=said, otherwise="unchanged")


def _interval(now: Number, then: Number, machine_floor: float | None) -> Judged:
    """Disjoint intervals over trainings."""
    if now.low is None or then.low is None:
        return Judged("not comparable", reason="there is no interval")
    changed = are_disjoint(now, then)
    said = "disjoint intervals"
    return _judged(now, then, changed=changed, bound=said, otherwise="within the noise")


RULES: Mapping[Rule, Callable[[Number, Number, float | None], Judged]] = {
    "noise": _beyond_noise,
    "single": _single,
    "counted": _counted,
    "interval": _interval,
}


def are_disjoint(now: Number, then: Number) -> bool:
    """Whether no value lies in both intervals; one that is missing shares every value."""
    if now.low is None or now.high is None or then.low is None or then.high is None:
        return False
    return now.low > then.high or then.low > now.high


def _change(now: Number, then: Number) -> float:
    """The newer value over the older one, minus one; infinite if that was nothing."""
    ours, theirs = float(now.value or 0), float(then.value or 0)
    if theirs == 0:
        return 0.0 if ours == 0 else float("inf")
    return ours / theirs - 1


def _judged(now: Number, then: Number, *, changed: bool, bound: str, otherwise: Verdict) -> Judged:
    change = _change(now, then)
    if not changed:
        return Judged(otherwise, bound, change)
    grew = change > 0
    return Judged(
        "improved" if grew == now.quantity.higher_is_better else "regressed", bound, change
    )
