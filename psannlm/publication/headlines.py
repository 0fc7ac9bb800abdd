"""Headline numbers: what the best runs give for every claim of the plan, each from a raw row."""

from dataclasses import dataclass

from psannlm.report.rows import Row


@dataclass(frozen=True)
class Headline:
    """One number with its interval, its target and its verdict."""

    name: str
    """Dotted, unique, stable: `throughput.respsann.1024.train_step.bf16.tokens_per_s`."""

    claim: str
    """Of the plan: BMRK-01 to BMRK-04, GPU-01 to GPU-08."""

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
