"""Memory of one network in its own process: `python -m psannlm.pages.memory.worker TASK OUT`."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from psannlm.bench import processes, steps
from psannlm.bench.timing import (
    Loss,
    Saved,
    peak_of_second_step,
    saved_for_backward,
    stopwatch_for,
    training_step,
)
from psannlm.bench.worker import release_memory
from psannlm.device import peak_resident_bytes, resident_bytes, select_device
from psannlm.model.activations import training_memory
from psannlm.model.bases import build
from psannlm.model.projection import plain_sine
from psannlm.model.saved_activations import Step
from psannlm.pages.memory.records import PLAIN_LOSS, PLAIN_SINE
from psannlm.train.objective import NextToken


@dataclass(frozen=True, kw_only=True)
class MemoryTask(steps.NetworkTask):
    """What one process measures."""

    variant: str
    chunk_tokens: int
    compared: bool = True  # whether its time is compared, and so taken of steady steps
    modes: tuple[str, ...] = ("train_step",)


def predicted(task: MemoryTask) -> Mapping[str, int]:
    """Bytes by construction: parameters, gradients, optimizer, logits, peak, `saved: KIND`."""
    device_type = select_device(task.device).type
    step = Step(task.shape, task.precision, device_type, task.variant)
    return training_memory(task.config, step, task.chunk_tokens)


class Training:
    """A network in training on a device, as the task wants it."""

    def __init__(self, task: MemoryTask, device: torch.device) -> None:
        config, precision, rate = task.config, task.precision, task.learning_rate
        self.model = build(config, seed=task.seed, device=device)
        if task.variant == PLAIN_SINE:
            plain_sine(self.model)
        self.loss_of: Loss = NextToken(self.model, precision, task.chunk_tokens)
        if task.variant == PLAIN_LOSS:
            self.loss_of = steps.plain_loss(self.model, precision)
        self.batch = steps.random_batch(
            config.vocab_size, task.shape, seed=task.seed, device=device
        )
        self.step, self.last_loss = training_step(
            self.model, self.loss_of, *self.batch, precision=precision, learning_rate=rate
        )

    def saved(self) -> Saved:
        """What a forward pass saves for backward."""
        with saved_for_backward(self.model.parameters()) as saved:
            self.loss_of(*self.batch)
        return saved


def measure(task: MemoryTask, mode: str) -> dict[str, Any]:
    """What a MemoryRecord needs to know, but its place and what is predicted.

    Raises whatever goes wrong, MemoryError before it is tried where it cannot fit.
    """
    device = select_device(task.device)
    processes.refuse_what_cannot_fit(predicted(task)["peak"], "by construction", device)
    is_cpu = device.type == "cpu"
    found: dict[str, Any] = {"rss_before_bytes": resident_bytes() if is_cpu else None}
    training = Training(task, device)
    training.step()  # makes the optimizer's state
    if not is_cpu:
        found |= _cuda_peaks(training.step, device)
    training.step()
    found["peak_rss_bytes"] = peak_resident_bytes()  # before counting adds to it
    saved = training.saved()
    found |= {"saved_bytes": saved.total, "saved_kinds": dict(saved.kinds)}
    del saved
    if task.compared or task.emulated:
        found["seconds"] = task.timing_of(training.step, device).seconds
    else:
        found["seconds"] = tuple(stopwatch_for(device).lap(training.step, task.min_steps))
    found["loss"] = steps.finite_loss(training.last_loss, len(found["seconds"]))
    del training
    release_memory()
    if is_cpu:
        found["peak_allocated_bytes"] = peak_of_second_step(lambda: Training(task, device).step)
    return found


def _cuda_peaks(step: Callable[[], object], device: torch.device) -> dict[str, int]:
    """Of the allocator over a step of which all memory has been asked for before."""
    step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return steps.cuda_peaks(device)


main = partial(processes.serve, MemoryTask, measure)

if __name__ == "__main__":
    main(sys.argv[1:])
