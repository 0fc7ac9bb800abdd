"""A row beside the published package again: both packages interleaved, ours twice, as published."""

from collections.abc import Sequence
from statistics import geometric_mean

from psannlm.evidence.rows import Row
from psannlm.pages.peer.cells import AGAIN, OURS, PUBLISHED, PeerCell
from psannlm.pages.peer.config import PeerConfig
from psannlm.pages.peer.keeping import PEERS
from psannlm.pages.peer.plan import compare, plan
from psannlm.pages.peer.tables import SAVED
from psannlm.rerun.asked import RerunRequest
from psannlm.rerun.expectation import SURE, expected_rate
from psannlm.rerun.outcome import Quantity, Repeat, exact, rate, status

OTHER = {OURS: PUBLISHED, AGAIN: OURS}
"""Which side the ratio of a side is taken to."""

RULES = (
    "bytes saved for backward: the same to the byte",
    "speeds and ratios: the geometric mean of the new processes must lie in the "
    f"{SURE} prediction interval that the published processes give for so many new ones, widened "
    "by the run's noise floor; ours is taken to the published package, in the same block",
)


def measure_again(row: Row, asked: RerunRequest) -> Repeat:
    """Measure all sides of the row in fresh processes.

    Args:
        row: Of a comparison with the published package.
        asked: How often, and where.
    """
    config = asked.configuration(PeerConfig)
    n_new = asked.times(row.values["n_ok"] + row.values["n_failed"])
    one = restricted(row, config, n_new)
    asked.say(f"measuring in {len(plan(one))} fresh processes")
    new = [record for found in compare(one) for record in found]
    old = PEERS.records(*(row.run.text(name) for name in PEERS.files))
    return compared(row, old, new, comparable=asked.surroundings.same_device)


def restricted(row: Row, config: PeerConfig, n_new: int) -> PeerConfig:
    """The part of a run that a row was computed from; works that came after it are left out.

    Args:
        row: Of the run.
        config: Of the run.
        n_new: Processes a side.
    """
    values = row.values
    works = config.work[: config.work.index(values["work"]) + 1]
    part = {name: (values[name],) for name in ("base", "setting", "precision")}
    return config.model_copy(update={**part, "work": works, "n_repeats": n_new})


def compared(
    row: Row, old: Sequence[PeerCell], new: Sequence[PeerCell], *, comparable: bool
) -> Repeat:
    """What the new records say of the row.

    Args:
        row: As published.
        old: All records of its run.
        new: Those of the repeat.
        comparable: Whether they are of the same device.
    """
    side = row.values["side"]
    then, now = ([r for r in _of(records, row, side) if r.status == "ok"] for records in (old, new))
    reasons = "; ".join(dict.fromkeys(r.reason for r in _of(new, row, side) if r.reason))
    quantities = status(
        row.values["status"], row.values["reason"] or "", "ok" if now else "failed", reasons
    )
    if then and now and row.values["work"] == SAVED:
        said, here = (
            ", ".join(sorted({f"{r.saved_bytes:,}" for r in records if r.saved_bytes}))
            for records in (then, now)
        )
        quantities += (exact("saved for backward, bytes", said, here),)
    elif then and now:
        quantities += _speeds(row, old, new, comparable)
    return Repeat(tuple(quantities), RULES)


def _of(records: Sequence[PeerCell], row: Row, side: str) -> list[PeerCell]:
    names = ("base", "setting", "work", "precision")
    wanted = (side, *(row.values[name] for name in names))
    return [r for r in records if (r.side, *(getattr(r, name) for name in names)) == wanted]


def _rates(records: Sequence[PeerCell], row: Row, side: str) -> dict[int, float]:
    """Tokens/s of each process that succeeded, by block."""
    return {r.repeat: r.tokens_per_s for r in _of(records, row, side) if r.status == "ok"}


def _speeds(
    row: Row, old: Sequence[PeerCell], new: Sequence[PeerCell], comparable: bool
) -> tuple[Quantity, ...]:
    """The speed of the side and, where it has one, its ratio to the other side."""
    side, floor = row.values["side"], row.values["noise_floor"] or 0.0
    then, now = _rates(old, row, side), _rates(new, row, side)
    found = [("tokens/s", "value", list(then.values()), list(now.values()), ",.1f")]
    if side in OTHER:
        before, after = (
            [rates[block] / others[block] for block in sorted(rates.keys() & others.keys())]
            for rates, others in (
                (then, _rates(old, row, OTHER[side])),
                (now, _rates(new, row, OTHER[side])),
            )
        )
        if before and after:
            found.append((f"ratio to {OTHER[side]}", "ratio", before, after, ".3f"))
    return tuple(
        rate(
            shown,
            (row.values[name], row.values[f"{name}_low"], row.values[f"{name}_high"]),
            geometric_mean(after),
            expected_rate(before, len(after), judged=len(found), floor=floor),
            pattern=pattern,
            comparable=comparable,
        )
        for shown, name, before, after, pattern in found
    )
