"""FAST: a fast path errs at most twice as much as the plain one of its precision.

Paths are tried on parts of a base's network, with inputs and weights drawn at random.
Shape letters: B batch, T tokens, D d_model, F d_mlp, H heads, K head width, L taps, N = B T, V
vocabulary.
"""

import copy
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import linear, scaled_dot_product_attention

from psannlm.checks import reference
from psannlm.checks.findings import Case, Measure, Result
from psannlm.checks.networks import difference, missing_products, refusal
from psannlm.config.network import DecayMode
from psannlm.device import DTYPES, autocast, missing_compiler
from psannlm.model import blockwise, loss, mixers, sine
from psannlm.model.bases import build
from psannlm.model.loss import CHUNK_TOKENS, IGNORED
from psannlm.model.positions import ALIBI_FEATURES
from psannlm.model.projection import plain_sine
from psannlm.model.transformer import Attention, Transformer
from psannlm.train.compilation import compiled_or_eager
from psannlm.train.objective import NextToken

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
COMPILED = "compiled network"  # a fast path, where the compiler compiles it
SPREADS = (3.0, 300.0)  # of z: that of features, and one at which the phase turns many times

Path = Callable[..., Tensor]  # one way to compute an output from leaves in their order


class Problem(NamedTuple):
    """An output that is computed plainly and in faster ways, from the same values."""

    leaves: Mapping[str, Tensor]  # inputs and parameters, in the dtypes of a precision
    plain: Path
    fast: Mapping[str, Path]  # by name
    exact: Path | None = None  # what float64 leaves are given to, if not the plain path


class Draw:
    """Leaves of a precision, drawn from a seed.

    Weights and features are float32 in each, as under autocast; shapes are those of the case.
    """

    def __init__(self, case: Case, precision: str, seed: int) -> None:
        self.case, self.precision, self.seed = case, precision, seed
        self.config, self.device = case.network, case.device
        self.rows = (case.config.batch, case.config.context_length)  # B, T
        self.generator = torch.Generator().manual_seed(seed)

    def numbers(self, *shape: int, spread: float = 1.0, rounded: bool = False) -> Tensor:
        """From a normal distribution; in the dtype of products if `rounded`."""
        dtype = DTYPES[self.precision] if rounded else torch.float32
        return self._leaf(spread * torch.randn(shape, generator=self.generator), dtype)

    def gains(self, n: int, size: float = 1.0) -> Tensor:
        """Between 0.3 and 1.3 times `size`, (n,)."""
        return self._leaf(size * (0.3 + torch.rand(n, generator=self.generator)), torch.float32)

    def tokens(self) -> Tensor:
        """Token ids, (B, T)."""
        drawn = torch.randint(self.config.vocab_size, self.rows, generator=self.generator)
        return drawn.to(self.device)

    def targets(self) -> Tensor:
        """Token ids, (B, T), of which every seventh counts for nothing."""
        targets = self.tokens()
        targets.view(-1)[6::7] = IGNORED
        return targets

    def _leaf(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        return values.to(self.device, dtype).requires_grad_()


Make = Callable[[Draw], Iterator[Problem]]


def sines(draw: Draw) -> Iterator[Problem]:
    """The damped sine of F features, in each decay mode, on small z and on large."""
    features = draw.config.d_mlp
    for mode, spread in itertools.product(get_args(DecayMode), SPREADS):
        leaves = {"z": draw.numbers(*draw.rows, features, spread=spread, rounded=True)}
        leaves |= {name: draw.gains(features) for name in ("amplitude", "frequency")}
        options: dict[str, Any] = {"decay_mode": mode}
        if mode == "none":
            options["decay"] = None
        else:
            leaves["decay"] = draw.gains(features, size=1 / spread)
        fast = {
            "damped sine, gradient written out": functools.partial(sine.damped_sine, **options),
            "damped sine, as compiled": functools.partial(sine.damped_sine_reference, **options),
        }
        yield Problem(leaves, functools.partial(reference.damped_sine, **options), fast)


def attention_layers(draw: Draw) -> Iterator[Problem]:
    """Attention as the networks have it, with its projections and positions."""
    width = draw.config.d_model
    leaves = {
        "x": draw.numbers(*draw.rows, width),
        "to_qkv.weight": draw.numbers(3 * width, width, spread=width**-0.5),
        "out.weight": draw.numbers(width, width, spread=width**-0.5),
    }
    names = "to_qkv.weight", "out.weight"
    layer = Attention(draw.config).to(draw.device)

    def plain(x: Tensor, *weights: Tensor) -> Tensor:
        return reference.Reference(draw.config, dict(zip(names, weights, strict=True))).attention(x)

    yield Problem(leaves, plain, {"attention layer": _module(layer, *names)})


def _module(module: nn.Module, *names: str) -> Path:
    """The module as a function of its input and the parameters of those names."""

    def path(x: Tensor, *parameters: Tensor) -> Tensor:
        y: Tensor = functional_call(module, dict(zip(names, parameters, strict=True)), (x,))
        return y

    return path


def attentions(draw: Draw, backends: Mapping[str, SDPBackend]) -> Iterator[Problem]:
    """Attention between given q, k and v, by each of torch's kernels and by our own."""
    scale = draw.config.d_head**-0.5
    extra = ALIBI_FEATURES if draw.config.positions == "alibi" else 0
    shape = (draw.rows[0], draw.config.n_heads, draw.rows[1], draw.config.d_head + extra)
    leaves = {name: draw.numbers(*shape, rounded=True) for name in ("q", "k", "v")}

    def kernel(q: Tensor, k: Tensor, v: Tensor, backend: SDPBackend) -> Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)

    fast: dict[str, Path] = {
        f"attention, {name} kernel": functools.partial(kernel, backend=backend)
        for name, backend in backends.items()
    }
    if blockwise.fits(leaves["q"]):
        fast["attention, in blocks"] = functools.partial(blockwise.causal_attention, scale=scale)
    yield Problem(leaves, functools.partial(reference.attention, scale=scale), fast)


