"""A row of the throughput page again: its cell, the baseline's and the ceiling's, interleaved."""

from collections.abc import Sequence
from statistics import geometric_mean
from typing import Any

from psannlm.evidence.rows import Row
from psannlm.pages.throughput.config import ThroughputConfig
from psannlm.pages.throughput.plan import Cell, plan, throughput
from psannlm.pages.throughput.records import CEILING, CellRecord, read_records
from psannlm.rerun.asked import RerunRequest
from psannlm.rerun.expectation import SURE, expected_rate
from psannlm.rerun.outcome import Quantity, Repeat, rate, status

RULES = (
    "speeds and ratios: the geometric mean of the new processes must lie in the "
    f"{SURE} prediction interval that the published processes give for so many new ones, widened "
    "by the run's noise floor; a ratio is to the baseline of the same block",
)


def measure_again(row: Row, asked: RerunRequest) -> Repeat:
    """Measure the row in fresh processes, with what it was compared with.

    Args:
        row: Of a throughput run.
        asked: How often, and where.
    """
    config = asked.configuration(ThroughputConfig)
    n_new = asked.times(row.values["n_ok"] + row.values["n_failed"])
    cells = cells_of(row, config.model_copy(update={"n_repeats": n_new}))
    asked.say(f"measuring in {len(cells)} fresh processes")
    new = [record for found in throughput(config, cells=cells) for record in found]
    old = read_records(row.run.text("cells.csv"), row.run.text("samples.csv"))
    return compared(row, config, old, new, comparable=asked.surroundings.same_device)


def cells_of(row: Row, config: ThroughputConfig) -> list[Cell]:
    """The cells that a row was computed from; modes that came after the row's are left out.

    Args:
        row: Of a throughput run.
        config: Of the run, with the repeats that are wanted now.
    """
    wanted = {
        (label, row.values["batch_tokens"]) for label in (row.values["label"], config.baseline)
    }
    modes = config.mode[: config.mode.index(row.values["mode"]) + 1]
    return [
        cell if cell.base == CEILING else cell._replace(modes=modes)
        for cell in plan(config)
        if cell.precision == row.values["precision"]
        and ((cell.label, cell.batch_tokens) in wanted or cell.base == CEILING)
    ]


def compared(
    row: Row,
    config: ThroughputConfig,
    old: Sequence[CellRecord],
    new: Sequence[CellRecord],
    *,
    comparable: bool,
) -> Repeat:
    """What the new records say of the row.

    Args:
        row: As published.
        config: Of its run.
        old: All records of the run.
        new: Those of the repeat.
        comparable: Whether they are of the same device.
    """
    label = row.values["label"]
    then, now = _rates(old, row, label), _rates(new, row, label)
    reasons = "; ".join(dict.fromkeys(r.reason for r in _mine(new, row, label) if r.reason))
    quantities = list(
        status(row.values["status"], row.values["reason"] or "", "ok" if now else "failed", reasons)
    )
    floor = row.values["noise_floor"] or 0.0
    with_ratio = label != config.baseline
    if now:
        given: dict[str, Any] = {"judged": 1 + with_ratio, "floor": floor}
        quantities.append(
            _quantity("tokens_per_s", row, then.values(), now.values(), given, comparable, ",.0f")
        )
        ratios_then = _ratios(then, _rates(old, row, config.baseline))
        ratios_now = _ratios(now, _rates(new, row, config.baseline))
        if with_ratio and ratios_now:
            quantities.append(
                _quantity("ratio", row, ratios_then, ratios_now, given, comparable, ".3f")
            )
    return Repeat((*quantities, *_ceiling(old, new, row)), RULES)


def _mine(records: Sequence[CellRecord], row: Row, label: str) -> list[CellRecord]:
    names = ("batch_tokens", "mode", "precision")
    wanted = (label, *(row.values[name] for name in names))
    return [r for r in records if (r.label, *(getattr(r, name) for name in names)) == wanted]


def _rates(records: Sequence[CellRecord], row: Row, label: str) -> dict[int, float]:
    """Tokens/s of each process that succeeded, by block."""
    return {r.repeat: r.tokens_per_s for r in _mine(records, row, label) if r.status == "ok"}


def _ratios(rates: dict[int, float], baseline: dict[int, float]) -> list[float]:
    return [rates[block] / baseline[block] for block in sorted(rates.keys() & baseline.keys())]


def _quantity(
    name: str, row: Row, then: Any, now: Any, given: dict[str, Any], comparable: bool, pattern: str
) -> Quantity:
    ends = (row.values[name], row.values[f"{name}_low"], row.values[f"{name}_high"])
    new = list(now)
    expected = expected_rate(list(then), len(new), **given)
    shown = {"tokens_per_s": "tokens/s", "ratio": "ratio to the baseline"}[name]
    return rate(shown, ends, geometric_mean(new), expected, pattern=pattern, comparable=comparable)


def _ceiling(
    old: Sequence[CellRecord], new: Sequence[CellRecord], row: Row
) -> tuple[Quantity, ...]:
    """Shown, as it tells a slower machine from a slower network."""
    then, now = (
        [
            r.flop_per_s / 1e9
            for r in records
            if r.mode == CEILING and r.status == "ok" and r.precision == row.values["precision"]
        ]
        for records in (old, new)
    )
    if not (then and now):
        return ()
    old_rate, new_rate = (f"{geometric_mean(rates):,.1f}" for rates in (then, now))
    return (Quantity("matmul ceiling, GFLOP/s", old_rate, "shown only", new_rate, None),)
