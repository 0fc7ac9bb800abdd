"""Memory of one network in its own process: `python -m psannlm.pages.memory.worker TASK OUT`."""

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from psannlm.bench import processes
from psannlm.bench.memory import Saved, peak_of_second_step, saved_for_backward
from psannlm.bench.steps import plain_loss, random_batch
from psannlm.bench.timing import Loss, stopwatch_for, time_steps, training_step
from psannlm.bench.worker import release_memory
from psannlm.config.network import ModelConfig
from psannlm.device import peak_resident_bytes, resident_bytes, select_device
from psannlm.model.activations import training_memory
from psannlm.model.bases import build
from psannlm.model.cost import Shape
from psannlm.model.projection import plain_sine
from psannlm.model.transformer import Transformer
from psannlm.train.objective import NextToken

DEFAULT, PLAIN_SINE, PLAIN_LOSS = "default", "plain_sine", "plain_loss"
STEP = "train_step"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryTask:
    """What one process measures."""

    worker: ClassVar[tuple[str, ...]] = (sys.executable, "-m", "psannlm.pages.memory.worker")

    model: dict[str, Any]
    """A ModelConfig; sequences are as long as its context_length."""

    batch_tokens: int
    precision: str
    variant: str
    chunk_tokens: int
    device: str
    min_seconds: float
    min_steps: int
    learning_rate: float
    seed: int
    compared: bool = True
    """Whether its time is compared, and so is taken of steady steps; else of the next ones."""

    modes: tuple[str, ...] = (STEP,)

    @property
    def config(self) -> ModelConfig:
        """The network."""
        return ModelConfig(**self.model)

    @property
    def shape(self) -> Shape:
        """Of the batch."""
        length = self.config.context_length
        return Shape(self.batch_tokens // length, length)


def predicted(task: MemoryTask) -> Mapping[str, int]:
    """Bytes by construction: parameters, gradients, optimizer, logits, peak, `saved: KIND`."""
    return training_memory(
        task.config,
        task.shape,
        precision=task.precision,
        device_type=select_device(task.device).type,
        chunk_tokens=task.chunk_tokens,
        variant=task.variant,
    )


class Training:
    """A network in training, as the task wants it.

    Args:
        task: What is measured.
        device: Where.
    """

    def __init__(self, task: MemoryTask, device: torch.device) -> None:
        config = task.config
        self.model = build(config, seed=task.seed, device=device)
        if task.variant == PLAIN_SINE:
            plain_sine(self.model)
        self.loss_of = _loss_of(task, self.model)
        self.batch = random_batch(config.vocab_size, task.shape, seed=task.seed, device=device)
        self.step, self.last_loss = training_step(
            self.model,
            self.loss_of,
            *self.batch,
            precision=task.precision,
            learning_rate=task.learning_rate,
        )

    def saved(self) -> Saved:
        """What a forward pass saves for backward."""
        with saved_for_backward(self.model.parameters()) as saved:
            self.loss_of(*self.batch)
        return saved


def _loss_of(task: MemoryTask, model: Transformer) -> Loss:
    if task.variant == PLAIN_LOSS:
        return plain_loss(model, task.precision)
    return NextToken(model, task.precision, task.chunk_tokens)


def measure(task: MemoryTask, mode: str) -> dict[str, Any]:
    """What a MemoryRecord needs to know, but its place and what is predicted.

    Raises whatever goes wrong, MemoryError before it is tried where it cannot fit.
    """
    device = select_device(task.device)
    processes.refuse_what_cannot_fit(predicted(task)["peak"], "by construction", device)
    cuda = device.type == "cuda"
    rss_before = None if cuda else resident_bytes()
    training = Training(task, device)
    training.step()  # makes the optimizer's state
    peaks = _cuda_peaks(training.step) if cuda else {}
    training.step()
    peak_rss = peak_resident_bytes()  # before counting adds to it
    saved = training.saved()
    found = {"saved_bytes": saved.total, "saved_kinds": dict(saved.kinds)}
    del saved
    seconds = _seconds(task, training.step, device)
    loss = float(training.last_loss())
    if not math.isfinite(loss):
        raise ArithmeticError(f"loss is {loss} after {len(seconds)} timed steps")
    del training
    release_memory()
    if not cuda:
        peaks = {"peak_allocated_bytes": peak_of_second_step(lambda: Training(task, device).step)}
    return (
        found
        | peaks
        | {
            "rss_before_bytes": rss_before,
            "peak_rss_bytes": peak_rss,
            "loss": loss,
            "seconds": seconds,
        }
    )


def _seconds(
    task: MemoryTask, step: Callable[[], object], device: torch.device
) -> tuple[float, ...]:
    """Of each timed step, in order."""
    stopwatch = stopwatch_for(device)
    if not task.compared:
        return tuple(stopwatch.lap(step, task.min_steps))
    return time_steps(
        step, stopwatch=stopwatch, min_seconds=task.min_seconds, min_steps=task.min_steps
    ).seconds


def _cuda_peaks(step: Callable[[], object]) -> dict[str, int]:
    """Of the allocator over a step of which all memory has been asked for before."""
    step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
    }


def main(arguments: Sequence[str]) -> None:
    """Measure the task of one file into another."""
    processes.serve(MemoryTask, measure, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
