"""What autograd saves for backward, counted by storage."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from psannlm.bench.timing import saved_for_backward
from psannlm.config.network import ModelConfig
from psannlm.model.activations import training_memory
from psannlm.model.saved_activations import Step


def tensors_saved_by(step: Callable[[], object]) -> list[Tensor]:
    """All that autograd saves for backward, in that order."""
    saved: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step()
    return saved


def predicted_bytes(config: ModelConfig, step: Step) -> int:
    """What `saved_by` is predicted to count of a step whose loss is taken 64 tokens at a time."""
    memory = training_memory(config, step, 64)
    return sum(size for kind, size in memory.items() if kind.startswith("saved: "))


def saved_by(step: Callable[[], object], model: nn.Module) -> int:
    """Bytes of all storages but those of parameters that autograd saves for backward."""
    with saved_for_backward(model.parameters()) as saved:
        step()
    return saved.total


def peak_of(loss: Callable[[], Tensor], model: nn.Module) -> int:
    """Most bytes that torch's CPU allocator has given out at one time in a steady training step.

    With what is there before the step: weights, tables and optimizer state.
    """
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, fused=True)

    def step() -> None:
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    fixed = [*model.parameters(), *model.buffers()]
    fixed += [tensor for state in optimizer.state.values() for tensor in state.values()]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    events = record.profiler.kineto_results.events()
    changes = [event.nbytes() for event in events if event.name() == "[memory]"]
    return sum(tensor.nbytes for tensor in fixed) + max(itertools.accumulate(changes))
