"""FAST: a fast path errs at most twice as much as the plain one of its precision."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from psannlm.checks import problems
from psannlm.checks.findings import Case, Measure, Result
from psannlm.checks.networks import difference, missing_products, refusal
from psannlm.checks.problems import Draw, Make, Path, Problem
from psannlm.device import autocast, missing_compiler
from psannlm.model.bases import build

TWICE = 2.0
FEW = 16  # numbers of a tensor up to which its error is one draw of chance rather than a size
SPREAD = 2  # standard errors, by the worst that is known of them, that one draw may lie out
LUCK = 4.0  # standard errors by which the log of the ratio of two errors may differ by chance
WHY = (
    "computations of one precision round differently but equally much: twice the plain error, "
    "which counts for more where it is of few numbers, leaves room for another order of sums, and "
    "none for a wrong term"
)
BACKENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


class Excess(NamedTuple):
    """How much farther from float64 a fast path is than the plain one, at its worst tensor."""

    ratio: float  # error of the fast path over that of the plain one, or over its floor
    tensor: str
    fast: float
    plain: float
    floor: float


def check(case: Case) -> Result:
    """Hold each fast path of the base to its plain one, outputs and gradients, against float64.

    In fp32 and in each of `config.precision`, over `config.n_seeds` draws of inputs and weights;
    `excesses` says how errors are measured. With `config.compile` the compiled network
    is held to the plain one too. What the device cannot do stands in the facts with its reason.
    """
    not_tried: dict[str, str] = {}
    found: dict[str, Excess] = {}
    for precision in ("fp32", *case.config.precision):
        if reason := missing_products(case.device, precision):
            not_tried[precision] = reason
            continue
        refused = _refused_kernels(case, precision)
        not_tried |= {f"attention, {k} kernel, {precision}": why for k, why in refused.items()}
        kernels = {name: kind for name, kind in BACKENDS.items() if name not in refused}
        for name, excess in _compare(case, precision, kernels):
            key = f"{name}, {precision}"
            if key not in found or excess.ratio > found[key].ratio:
                found[key] = excess
    if case.config.compile and (lacking := missing_compiler(case.device)):
        not_tried["compiled network"] = lacking
    error = "error as a multiple of the plain path's"
    measures = [
        Measure(name=f"{name}: {error}", value=excess.ratio, bound=TWICE, why=WHY)
        for name, excess in found.items()
    ]
    errors = {name: excess._asdict() for name, excess in found.items()}
    return Result(measures=measures, facts={"errors": errors, "not tried": not_tried})


def _compare(
    case: Case, precision: str, kernels: Mapping[str, SDPBackend]
) -> Iterator[tuple[str, Excess]]:
    kinds = {type(module) for module in build(case.network, seed=case.config.seed).modules()}
    makes: list[Make] = [
        problems.attention_layers,
        problems.losses,
        *(make for kind, make in problems.MODULES.items() if kind in kinds),
        functools.partial(problems.attentions, backends=kernels),
        problems.networks,
    ]
    # Bases and precisions together are more than the compiler caches of one piece of code.
    torch.compiler.reset()
    for make in makes:
        seeds = range(case.config.seed, case.config.seed + case.config.n_seeds)
        for same in zip(*(make(Draw(case, precision, seed)) for seed in seeds), strict=True):
            yield from excesses(same, precision, case.config.batch * case.config.context_length)
    torch.compiler.reset()  # what comes next compiles as if nothing had been compiled here


def _refused_kernels(case: Case, precision: str) -> dict[str, str]:
    """Those of torch's attention kernels that do not serve here, and why."""
    refused = {}
    for name, backend in BACKENDS.items():
        (problem,) = problems.attentions(Draw(case, precision, 0), {name: backend})
        path = problem.fast[f"attention, {name} kernel"]
        if reason := refusal(results, path, problem.leaves, precision):
            refused[name] = reason
    return refused


def excesses(same: Sequence[Problem], precision: str, n_terms: int) -> Iterator[tuple[str, Excess]]:
    """Compare every fast path of a problem with the plain one, by name, in a precision.

    The error of a tensor, the output or its gradient by a leaf, is ||x - x64|| / ||x64||, norms
    over all seeds together; the worst tensor counts. The plain error counts as no less than a
    floor, as no path can be held to another one's luck:

    * the error of the float64 result rounded once to the dtype of the tensor,
    * u sqrt(n / 6) with float32's unit roundoff u: the standard error of n random numbers added one
      after the other, where the plain path may have added pairs of pairs,
    * for n numbers of all seeds the plain error times exp(`LUCK` / sqrt(n)): with independent
      rounding errors of one size, the logarithm of the ratio of two such norms has a standard error
      of 1 / sqrt(n), whatever order of sums the processor's instructions choose, and
    * for at most `FEW` numbers instead `SPREAD` times the largest plain error of all tensors of the
      problem: the plain error of a number or two says little about what it may be.

    Problems are the same one for several seeds; results are sums of at most `n_terms` numbers.
    """
    exact = [results(p.exact or p.plain, doubled(p.leaves), "fp32") for p in same]
    found = [results(p.plain, p.leaves, precision) for p in same]
    once = [{n: x[n].to(p[n].dtype) for n in x} for x, p in zip(exact, found, strict=True)]
    plain, rounding = _errors(found, exact), _errors(once, exact)
    of_sums = torch.finfo(torch.float32).eps / 2 * math.sqrt(n_terms / 6)
    floors = {}
    for name, tensor in exact[0].items():
        by_chance = plain[name] * math.exp(LUCK / math.sqrt(tensor.numel() * len(same)))
        if tensor.numel() <= FEW:
            by_chance = SPREAD * max(plain.values())
        floors[name] = max(rounding[name], of_sums, by_chance)
    for path in same[0].fast:
        errors = _errors([results(p.fast[path], p.leaves, precision) for p in same], exact)
        ratios = {name: error / max(plain[name], floors[name]) for name, error in errors.items()}
        worst = max(ratios, key=lambda name: ratios[name])
        yield path, Excess(ratios[worst], worst, errors[worst], plain[worst], floors[worst])


def results(path: Path, leaves: Mapping[str, Tensor], precision: str) -> dict[str, Tensor]:
    """The output of a path and its gradients by all leaves that want one, by name."""
    device = next(iter(leaves.values())).device
    with autocast(device, precision):
        output = path(*leaves.values())
    outer = torch.full_like(output, 1024.0)  # as a loss is scaled, lest float16 underflows
    if output.dim():  # else the same numbers, as bfloat16 holds them, in every precision
        generator = torch.Generator().manual_seed(output.numel())
        outer = torch.randn(output.shape, generator=generator).bfloat16().to(output)
    wanted = {f"gradient of {n}": leaf for n, leaf in leaves.items() if leaf.requires_grad}
    found = torch.autograd.grad(output, list(wanted.values()), outer) if wanted else ()
    return {"output": output.detach()} | dict(zip(wanted, found, strict=True))


def doubled(leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same in float64, with gradients of their own."""
    return {n: x.detach().double().requires_grad_(x.requires_grad) for n, x in leaves.items()}


def _errors(
    found: Sequence[Mapping[str, Tensor]], exact: Sequence[Mapping[str, Tensor]]
) -> dict[str, float]:
    """By tensor; infinite for what is not finite or not zero where it should be."""
    errors = {}
    for name in exact[0]:
        one, other = (torch.cat([x[name].flatten() for x in seeds]) for seeds in (found, exact))
        error = difference(one, other)
        errors[name] = error if math.isfinite(error) else math.inf
    return errors
