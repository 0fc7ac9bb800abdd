"""What a comparison with the published package leaves: a frozen record a process and work."""

from dataclasses import dataclass
from typing import Any, Literal

OURS, AGAIN, PUBLISHED = "ours", "ours (again)", "published"
SIDES = (OURS, AGAIN, PUBLISHED)
"""Our network, the same once more for the noise floor, and that of the published package."""


@dataclass(frozen=True, kw_only=True)
class PeerCell:
    """One kind of work of one side in one fresh process; a failure is a record too.

    What was not or could not be measured is None, or empty.
    """

    repeat: int
    """Number of the block that the process belongs to, from 0."""

    order: int
    """Position of the process in the run, from 0."""

    side: str
    """One of SIDES."""

    base: str
    setting: str
    """`defaults`, or `best`: with the fastest choices that the side offers."""

    work: str
    """forward, train_step, generate or saved."""

    precision: str
    batch_tokens: int
    context_length: int
    status: Literal["ok", "failed"]
    reason: str
    """Why it failed; empty otherwise."""

    started_at: str
    """UTC."""

    choices: str
    """What the setting chose, in words: attention, whether compiled."""

    n_parameters: int | None
    tokens: int
    """Of one timed step: of the batch, or new ones of one generation."""

    seconds: tuple[float, ...]
    """Each timed step, in order."""

    saved_bytes: int | None
    """Of work `saved`: what a training step keeps for backward."""

    @property
    def key(self) -> tuple[Any, ...]:
        """Names the record within its run."""
        return (self.repeat, self.side, self.base, self.setting, self.work, self.precision)

    @property
    def tokens_per_s(self) -> float:
        """Total tokens over the total time of whole steps."""
        return self.tokens * len(self.seconds) / sum(self.seconds)


@dataclass(frozen=True, kw_only=True)
class ProtocolCell:
    """What one side gives under the original's own protocol, in one fresh process."""

    side: str
    """`ours` or `published`."""

    check: Literal["GPU-02", "GPU-03", "GPU-04"]
    base: str
    batch_tokens: int
    context_length: int
    measure: str
    """rel_diff, tokens_per_s, max_allocated_mib, max_reserved_mib, saved_mib, elapsed_s."""

    value: float | None
    """None where this device has no such number."""

    status: Literal["ok", "failed"]
    reason: str
    started_at: str
