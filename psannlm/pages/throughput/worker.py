"""One cell in a process of its own: `python -m psannlm.pages.throughput.worker TASK RESULT`."""

import dataclasses
import math
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from psannlm.bench import processes
from psannlm.bench.ceiling import measure_ceiling
from psannlm.bench.steps import forward_step, plain_loss, random_batch
from psannlm.bench.timing import stopwatch_for, time_steps, training_step
from psannlm.config.network import ModelConfig
from psannlm.device import missing_compiler, peak_resident_bytes, select_device
from psannlm.model.bases import build, cost_of
from psannlm.model.cost import Shape, training_bytes
from psannlm.pages.throughput.records import CEILING


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What one process measures."""

    worker: ClassVar[tuple[str, ...]] = (sys.executable, "-m", "psannlm.pages.throughput.worker")

    model: dict[str, Any]
    """A ModelConfig; empty for the matmul ceiling."""

    batch_tokens: int
    modes: tuple[str, ...]
    precision: str
    compile: bool
    device: str
    min_seconds: float
    min_steps: int
    learning_rate: float
    seed: int


def measure(task: Task, mode: str) -> dict[str, Any]:
    """What a CellRecord needs to know of `mode`; raises whatever goes wrong."""
    if task.compile:
        torch.compiler.reset()  # the mode before has left compiled code behind
    device = select_device(task.device)
    if mode == CEILING:
        return _measure_ceiling(task, device)
    return _measure_model(task, mode, device)


def _measure_model(task: Task, mode: str, device: torch.device) -> dict[str, Any]:
    config = ModelConfig(**task.model)
    shape = Shape(task.batch_tokens // config.context_length, config.context_length)
    cost = cost_of(config, shape)
    training = mode == "train_step"
    # The weights and one set of 16-bit logits are a lower bound.
    held = sum(training_bytes(cost.n_parameters, 0)) if training else 4 * cost.n_parameters
    needed = held + 2 * shape.total * config.vocab_size
    processes.refuse_what_cannot_fit(needed, "weights and logits alone", device)
    compiled = task.compile and missing_compiler(device) is None
    step, last_loss = _step(task, config, shape, training, compiled, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    timing = time_steps(
        step,
        stopwatch=stopwatch_for(device),
        min_seconds=task.min_seconds,
        min_steps=task.min_steps,
    )
    loss = float(last_loss()) if last_loss else None
    if loss is not None and not math.isfinite(loss):
        raise ArithmeticError(f"loss is {loss} after {len(timing.seconds)} timed steps")
    steady = sorted(timing.seconds)[len(timing.seconds) // 2]
    return {
        "compiled": compiled,
        "flops": cost.model_flops * (3 if training else 1),
        "compile_seconds": max(0.0, timing.first_seconds - steady) if compiled else None,
        "n_warmup": timing.n_warmup,
        "steady": timing.steady,
        "loss": loss,
        "seconds": timing.seconds,
        **_peaks(device),
    }


def _step(
    task: Task,
    config: ModelConfig,
    shape: Shape,
    training: bool,
    compiled: bool,
    device: torch.device,
) -> tuple[Callable[[], object], Callable[[], Tensor] | None]:
    """What is timed; in training, also what tells the latest loss."""
    model = build(config, seed=task.seed, device=device)
    tokens, targets = random_batch(config.vocab_size, shape, seed=task.seed, device=device)
    if not training:
        return forward_step(model, tokens, precision=task.precision, compiled=compiled), None
    loss_of = plain_loss(model, task.precision)
    return training_step(
        model,
        torch.compile(loss_of) if compiled else loss_of,
        tokens,
        targets,
        precision=task.precision,
        learning_rate=task.learning_rate,
    )


def _measure_ceiling(task: Task, device: torch.device) -> dict[str, Any]:
    """The fastest square matrix product among a few sizes: what the device can do at most."""
    flops, timing = measure_ceiling(
        device,
        task.precision,
        min_seconds=task.min_seconds,
        min_steps=task.min_steps,
        seed=task.seed,
    )
    return {
        "compiled": False,
        "flops": flops,
        "compile_seconds": None,
        "n_warmup": timing.n_warmup,
        "steady": timing.steady,
        "loss": None,
        "seconds": timing.seconds,
        **_peaks(device),
    }


def _peaks(device: torch.device) -> dict[str, int | None]:
    cuda = device.type == "cuda"
    return {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        "peak_reserved_bytes": torch.cuda.max_memory_reserved() if cuda else None,
        "peak_rss_bytes": peak_resident_bytes(),
    }


if __name__ == "__main__":
    processes.serve(Task, measure, sys.argv[1:])
