"""A few steps of training that processes are compared on, and how far their results lie apart.

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
from psannlm.config.network import ModelConfig
from psannlm.device import repeatable
from psannlm.model.bases import build
from psannlm.model.loss import CHUNK_TOKENS
from psannlm.model.transformer import Transformer
from psannlm.train.distributed import summing, whole
from psannlm.train.objective import NextToken

Tensors = dict[str, Tensor]
EPSILON = torch.finfo(torch.float32).eps
"""Distance from 1 to the next float32."""

_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


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
            gradients = gradients or gradients_of(objective)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(total.cpu())
    return Learned(gradients, torch.stack(losses))


def objective_of(network: ModelConfig, seed: int, device: torch.device) -> NextToken:
    """A fresh network with its loss, in float32."""
    model: Transformer = build(network, seed=seed, device=device)
    return NextToken(model, "fp32", CHUNK_TOKENS)


def optimizer_of(objective: nn.Module, config: ValidationConfig) -> AdamW:
    """AdamW as the trainer makes it, at one learning rate and one weight decay for all."""
    learned = [p for p in objective.parameters() if p.requires_grad]
    return AdamW(learned, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True)


def gradients_of(objective: nn.Module) -> Tensors:
    """Whole gradients on the CPU by parameter; all ranks must ask."""
    return {
        plain(name): whole(p.grad).detach().cpu().clone()
        for name, p in objective.named_parameters()
        if p.grad is not None
    }


def parameters_of(objective: nn.Module) -> Tensors:
    """Whole parameters on the CPU; all ranks must ask."""
    return {
        plain(name): whole(p).detach().cpu().clone() for name, p in objective.named_parameters()
    }


def plain(name: str) -> str:
    """The name of a parameter without what DDP puts before it."""
    return name.removeprefix("module.")


@contextlib.contextmanager
def full_products() -> Iterator[None]:
    """Products of float32 numbers in float32: a GPU would round them to 11 bits in convolutions."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def distance(found: Tensor, right: Tensor, beside: Tensor | None = None) -> float:
    """|found - right| / |right| in float64, or over |beside| if that is larger.

    What cancels by chance is small beside the terms that it is a sum of, and its rounding is not:
    `beside` is some of those terms. Infinite if all that it is divided by is zero.
    """
    error = float((found.double() - right.double()).norm())
    size = max(float(t.double().norm()) for t in (right, right if beside is None else beside))
    return error / size if size else math.inf if error else 0.0


def furthest(
    found: Mapping[str, Tensor], right: Mapping[str, Tensor], beside: Mapping[str, Tensor]
) -> tuple[float, str]:
    """The largest distance of a tensor from the one of its name, and the name."""

    def of(name: str) -> float:
        if name in found and name in right:
            return distance(found[name], right[name], beside.get(name))
        return math.inf

    return max((of(name), name) for name in right.keys() | found.keys())


def joined(tensors: Mapping[str, Tensor]) -> Tensor:
    """All numbers of all tensors in one row, by name."""
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def n_different(found: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> int:
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
    return tensor.contiguous().view(_WHOLE[tensor.element_size()])
