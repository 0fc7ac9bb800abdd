"""One headline number: what it is of, its value with its interval, its target and its verdict."""

from dataclasses import dataclass
from typing import Literal, get_args

from psannlm.evidence.rows import Row

PlanId = Literal[
    "BMRK-01", "BMRK-02", "BMRK-03", "BMRK-04",
    "GPU-01", "GPU-02", "GPU-03", "GPU-04", "GPU-05", "GPU-06", "GPU-07", "GPU-08",
]  # fmt: skip
PLAN: tuple[PlanId, ...] = get_args(PlanId)
"""What the benchmark plan asks for, by its ids."""


@dataclass(frozen=True)
class Headline:
    """One number with its interval, its target and its verdict."""

    name: str
    """Dotted, unique, stable: `throughput.respsann.1024.train_step.bf16.tokens_per_s`."""

    claim: str
    """Of the plan: BMRK-01 to BMRK-04, GPU-01 to GPU-08; FAST and empty are of no plan."""

    about: str
    """What the number is of, in words: `respsann, 1,024 tokens a step, training step, bf16`."""

    quantity: str
    """What it is, in words: `speed`, `validation perplexity`."""

    value: float | None
    low: float | None
    high: float | None
    unit: str
    target: str
    """In words, as `at most 8`; empty where the plan names none."""

    verdict: str
    row: Row
    """What it was read from."""


def read(
    row: Row,
    column: str,
    *,
    name: str,
    claim: str,
    about: str,
    quantity: str,
    unit: str,
    target: str = "",
    verdict: str = "",
) -> Headline:
    """The headline in a column of a row, with the interval in `<column>_low` and `<column>_high`.

    Of a row that failed there is no value, and the verdict says so.
    """
    value, low, high = (row.values.get(column + end) for end in ("", "_low", "_high"))
    status = row.values.get("status", "ok")
    return Headline(
        name=name,
        claim=claim,
        about=about,
        quantity=quantity,
        value=None if value is None else float(value),
        low=None if low is None else float(low),
        high=None if high is None else float(high),
        unit=unit,
        target=target,
        verdict=verdict if status in ("ok", "passed") else str(status),
        row=row,
    )
