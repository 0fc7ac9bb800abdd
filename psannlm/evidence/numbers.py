"""The numbers that a run published: each with its base, setting, interval, verdict and row."""

from dataclasses import dataclass

from psannlm.evidence import text
from psannlm.evidence.rows import Row
from psannlm.evidence.runs import Evidence
from psannlm.evidence.table import Column


@dataclass(frozen=True)
class Number:
    """One published number; those of two runs with equal `key` can be compared."""

    run: Evidence
    name: str
    """Dotted, unique, stable: `throughput.respsann.1024.train_step.bf16.tokens_per_s`."""

    column: Column
    """What is declared of it: format, comparison, plan item."""

    quantity: str
    """What it is, in words: `speed`, `validation perplexity`."""

    unit: str
    base: str
    setting: str
    """In words: all that tells it from the other numbers of this quantity and base."""

    value: float | None
    """None where it failed, was refused or was skipped; `status` says which."""

    status: str
    verdict: str
    row: Row | None
    """What it was read from; None of a sum over rows."""

    low: float | None = None
    high: float | None = None
    target: str = ""
    """In words, as `at most 8`; empty where the plan names none."""

    floor: float | None = None
    """The noise floor that its row states."""

    n: int = 1
    """Processes or trainings behind the interval."""

    is_main: bool = True
    """Whether it is one of those that a page is known by."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is a number of."""
        return self.quantity, self.base, self.setting

    @property
    def about(self) -> str:
        """What it is of, in words: `respsann, 1,024 tokens a step, training step, bf16`."""
        return ", ".join(part for part in (self.base, self.setting) if part)

    @property
    def plain(self) -> str:
        """The value with its interval; a dash where it is unknown."""
        if self.value is None:
            return text.UNKNOWN
        if not self.column.format:
            return text.number_in_words(self.value)
        return text.interval(self.value, self.low, self.high, self.column.format)

    @property
    def shown(self) -> str:
        """The same with its unit, or the status of what has no value."""
        if self.value is None or self.column.compare == "check":
            return self.status
        return f"{self.plain} {self.unit}".strip()
