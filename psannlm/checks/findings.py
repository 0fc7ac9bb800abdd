"""What checks are asked, and what they leave: measures, and the finding that follows."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from psannlm.bench.rates import is_emulated
from psannlm.config.network import Architecture, ModelConfig
from psannlm.config.schema import AnyOf, Count, File, OneOrMore, Positive, Seed, Text
from psannlm.config.training import Device, Preset

Check = Literal[
    "GPU-01", "GPU-02", "GPU-03", "GPU-04", "GPU-05", "GPU-06", "GPU-07", "GPU-08", "FAST"
]


class ValidationConfig(Architecture):
    """Everything that notebooks/validation.ipynb may vary."""

    preset: Preset
    base: AnyOf[Text]  # none named means every base: the configuration of a run names them all
    only: AnyOf[Check]  # checks that run; none named means all
    corpus: File  # the text that is fitted, one paragraph a line
    batch: Count  # B, sequences of a batch, each context_length tokens long
    precision: OneOrMore[Literal["bf16", "fp16"]]  # what is held against fp32
    n_seeds: Count  # of weights, each with text of its own, that precisions are compared on
    fit_steps: Count  # optimizer steps in which a network has to learn a short text
    learning_rate: Positive  # of those steps
    compile: bool  # whether the compiled network is held against the eager one too
    min_seconds: Positive  # least time that the timed steps of a speed take together
    min_steps: Count  # least number of timed steps of a speed
    timeout_seconds: Positive  # a process that runs longer is stopped, and its check fails
    device: Device
    seed: Seed


TINY, TINY_HEAD = {"batch": 2, "context_length": 32, "n_layers": 2, "d_mlp": 64}, 16
"""Largest shape, and width of a head, in which a precision is checked that the device emulates."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number that a check judges, and what it is judged by."""

    name: str  # what was measured, in words, with its unit if it has one
    value: float
    bound: float
    upper: bool = True  # whether the bound is the most that the value may be, or the least
    why: str  # why the bound is where it is, in a sentence

    @property
    def passed(self) -> bool:
        """Whether the value is a number within its bound."""
        within = self.value <= self.bound if self.upper else self.value >= self.bound
        return math.isfinite(self.value) and within

    @property
    def bound_ratio(self) -> float:
        """How near the value comes to its bound, or how far beyond: 1 is the bound itself."""
        if not math.isfinite(self.value) or math.isnan(self.bound):
            return math.inf
        part, whole = (self.value, self.bound) if self.upper else (self.bound, self.value)
        if whole <= 0:
            return 0.0 if self.passed else math.inf
        return max(part, 0.0) / whole


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a check found out about one base."""

    measures: Sequence[Measure]
    facts: Mapping[str, Any] = field(default_factory=dict)  # shown beside, and not judged
    device: str = ""  # what it ran on, where that is not the device of the case


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a check is asked to look at."""

    base: str
    config: ValidationConfig
    device: torch.device

    @property
    def network(self) -> ModelConfig:
        """The network under the check."""
        return self.config.network_of(self.base)

    def in_precision(self, precision: str) -> "Case":
        """Itself, or where the device emulates a precision, the same in a tiny shape.

        What is checked there does not depend on the shape, but takes many times as long.
        """
        if not is_emulated(self.device.type, precision):
            return self
        config = self.config
        small: dict[str, int] = {n: min(most, getattr(config, n)) for n, most in TINY.items()}
        small["d_model"] = config.n_heads * min(config.d_head, TINY_HEAD)
        return dataclasses.replace(self, config=config.model_copy(update=small))

    @property
    def shape(self) -> str:
        """Of its network and its batches, in words."""
        c = self.config
        network = f"{c.n_layers} layers, d_model {c.d_model}, d_mlp {c.d_mlp}"
        return f"{network}, {c.batch} sequences of {c.context_length} tokens"


class UncheckableError(Exception):
    """A check that cannot be made here; its text is the reason."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What became of one check of one base."""

    check: str
    base: str
    status: Literal["passed", "failed", "skipped"]
    device: str
    seconds: float
    reason: str  # why it was skipped or failed; empty if it passed
    measures: tuple[Measure, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Names the finding within its run."""
        return self.check, self.base

    @property
    def worst(self) -> Measure | None:
        """The measure that comes nearest to its bound, or lies farthest beyond it."""
        return max(self.measures, key=lambda m: m.bound_ratio, default=None)

    def as_json(self) -> dict[str, Any]:
        """For summary.json; `value` and `bound` are those of the worst measure."""
        worst = self.worst
        return {
            "check": self.check,
            "base": self.base,
            "status": self.status,
            "value": worst.value if worst else None,
            "bound": worst.bound if worst else None,
            "measure": worst.name if worst else None,
            "device": self.device,
            "seconds": self.seconds,
            "reason": self.reason,
            "measures": [dataclasses.asdict(m) | {"passed": m.passed} for m in self.measures],
            "facts": dict(self.facts),
        }
