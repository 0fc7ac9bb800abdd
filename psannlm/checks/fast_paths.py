"""FAST: a fast path errs at most twice as much as the plain one of its precision."""

import copy
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend
from torch.nn.functional import conv1d

from psannlm.checks import plain_parts, problems
from psannlm.checks.exactness import Excess, Path, Problem, excesses, results
from psannlm.checks.findings import Case, Measure, Result
from psannlm.checks.problems import Draw
from psannlm.device import DTYPES, missing_compiler
from psannlm.model.bases import build
from psannlm.model.loss import CHUNK_TOKENS
from psannlm.model.mixers import CausalWave, SpectralGate
from psannlm.model.projection import plain_sine
from psannlm.model.sine import DampedSine
from psannlm.model.transformer import Transformer
from psannlm.train.objective import NextToken

TWICE = 2.0

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

Make = Callable[[Draw], Iterator[Problem]]


def check(case: Case) -> Result:
    """Hold each fast path of the base to its plain one, outputs and gradients, against float64.

    In fp32 and in each of `config.precision`, over `config.n_seeds` draws of inputs and weights;
    `exactness.excesses` says how errors are measured. With `config.compile` the compiled network
    is held to the plain one too. What the device cannot do stands in the facts with its reason.
    """
    not_tried: dict[str, str] = {}
    found: dict[str, Excess] = {}
    for precision in ("fp32", *case.config.precision):
        if reason := _refusal(_products, case.device, precision):
            not_tried[precision] = reason
            continue
        kernels, refused = _kernels(case, precision)
        not_tried |= {
            f"attention, {name} kernel, {precision}": why for name, why in refused.items()
        }
        for name, excess in _compare(case, precision, kernels):
            key = f"{name}, {precision}"
            if key not in found or excess.ratio > found[key].ratio:
                found[key] = excess
    if case.config.compile and (lacking := missing_compiler(case.device)):
        not_tried["compiled network"] = lacking
    return Result(
        measures=tuple(
            Measure(
                name=f"{name}: error as a multiple of the plain path's",
                value=excess.ratio,
                bound=TWICE,
                why=WHY,
            )
            for name, excess in found.items()
        ),
        facts={
            "errors": {name: dataclasses.asdict(e) for name, e in found.items()},
            "not tried": not_tried,
        },
    )


def _compare(
    case: Case, precision: str, kernels: Mapping[str, SDPBackend]
) -> Iterator[tuple[str, Excess]]:
    seeds = range(case.config.seed, case.config.seed + case.config.n_seeds)
    kernel_by_kernel: Make = functools.partial(problems.attentions, backends=kernels)
    for make in (*_parts(case), kernel_by_kernel):
        draws = [make(Draw(case, precision, seed)) for seed in seeds]
        for same in zip(*draws, strict=True):
            yield from excesses(same)
    # Bases and precisions together are more than the compiler keeps of one piece of code.
    torch.compiler.reset()
    yield from excesses([_network(case, precision, seed) for seed in seeds])
    torch.compiler.reset()  # what comes next compiles as if nothing had been compiled here


def _parts(case: Case) -> list[Make]:
    """What tries the fast paths that the base has."""
    makes: list[Make] = [problems.attention_layers, problems.losses]
    kinds = {type(module) for module in build(case.network, seed=case.config.seed).modules()}
    for kind, make in (
        (DampedSine, problems.sines),
        (SpectralGate, problems.gates),
        (CausalWave, problems.waves),
    ):
        if kind in kinds:
            makes.append(make)
    return makes


def _network(case: Case, precision: str, seed: int) -> Problem:
    """The network in training with its loss, eager and compiled, against its plain composition.

    The plain one keeps all that autograd wants to keep, and has all logits at once. Weights stand
    away from where they start, so that no gate is neutral.
    """
    model, draw = build(case.network, seed=seed, device=case.device), Draw(case, precision, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(draw.numbers(*parameter.shape, spread=0.05))
    tokens, targets = draw.tokens(), draw.targets()
    leaves = dict(model.named_parameters())
    objective = NextToken(model, precision, CHUNK_TOKENS)
    fast: dict[str, Path] = {"network": lambda *_: objective(tokens, targets)}
    if case.config.compile and not missing_compiler(case.device):
        compiled = torch.compile(objective)
        fast["compiled network"] = lambda *_: compiled(tokens, targets)

    def composition(network: Transformer) -> Path:
        plain_sine(network.eval())
        for module in network.modules():
            if isinstance(module, nn.RMSNorm):  # left alone, it takes that of its input's dtype
                module.eps = torch.finfo(torch.float32).eps

        def path(*values: Tensor) -> Tensor:
            named = dict(zip(leaves, values, strict=True))
            hidden = functional_call(network, named, (tokens,)).flatten(0, 1)
            return plain_parts.mean_loss(hidden, targets.flatten())

        return path

    return Problem(
        leaves=leaves,
        precision=precision,
        plain=composition(copy.deepcopy(model)),
        exact=composition(copy.deepcopy(model).double()),
        fast=fast,
        n_terms=tokens.numel(),
    )


def _kernels(case: Case, precision: str) -> tuple[dict[str, SDPBackend], dict[str, str]]:
    """Those of torch's attention kernels that serve here, and why the others do not."""
    serving, refused = {}, {}
    for name, backend in BACKENDS.items():
        (problem,) = problems.attentions(Draw(case, precision, 0), {name: backend})
        path = problem.fast[f"attention, {name} kernel"]
        if reason := _refusal(results, path, problem.leaves, precision):
            refused[name] = reason
        else:
            serving[name] = backend
    return serving, refused


def _products(device: torch.device, precision: str) -> None:
    """The products of which a network is made, once, with their gradients."""
    x = torch.ones(1, 8, 8, device=device, dtype=DTYPES[precision], requires_grad=True)
    y = conv1d(x @ x, x[0, :, None], groups=8) + x.softmax(-1)
    torch.autograd.grad(y.sum(), x)


def _refusal(attempt: Callable[..., Any], *arguments: Any) -> str:
    """What torch says if it cannot do it, empty if it can."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            attempt(*arguments)
        except RuntimeError as error:
            lines = [str(warning.message) for warning in said] or [str(error)]
            return " ".join(line.partition(" (Triggered")[0] for line in lines)
    return ""
