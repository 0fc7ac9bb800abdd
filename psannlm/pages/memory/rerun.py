"""A row of the memory page again: bytes that must be the same, a peak, and the time of a step."""

from collections.abc import Sequence
from statistics import geometric_mean

from psannlm.evidence.rows import Row
from psannlm.files import MIB
from psannlm.pages.memory.cells import MEMORY
from psannlm.pages.memory.config import MemoryConfig
from psannlm.pages.memory.plan import MemoryCell, Setting, memory
from psannlm.pages.memory.records import MemoryRecord, read_records
from psannlm.pages.memory.tables import PEAK_WITHIN, step_seconds
from psannlm.rerun.asked import RerunRequest
from psannlm.rerun.expectation import SURE, expected_rate
from psannlm.rerun.outcome import Quantity, Repeat, between, exact, rate, status

RULES = (
    "bytes saved for backward: the same to the byte",
    f"peak of the allocator: within {PEAK_WITHIN:.0%}, as far as a prediction may lie from it",
    "seconds of a step: the geometric mean of the new processes must lie in the "
    f"{SURE} prediction interval that the published processes give for so many new ones, widened "
    "by the noise floor of this machine's throughput run, as nothing is measured twice here; one "
    "process gives none",
)


def measure_again(row: Row, asked: RerunRequest) -> Repeat:
    """Measure the row in fresh processes.

    Args:
        row: Of a memory run.
        asked: How often, and where.
    """
    config = asked.configuration(MemoryConfig)
    n_new = asked.times(row.values["n_ok"] + row.values["n_failed"])
    cells = [MemoryCell(repeat, repeat, setting_of(row)) for repeat in range(n_new)]
    asked.say(f"measuring in {n_new} fresh processes")
    new = list(memory(config, cells=cells))
    old = read_records(row.run.text(MEMORY.files[-1]))
    comparable = asked.surroundings.same_device
    return compared(row, old, new, comparable=comparable, floor=asked.floor)


def setting_of(row: Row) -> Setting:
    """What the processes of a row measured."""
    names = ["amp" if name == "precision" else name for name in Setting._fields]
    return Setting(*(row.values[name] for name in names))


def compared(
    row: Row,
    old: Sequence[MemoryRecord],
    new: Sequence[MemoryRecord],
    *,
    comparable: bool,
    floor: float = 0.0,
) -> Repeat:
    """What the new records say of the row.

    Args:
        row: As published.
        old: All records of its run.
        new: Those of the repeat.
        comparable: Whether they are of the same device.
        floor: Noise floor of times.
    """
    good_then = [r for r in old if r.setting == setting_of(row) and r.status == "ok"]
    good = [r for r in new if r.status == "ok"]
    reasons = "; ".join(dict.fromkeys(r.reason for r in new if r.reason))
    quantities = list(
        status(
            row.values["status"], row.values["reason"] or "", "ok" if good else "failed", reasons
        )
    )
    if good and good_then:
        quantities += _bytes(good_then, good)
        quantities += _seconds(row, good_then, good, comparable, floor)
    return Repeat(tuple(quantities), RULES)


def _bytes(then: Sequence[MemoryRecord], now: Sequence[MemoryRecord]) -> list[Quantity]:
    """Each process counts alike, so all must say one number."""
    saved, saved_here = (
        ", ".join(sorted({f"{r.saved_bytes:,}" for r in records if r.saved_bytes is not None}))
        for records in (then, now)
    )
    found = [exact("saved for backward, bytes", saved or "none", saved_here or "none")]
    peak, peak_here = (
        max((r.peak_allocated_bytes / MIB for r in records if r.peak_allocated_bytes), default=None)
        for records in (then, now)
    )
    if peak is not None and peak_here is not None:
        low, high = peak * (1 - PEAK_WITHIN), peak * (1 + PEAK_WITHIN)
        expected = between(low, high, ",.2f")
        inside = low <= peak_here <= high
        found.append(
            Quantity("peak allocated, MiB", f"{peak:,.2f}", expected, f"{peak_here:,.2f}", inside)
        )
    return found


def _seconds(
    row: Row,
    then: Sequence[MemoryRecord],
    now: Sequence[MemoryRecord],
    comparable: bool,
    floor: float,
) -> list[Quantity]:
    published, new = (list(step_seconds(records).values()) for records in (then, now))
    if not (published and new):
        return []
    ends = tuple(row.values[name] for name in ("elapsed_s", "elapsed_s_low", "elapsed_s_high"))
    return [
        rate(
            "seconds of a step",
            (ends[0], ends[1], ends[2]),
            geometric_mean(new),
            expected_rate(published, len(new), floor=floor),
            pattern=".4f",
            comparable=comparable,
        )
    ]
