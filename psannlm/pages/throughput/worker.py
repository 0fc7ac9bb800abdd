"""One cell in a process of its own: `python -m psannlm.pages.throughput.worker TASK RESULT`."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median_high
from typing import Any

import torch
from torch import Tensor

from psannlm.bench import processes, steps
from psannlm.bench.timing import Timing, training_step
from psannlm.device import missing_compiler, peak_resident_bytes, select_device
from psannlm.model.bases import build, cost_of
from psannlm.model.cost import training_bytes
from psannlm.pages.throughput.records import CEILING
from psannlm.train.compilation import compiled_or_eager


@dataclass(frozen=True, kw_only=True)
class Task(steps.NetworkTask):
    """What one process measures; the matmul ceiling has an empty model."""

    compile: bool


def measure(task: Task, mode: str) -> dict[str, Any]:
    """What a CellRecord needs to know of `mode`; raises whatever goes wrong."""
    device = select_device(task.device)
    if mode == CEILING:
        flops, timing = steps.measure_ceiling(
            device,
            task.precision,
            min_seconds=task.min_seconds,
            min_steps=task.min_steps,
            seed=task.seed,
            emulated=task.emulated,
        )
        found: dict[str, Any] = {"flops": flops}
    else:
        found, timing = _measure_network(task, mode == "train_step", device)
    return {
        **found,
        "n_warmup": timing.n_warmup,
        "steady": timing.steady,
        "seconds": timing.seconds,
        "peak_rss_bytes": peak_resident_bytes(),
        **steps.cuda_peaks(device),
    }


def _measure_network(
    task: Task, training: bool, device: torch.device
) -> tuple[dict[str, Any], Timing]:
    cost = cost_of(task.config, task.shape)
    # The weights and one set of 16-bit logits are a lower bound.
    held = sum(training_bytes(cost.n_parameters).values()) if training else 4 * cost.n_parameters
    needed = held + 2 * task.shape.total * task.config.vocab_size
    processes.refuse_what_cannot_fit(needed, "weights and logits alone", device)
    run = partial(_timed, task, training, device)
    found: dict[str, Any] = {"flops": cost.model_flops * (3 if training else 1)}
    if not task.compile:
        timing, found["loss"] = run(False)
        return found, timing
    (timing, found["loss"]), made = compiled_or_eager(run, missing_compiler(device))
    spent = max(0.0, timing.first_seconds - median_high(timing.seconds))
    found |= {"compile_seconds": None if made.eager else spent}
    return found | {"compiled": not made.eager, **made._asdict()}, timing


def _timed(
    task: Task, training: bool, device: torch.device, compiled: bool
) -> tuple[Timing, float | None]:
    """The time of the step; in training, also the latest loss."""
    step, last_loss = _step(task, training, compiled, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    timing = task.timing_of(step, device)
    return timing, steps.finite_loss(last_loss, len(timing.seconds)) if last_loss else None


def _step(
    task: Task, training: bool, compiled: bool, device: torch.device
) -> tuple[Callable[[], object], Callable[[], Tensor] | None]:
    """What is timed; in training, also what tells the latest loss."""
    model = build(task.config, seed=task.seed, device=device)
    batch = steps.random_batch(task.config.vocab_size, task.shape, seed=task.seed, device=device)
    precision = task.precision
    if not training:
        return steps.forward_step(model, batch[0], precision=precision, compiled=compiled), None
    loss_of = steps.plain_loss(model, precision)
    loss_of = torch.compile(loss_of) if compiled else loss_of
    return training_step(
        model, loss_of, *batch, precision=precision, learning_rate=task.learning_rate
    )


main = partial(processes.serve, Task, measure)

if __name__ == "__main__":
    main(sys.argv[1:])
