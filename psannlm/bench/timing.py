"""How long a step takes: the one timing loop of the project, and the training step it times.

The loop knows nothing of models: it times a callable. Samples are kept as they fell; none is
dropped. Needs torch alone, so that the interpreter of another package uses this same file.
Shape letters: B batch, T tokens.
"""

import itertools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

WINDOW = 3  # steps of one warm-up window
MAX_WINDOWS = 10
STEADY = 0.05  # two windows are steady whose medians differ by less than this fraction

Step = Callable[[], object]
Loss = Callable[[Tensor, Tensor], Tensor]  # tokens and targets, each (B, T), to nats per token


@dataclass(frozen=True)
class HostStopwatch:
    """For work that is done when the call returns."""

    clock: Callable[[], float] = time.perf_counter

    def lap(self, step: Step, n_steps: int) -> list[float]:
        """Seconds of each of n_steps runs of `step`, back to back, in order."""
        samples = []
        for _ in range(n_steps):
            start = self.clock()
            step()
            samples.append(self.clock() - start)
        return samples


class CudaStopwatch:
    """For work that a GPU does behind the call: events around each step, one wait at the end."""

    def lap(self, step: Step, n_steps: int) -> list[float]:
        event: Callable[..., torch.cuda.Event] = torch.cuda.Event
        marks = [event(enable_timing=True) for _ in range(n_steps + 1)]
        torch.cuda.synchronize()
        marks[0].record()
        for mark in marks[1:]:
            step()
            mark.record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) / 1000 for a, b in itertools.pairwise(marks)]  # of milliseconds


Stopwatch = HostStopwatch | CudaStopwatch


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What one measurement saw."""

    first_seconds: float  # the first call, with whatever it had to compile or allocate
    n_warmup: int  # untimed steps after the first and before the samples
    steady: bool  # whether the last two warm-up windows agreed
    seconds: tuple[float, ...]  # each timed step, in order


def stopwatch_for(device: torch.device) -> Stopwatch:
    """The stopwatch that sees all work of `device`."""
    return CudaStopwatch() if device.type == "cuda" else HostStopwatch()


def time_steps(step: Step, *, stopwatch: Stopwatch, min_seconds: float, min_steps: int) -> Timing:
    """Time `step` once it runs steadily, for `min_seconds` together and `min_steps` at least."""
    [first] = stopwatch.lap(step, 1)
    medians = [statistics.median(stopwatch.lap(step, WINDOW))]
    steady = False
    while not steady and len(medians) < MAX_WINDOWS:
        medians.append(statistics.median(stopwatch.lap(step, WINDOW)))
        steady = abs(medians[-1] - medians[-2]) <= STEADY * medians[-1]
    n_steps = max(min_steps, math.ceil(min_seconds / max(medians[-1], 1e-9)))
    seconds = tuple(stopwatch.lap(step, n_steps))
    n_warmup = WINDOW * len(medians)
    return Timing(first_seconds=first, n_warmup=n_warmup, steady=steady, seconds=seconds)


def training_step(
    model: nn.Module,
    loss_of: Loss,
    tokens: Tensor,
    targets: Tensor,
    *,
    precision: str,
    learning_rate: float,
) -> tuple[Callable[[], object], Callable[[], Tensor]]:
    """Forward, backward and AdamW on one batch; also a function that tells the latest loss."""
    model.train()
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=learning_rate, fused=True)
    scaler = torch.amp.GradScaler(tokens.device.type, enabled=precision == "fp16")
    latest: list[Tensor] = []

    def step() -> object:
        loss = loss_of(tokens, targets)
        backward: Any = scaler.scale(loss).backward
        backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        latest[:] = [loss.detach()]
        return loss

    return step, lambda: latest[0]
