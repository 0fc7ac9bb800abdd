"""A few steps of training that processes are compared on, and how their results differ.

Shape letters: B batch, T tokens.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from psannlm.checks.config import ValidationConfig
from psannlm.checks.networks import Named, difference, optimizer_of
from psannlm.config.network import ModelConfig
from psannlm.device import repeatable
from psannlm.model.bases import build
from psannlm.model.loss import CHUNK_TOKENS
from psannlm.train.distributed import summing, whole
from psannlm.train.objective import NextToken

Tensors = dict[str, Tensor]

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Learned:
    """What a few steps left behind."""

    gradients: Tensors
    """Of the first step, before the optimizer took it; whole, on the CPU."""

    losses: Tensor
    """Of each step, before it, float64."""


def learn(
    objective: nn.Module, optimizer: AdamW, steps: Iterable[Sequence[Tensor]], device: torch.device
) -> Learned:
    """Train as the trainer does: gradients of all passes of a step, summed in the last one.

    Args:
        objective: A `NextToken`, shared between ranks or not.
        optimizer: Of its parameters.
        steps: For each step its passes, each (B, T + 1) token ids.
        device: Of the parameters.
    """
    gradients: Tensors = {}
    losses = []
    objective.train()
    with repeatable(device), full_products():
        for passes in steps:
            total = torch.zeros((), dtype=torch.float64, device=device)
            for i, text in enumerate(passes):
                text = text.to(device)
                with summing(objective, last=i == len(passes) - 1):
                    loss = objective(text[:, :-1], text[:, 1:]) / len(passes)
                    loss.backward()
                total += loss.detach()
            gradients = gradients or _whole({n: p.grad for n, p in objective.named_parameters()})
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(total.cpu())
    return Learned(gradients, torch.stack(losses))


def start(
    network: ModelConfig, config: ValidationConfig, device: torch.device, seed: int
) -> tuple[NextToken, AdamW]:
    """A fresh float32 network with its loss, and its optimizer."""
    objective = NextToken(build(network, seed=seed, device=device), "fp32", CHUNK_TOKENS)
    return objective, trainer_adamw(objective, config)


def trainer_adamw(module: nn.Module, config: ValidationConfig) -> AdamW:
    """AdamW as the trainer makes it, at one learning rate and one weight decay for all."""
    return optimizer_of(module, config, betas=(0.9, 0.95), weight_decay=0.1)


def parameters_of(objective: nn.Module) -> Tensors:
    """Whole parameters on the CPU; all ranks must ask."""
    return _whole(dict(objective.named_parameters()))


def _whole(tensors: Mapping[str, Tensor | None]) -> Tensors:
    """Copies on the CPU, under the names that they have without DDP."""
    return {
        name.removeprefix("module."): whole(t).detach().cpu().clone()
        for name, t in tensors.items()
        if t is not None
    }


@contextlib.contextmanager
def full_products() -> Iterator[None]:
    """Products of float32 numbers in float32: a GPU would round them to 11 bits in convolutions."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def largest_difference(found: Named, right: Named, terms: Named) -> tuple[float, str]:
    """The largest relative difference of a tensor from the one of its name, and the name.

    That of a tensor which only one side has is infinite; `terms` as in `networks.difference`.
    """

    def of(name: str) -> float:
        if name in found and name in right:
            return difference(found[name], right[name], terms.get(name))
        return math.inf

    return max((of(name), name) for name in right.keys() | found.keys())


def n_different(found: Named, right: Named) -> int:
    """Elements whose bits differ; those of a tensor that only one side has differ all."""
    count = 0
    for name in right.keys() | found.keys():
        a, b = found.get(name), right.get(name)
        if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
            count += max(t.numel() for t in (a, b) if t is not None)
        else:
            count += int((_bits(a) != _bits(b)).sum())
    return count


def _bits(tensor: Tensor) -> Tensor:
    """The same memory as whole numbers, in which -0 is not 0 and a NaN is itself."""
    return tensor.contiguous().view(_INTEGERS[tensor.element_size()])


def with_prefix(prefix: str, tensors: Named) -> Tensors:
    """The tensors under names that begin with `prefix`."""
    return {prefix + name: t for name, t in tensors.items()}


def of_prefix(tensors: Named, prefix: str) -> Tensors:
    """Those whose names begin with `prefix`, by the rest of their names."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
