"""One cell in a process of its own: `python -m psannlm.bench.worker TASK RESULT`.

TASK is a JSON file; for each mode a line of JSON is appended to RESULT as soon as it is known, so
that what was measured outlives a crash of what comes next.
Shape letters: B batch, T tokens, V vocabulary.
"""

import dataclasses
import gc
import json
import math
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from psannlm.architecture import ModelConfig
from psannlm.bench.ceiling import measure_ceiling
from psannlm.bench.environment import (
    available_memory_bytes,
    utc_now,
)
from psannlm.bench.records import CEILING
from psannlm.bench.timing import stopwatch_for, time_steps
from psannlm.device import autocast, missing_compiler, select_device
from psannlm.model.bases import build, cost_of
from psannlm.model.cost import Shape, training_bytes
from psannlm.model.transformer import Transformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What one process measures."""

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
    device = select_device(task.device)
    started_at = utc_now().isoformat()
    if mode == CEILING:
        found = _measure_ceiling(task, device)
    else:
        found = _measure_model(task, mode, device)
    return {"mode": mode, "status": "ok", "reason": "", "started_at": started_at} | found


def _measure_model(task: Task, mode: str, device: torch.device) -> dict[str, Any]:
    config = ModelConfig(**task.model)
    shape = Shape(task.batch_tokens // config.context_length, config.context_length)
    cost = cost_of(config, shape)
    training = mode == "train_step"
    _refuse_what_cannot_fit(cost.n_parameters, shape, config.vocab_size, training, device)
    model = build(config, seed=task.seed, device=device)
    generator = torch.Generator().manual_seed(task.seed)
    text = torch.randint(config.vocab_size, (shape.batch, shape.tokens + 1), generator=generator)
    tokens, targets = text[:, :-1].to(device), text[:, 1:].to(device)
    compiled = task.compile and missing_compiler(device) is None

    if training:
        step, last_loss = training_step(model, tokens, targets, task, compiled=compiled)
    else:
        step, last_loss = forward_step(model, tokens, task, compiled=compiled), None
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


def forward_step(
    model: Transformer, tokens: Tensor, task: Task, *, compiled: bool
) -> Callable[[], object]:
    """Logits of a batch in evaluation mode without gradients: the protocol of GPU-03."""
    model.eval()

    def forward(tokens: Tensor) -> Tensor:
        with autocast(tokens.device, task.precision):
            logits: Tensor = model(tokens)  # (B, T, V)
        return logits

    function = torch.compile(forward) if compiled else forward

    @torch.no_grad()
    def step() -> object:
        return function(tokens)

    return step


def training_step(
    model: Transformer, tokens: Tensor, targets: Tensor, task: Task, *, compiled: bool
) -> tuple[Callable[[], object], Callable[[], Tensor]]:
    """Forward, backward and AdamW on one batch; also a function that tells the latest loss."""
    model.train()
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=task.learning_rate, fused=True)
    scaler = torch.amp.GradScaler(tokens.device.type, enabled=task.precision == "fp16")
    latest: list[Tensor] = []

    def loss_of(tokens: Tensor, targets: Tensor) -> Tensor:
        with autocast(tokens.device, task.precision):
            logits = model(tokens)  # (B, T, V)
        return cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    function = torch.compile(loss_of) if compiled else loss_of

    def step() -> object:
        loss = function(tokens, targets)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        latest[:] = [loss.detach()]
        return loss

    return step, lambda: latest[0]


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


def _refuse_what_cannot_fit(
    n_parameters: int, shape: Shape, vocab_size: int, training: bool, device: torch.device
) -> None:
    """Stop before the machine does: the weights and one set of 16-bit logits are a lower bound."""
    held = sum(training_bytes(n_parameters, 0)) if training else 4 * n_parameters
    needed, free = held + 2 * shape.total * vocab_size, available_memory_bytes(device)
    if needed > free:
        raise MemoryError(
            f"needs at least {needed / 2**30:.1f} GiB (weights and logits alone), "
            f"{free / 2**30:.1f} GiB are free"
        )


def _peaks(device: torch.device) -> dict[str, int | None]:
    cuda = device.type == "cuda"
    # Linux tells the peak resident set in KiB.
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        "peak_reserved_bytes": torch.cuda.max_memory_reserved() if cuda else None,
        "peak_rss_bytes": rss,
    }


def _failure(mode: str, error: BaseException) -> dict[str, Any]:
    first = (str(error).strip().splitlines() or [""])[0]
    out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    kind = "out of memory" if out_of_memory else type(error).__name__
    return {"mode": mode, "status": "failed", "reason": f"{kind}: {first}"}


def _free(task: Task) -> None:
    """Give back what the last mode held, so that the next one starts from nothing."""
    if task.compile:
        torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def stop_when_orphaned() -> None:
    """End this process once the one that started it is gone: nobody would read the result."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(task_path: Path, result_path: Path) -> None:
    """Measure every mode of the task, a failed one too."""
    stop_when_orphaned()
    values = json.loads(task_path.read_text(encoding="utf-8"))
    task = Task(**values | {"modes": tuple(values["modes"])})
    with result_path.open("a", encoding="utf-8") as out:
        for mode in task.modes:
            try:
                found = measure(task, mode)
            except Exception as error:
                found = _failure(mode, error)
            out.write(json.dumps(found) + "\n")
            out.flush()
            _free(task)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