def losses(draw: Draw) -> Iterator[Problem]:
    """The mean loss in chunks that do and do not divide N, and the loss of each token."""
    n, width = math.prod(draw.rows), draw.config.d_model
    leaves = {
        "hidden": draw.numbers(n, width),
        "head": draw.numbers(draw.config.vocab_size, width, spread=2 * width**-0.5),
    }
    targets = draw.targets().flatten()
    mean = functools.partial(loss.linear_cross_entropy, targets=targets)
    for chunk in sorted({n // 7 + 1, n // 2 + 1, n}):
        yield Problem(
            leaves,
            lambda hidden, head: reference.mean_loss(linear(hidden, head), targets),
            {"loss in chunks": functools.partial(mean, chunk_tokens=chunk)},
        )
    each = functools.partial(loss.token_losses, targets=targets, chunk_tokens=n // 2 + 1)
    yield Problem(
        {name: leaf.detach() for name, leaf in leaves.items()},
        lambda hidden, head: reference.token_losses(linear(hidden, head), targets),
        {"loss of each token": lambda hidden, head: each(hidden, head)[0]},
    )


def gates(draw: Draw) -> Iterator[Problem]:
    """The spectral gate: taps from its mask, and the convolution with them."""
    width, n_fft = draw.config.d_model, draw.config.gate_n_fft
    leaves = {
        "x": draw.numbers(*draw.rows, width, rounded=True),
        "mask": draw.numbers(width, n_fft // 2 + 1),
    }
    gate = mixers.SpectralGate(draw.config.model_copy(update={"gate_mix": "none"})).to(draw.device)
    yield Problem(
        leaves,
        lambda x, mask: reference.convolution(x, reference.gate_taps(mask), dilation=1),
        {"convolution of the gate": _module(gate, "mask")},
    )


def waves(draw: Draw) -> Iterator[Problem]:
    """The convolution of the wave, at the dilation of each layer."""
    config = draw.config
    leaves = {
        "x": draw.numbers(*draw.rows, config.d_model, rounded=True),
        "taps": draw.numbers(config.d_model, config.wave_kernel),
    }
    convolution = functools.partial(mixers.causal_convolution, past=None, name="wave")
    for dilation in sorted({mixers.wave_dilation(config, i) for i in range(config.n_layers)}):
        fast = functools.partial(convolution, dilation=dilation)
        plain = functools.partial(reference.convolution, dilation=dilation)
        yield Problem(leaves, plain, {"convolution of the wave": fast})


def networks(draw: Draw) -> Iterator[Problem]:
    """The network in training with its loss, eager and compiled, against its plain composition.

    The plain one saves all that autograd wants for backward, and has all logits at once. Weights
    stand away from where they start, so that no gate is neutral.
    """
    case = draw.case
    model = build(case.network, seed=draw.seed, device=case.device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(draw.numbers(*parameter.shape, spread=0.05))
    tokens, targets = draw.tokens(), draw.targets()
    leaves = dict(model.named_parameters())
    objective = NextToken(model, draw.precision, CHUNK_TOKENS)
    fast: dict[str, Path] = {"network": lambda *_: objective(tokens, targets)}
    if case.config.compile and not missing_compiler(case.device):
        compiled = torch.compile(objective)
        fast[COMPILED] = lambda *_: compiled(tokens, targets)

    def composition(network: Transformer) -> Path:
        plain_sine(network.eval())
        for module in network.modules():
            if isinstance(module, nn.RMSNorm):  # left alone, it takes that of its input's dtype
                module.eps = torch.finfo(torch.float32).eps

        def path(*values: Tensor) -> Tensor:
            named = dict(zip(leaves, values, strict=True))
            hidden = functional_call(network, named, (tokens,)).flatten(0, 1)
            return reference.mean_loss(hidden, targets.flatten())

        return path

    exact = composition(copy.deepcopy(model).double())
    yield Problem(leaves, composition(copy.deepcopy(model)), fast, exact)


# What tries the fast paths of the parts that only some bases have.
MODULES: Mapping[type[nn.Module], Make] = {
    sine.DampedSine: sines,
    mixers.SpectralGate: gates,
    mixers.CausalWave: waves,
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
    emulated: dict[str, str] = {}
    for precision in ("fp32", *case.config.precision):
        if reason := missing_products(case.device, precision):
            not_tried[precision] = reason
            continue
        there = case.in_precision(precision)
        if there is not case:
            emulated[f"{precision}, emulated"] = there.shape
        refused = _refused_kernels(there, precision)
        not_tried |= {f"attention, {k} kernel, {precision}": why for k, why in refused.items()}
        kernels = {name: kind for name, kind in BACKENDS.items() if name not in refused}
        for name, excess in _compare(there, precision, kernels, not_tried):
            key = f"{name}, {precision}"
            if key not in found or excess.ratio > found[key].ratio:
                found[key] = excess
    if case.config.compile and (lacking := missing_compiler(case.device)):
        not_tried[COMPILED] = lacking
    error = "error as a multiple of the plain path's"
    measures = [
        Measure(name=f"{name}: {error}", value=excess.ratio, bound=TWICE, why=WHY)
        for name, excess in found.items()
    ]
    errors = {name: excess._asdict() for name, excess in found.items()}
    return Result(measures=measures, facts={"errors": errors, "not tried": not_tried, **emulated})


def _compare(
    case: Case, precision: str, kernels: Mapping[str, SDPBackend], not_tried: dict[str, str]
) -> Iterator[tuple[str, Excess]]:
    """The excess of every fast path; why one was not tried that was to be is put beside."""
    kinds = {type(module) for module in build(case.network, seed=case.config.seed).modules()}
    makes: list[Make] = [
        attention_layers,
        losses,
        *(make for kind, make in MODULES.items() if kind in kinds),
        functools.partial(attentions, backends=kernels),
        networks,
    ]
    n_terms = case.config.batch * case.config.context_length
    for make in makes:
        seeds = range(case.config.seed, case.config.seed + case.config.n_seeds)
        for same in zip(*(make(Draw(case, precision, seed)) for seed in seeds), strict=True):
            if COMPILED not in same[0].fast:
                yield from excesses(same, precision, n_terms)
                continue
            found, made = compiled_or_eager(functools.partial(_compiled, same, precision, n_terms))
            if made.eager:
                not_tried[f"{COMPILED}, {precision}"] = made.eager
                found.pop(COMPILED, None)
            yield from found.items()
            torch.compiler.reset()  # what comes next compiles as if nothing had been compiled here


def _compiled(
    same: Sequence[Problem], precision: str, n_terms: int, compiled: bool
) -> dict[str, Excess]:
    """The excesses of problems, of which one fast path is compiled; without that one if not."""
    others = [{n: path for n, path in p.fast.items() if compiled or n != COMPILED} for p in same]
    kept = [p._replace(fast=fast) for p, fast in zip(same, others, strict=True)]
    return dict(excesses(kept, precision, n_terms))


def _refused_kernels(case: Case, precision: str) -> dict[str, str]:
    """Those of torch's attention kernels that do not serve here, and why."""
    refused = {}
    for name, backend in BACKENDS.items():
        (problem,) = attentions(Draw(case, precision, 0), {name: backend})
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
