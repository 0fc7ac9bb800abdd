"""How far a computation is from float64, beside how far the plain one of its precision is."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from psannlm.device import autocast

Leaves = Mapping[str, Tensor]
"""What a computation starts from, by name: inputs and parameters."""

Path = Callable[..., Tensor]
"""One way to compute an output from leaves in their order; autograd finds the way back."""

FEW = 16
"""Numbers of a tensor up to which its error is one draw of chance rather than a size."""

SPREAD = 2
"""How far one draw may lie out: two of its standard errors, by the worst that is known of them."""

LUCK = 4.0
"""Standard errors by which the logarithm of the ratio of two errors may differ by chance."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An output that is computed plainly and in faster ways, from the same values."""

    leaves: Leaves
    """In the dtype that they have in the precision of the problem."""

    precision: str
    """Of products, by autocast, as in the networks."""

    plain: Path
    exact: Path
    """What float64 leaves are given to: the plain path, as a rule."""

    fast: Mapping[str, Path]
    """By name."""

    n_terms: int
    """Most numbers that one number of the results is the sum of."""


@dataclass(frozen=True, kw_only=True)
class Excess:
    """How much farther from float64 a fast path is than the plain one, at its worst tensor."""

    ratio: float
    """Error of the fast path as a multiple of that of the plain one, or of its floor."""

    tensor: str
    fast: float
    plain: float
    floor: float


def excesses(problems: Sequence[Problem]) -> Iterator[tuple[str, Excess]]:
    """Compare every fast path of a problem with the plain one, by name.

    The error of a tensor, be it the output or its gradient by a leaf, is ||x - x64|| / ||x64||,
    the norms taken over all seeds together. The worst tensor counts. The plain error counts as no
    less than a floor, as no path can be held to another one's luck:

    * the error of the float64 result rounded once to the dtype of the tensor,
    * u sqrt(n / 6) with float32's unit roundoff u: the standard error of n random numbers that are
      added one after the other, where the plain path may have added pairs of pairs,
    * for n numbers of all seeds the plain error times exp(`LUCK` / sqrt(n)): if each of them has an
      independent rounding error of one size, the logarithm of the ratio of two such norms has a
      standard error of 1 / sqrt(n), whatever order of sums the processor's instructions choose, and
    * for tensors of at most `FEW` numbers instead `SPREAD` times the largest plain error of all
      tensors of the problem: the plain error of a number or two says little about what it may be.

    Args:
        problems: The same problem for several seeds.
    """
    exact = [results(p.exact, _doubled(p.leaves), "fp32") for p in problems]
    plain = [results(p.plain, p.leaves, p.precision) for p in problems]
    once = [
        {name: x[name].to(p[name].dtype) for name in x} for x, p in zip(exact, plain, strict=True)
    ]
    reference, rounding = _errors(plain, exact), _errors(once, exact)
    of_sums = torch.finfo(torch.float32).eps / 2 * math.sqrt(problems[0].n_terms / 6)
    of_few = SPREAD * max(reference.values())
    floors = {
        name: max(
            rounding[name],
            of_sums,
            of_few
            if tensor.numel() <= FEW
            else reference[name] * math.exp(LUCK / math.sqrt(tensor.numel() * len(problems))),
        )
        for name, tensor in exact[0].items()
    }
    for path in problems[0].fast:
        errors = _errors([results(p.fast[path], p.leaves, p.precision) for p in problems], exact)
        worst = max(errors, key=lambda name: errors[name] / max(reference[name], floors[name]))
        standard = max(reference[worst], floors[worst])
        yield (
            path,
            Excess(
                ratio=errors[worst] / standard,
                tensor=worst,
                fast=errors[worst],
                plain=reference[worst],
                floor=floors[worst],
            ),
        )


def results(path: Path, leaves: Leaves, precision: str) -> dict[str, Tensor]:
    """The output of a path and its gradients by all leaves that want one, by name."""
    device = next(iter(leaves.values())).device
    with autocast(device, precision):
        output = path(*leaves.values())
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    names = [f"gradient of {name}" for name in wanted]
    found = torch.autograd.grad(output, list(wanted.values()), _outer(output)) if wanted else ()
    return {"output": output.detach()} | dict(zip(names, found, strict=True))


def _outer(output: Tensor) -> Tensor:
    """A gradient of the output: the same numbers, as bfloat16 holds them, in every precision."""
    if output.dim() == 0:
        return torch.full_like(output, 1024.0)  # as a loss is scaled, lest float16 underflows
    generator = torch.Generator().manual_seed(output.numel())
    return torch.randn(output.shape, generator=generator).bfloat16().to(output)


def _doubled(leaves: Leaves) -> Leaves:
    return {
        name: leaf.detach().double().requires_grad_(leaf.requires_grad)
        for name, leaf in leaves.items()
    }


def _errors(
    found: Sequence[Mapping[str, Tensor]], exact: Sequence[Mapping[str, Tensor]]
) -> dict[str, float]:
    """By tensor; infinite for what is not finite or not zero where it should be."""
    errors = {}
    for name in exact[0]:
        pairs = [(x[name].double(), y[name]) for x, y in zip(found, exact, strict=True)]
        distance = math.hypot(*((x - y).norm().item() for x, y in pairs))
        size = math.hypot(*(y.norm().item() for _, y in pairs))
        error = 0.0 if distance == 0 else distance / size if size else math.inf
        errors[name] = error if math.isfinite(error) else math.inf
    return errors
