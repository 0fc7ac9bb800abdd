"""GPU-04: gradient checkpointing gives the same gradients, saves less, and costs time.

Shape letters: B batch, T tokens, D d_model.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from psannlm.bench.memory import Saved, saved_for_backward
from psannlm.bench.timing import stopwatch_for
from psannlm.checks.findings import Case, Measure, Result
from psannlm.checks.networks import (
    EPSILON,
    Batch,
    batches_of,
    difference,
    gradients_of,
    joined,
    loss_of,
    perturbed,
)
from psannlm.model.transformer import Transformer


@dataclass(frozen=True)
class Step:
    """Loss and gradients of a batch, and what was saved for them."""

    loss: float
    gradients: Tensor
    saved: int
    """Bytes saved for backward, parameters left out."""

    inside: int
    """Of these, what is saved between the entry of a block and its end."""


def check(case: Case) -> Result:
    """Compare steps of the same network with and without checkpointing."""
    config = case.config
    batch = batches_of(config, config.batch, rows=config.batch).batch(0)
    batch = batch[0].to(case.device), batch[1].to(case.device)
    model = perturbed(case.network, case.device, config.seed)
    off, again, on = (step_of(model, batch, way) for way in (False, False, True))
    measures = [*gradient_measures(off, again, on), saved_measure(case, off, on)]
    (slow, low), (fast, high) = (bare_step(model, batch, way) for way in (True, False))
    facts: dict[str, Any] = {
        "saved bytes, off": off.saved,
        "saved bytes, on": on.saved,
        "seconds of forward and backward, off": fast,
        "seconds of forward and backward, on": slow,
        "time, on over off": slow / fast,
    }
    if case.device.type == "cuda":
        facts |= {"peak bytes, off": high, "peak bytes, on": low}
        if case.network.n_layers > 1:
            measures.append(peak_measure(high, low))
    return Result(measures=tuple(measures), facts=facts)


def step_of(model: Transformer, batch: Batch, checkpointing: bool) -> Step:
    """Forward and backward pass of a batch, with what is saved between them counted."""
    model.grad_checkpoint = checkpointing
    model.zero_grad()
    with saved_for_backward(model.parameters()) as saved, _levels(model, saved) as levels:
        loss = loss_of(model, batch)
    total = saved.total
    saved.storages.clear()
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = joined(gradients_of(model)).cpu()
    inside = sum(end - entry for entry, end in zip(levels[::2], levels[1::2], strict=True))
    return Step(loss.item(), gradients, total, inside)


@contextlib.contextmanager
def _levels(model: Transformer, saved: Saved) -> Iterator[list[int]]:
    """Bytes that are saved at the entry and at the end of each block, as the blocks are passed."""
    levels: list[int] = []
    hooks: list[RemovableHandle] = []
    for block in model.blocks:
        for register in (block.register_forward_pre_hook, block.register_forward_hook):
            hooks.append(register(lambda *_: levels.append(saved.total)))
    yield levels
    for hook in hooks:
        hook.remove()


def gradient_measures(off: Step, again: Step, on: Step) -> list[Measure]:
    """Whether loss and gradients are those of a step without checkpointing."""
    why = (
        "the same operations on the same numbers are done again: one rounding of float32, or what "
        "two steps without checkpointing differ by, if their sums have no fixed order"
    )
    return [
        Measure(
            name="loss with checkpointing against without, relative",
            value=abs(on.loss - off.loss) / off.loss,
            bound=max(EPSILON, abs(again.loss - off.loss) / off.loss),
            why=why,
        ),
        Measure(
            name="gradients with checkpointing against without, relative norm of the difference",
            value=difference(on.gradients, off.gradients),
            bound=max(EPSILON, 2 * difference(again.gradients, off.gradients)),
            why=why,
        ),
    ]


def saved_measure(case: Case, off: Step, on: Step) -> Measure:
    """Whether blocks save no more than the features that enter them."""
    config = case.config
    entering = 4 * config.batch * config.context_length * config.d_model * config.n_layers
    return Measure(
        name="bytes saved for backward with checkpointing",
        value=on.saved,
        bound=off.saved - off.inside + entering,
        why="each block keeps the float32 features that enter it and nothing else; what is kept "
        "outside of blocks stays as it is",
    )


def peak_measure(off: int, on: int) -> Measure:
    """Whether a GPU needs less memory at most."""
    return Measure(
        name="peak of allocated bytes with checkpointing over without",
        value=on / off,
        bound=1.0,
        why="of several blocks, only one at a time has its features in memory",
    )


def bare_step(model: Transformer, batch: Batch, checkpointing: bool) -> tuple[float, int]:
    """A forward and backward pass of a batch in which nothing is counted.

    Returns:
        Seconds, the faster of two, and the peak of allocated bytes of a GPU; 0 on a CPU.
    """
    device = batch[0].device
    model.grad_checkpoint = checkpointing

    def step() -> object:
        model.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = min(stopwatch_for(device).lap(step, 2))
    return seconds, torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
