"""GPU-04: gradient checkpointing gives the same gradients, saves less, and costs time.

Shape letters: B batch, T tokens, D d_model.
"""

import contextlib
from typing import Any, NamedTuple

import torch
from torch import Tensor

from psannlm.bench.timing import saved_for_backward, stopwatch_for
from psannlm.checks import networks
from psannlm.checks.findings import Case, Measure, Result
from psannlm.checks.networks import EPSILON, Batch, difference, gradients_of, joined, loss_of
from psannlm.model.transformer import Transformer


class Step(NamedTuple):
    """Loss and gradients of a batch, and what was saved for them."""

    loss: float
    gradients: Tensor
    saved: int  # bytes saved for backward, parameters left out
    inside: int  # of these, what is saved between the entry of a block and its end


def check(case: Case) -> Result:
    """Compare steps of the same network with and without checkpointing."""
    config = case.config
    tokens, targets = networks.batches_of(config, config.batch, rows=config.batch).batch(0)
    batch = tokens.to(case.device), targets.to(case.device)
    model = networks.perturbed(case.network, case.device, config.seed)
    off, again, on = (step_of(model, batch, way) for way in (False, False, True))
    measures = measures_of(case, off, again, on)
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
        peak = Measure(
            name="peak of allocated bytes with checkpointing over without",
            value=low / high,
            bound=1.0,
            why="of several blocks, only one at a time has its features in memory",
        )
        measures += [peak] if case.network.n_layers > 1 else []
    return Result(measures=measures, facts=facts)


def step_of(model: Transformer, batch: Batch, checkpointing: bool) -> Step:
    """Forward and backward pass of a batch, with what is saved between them counted."""
    model.grad_checkpoint = checkpointing
    levels: list[int] = []  # bytes saved at the entry and at the end of each block
    with saved_for_backward(model.parameters()) as saved, contextlib.ExitStack() as hooks:

        def note(*_: object) -> None:
            levels.append(saved.total)

        for block in model.blocks:
            hooks.enter_context(block.register_forward_pre_hook(note))
            hooks.enter_context(block.register_forward_hook(note))
        loss = loss_of(model, batch)
    total = saved.total
    saved.storages.clear()
    gradients = joined(gradients_of(model, loss)).cpu()
    return Step(loss.item(), gradients, total, sum(levels[1::2]) - sum(levels[::2]))


def measures_of(case: Case, off: Step, again: Step, on: Step) -> list[Measure]:
    """A step with checkpointing beside two without: its loss, gradients and saved bytes."""
    config = case.config
    entering = 4 * config.batch * config.context_length * config.d_model * config.n_layers
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
        Measure(
            name="bytes saved for backward with checkpointing",
            value=on.saved,
            bound=off.saved - off.inside + entering,
            why="each block keeps the float32 features that enter it and nothing else; what is "
            "kept outside of blocks stays as it is",
        ),
    ]


def bare_step(model: Transformer, batch: Batch, checkpointing: bool) -> tuple[float, int]:
    """Seconds of a pass forward and backward, the faster of two, and a GPU's peak of bytes."""
    device = batch[0].device
    model.grad_checkpoint = checkpointing

    def step() -> object:
        model.zero_grad()
        loss = loss_of(model, batch)
        torch.autograd.backward(loss)
        return loss

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = min(stopwatch_for(device).lap(step, 2))
    return seconds, torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
