"""Whether a network is built as configured: its parameters, its sines, and unlike other bases.

Shape letters: B batch, T tokens.
"""

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from psannlm.checks.findings import Case, Measure
from psannlm.checks.networks import EPSILON, difference, perturbed
from psannlm.checks.reference import damped_sine
from psannlm.config.network import ModelConfig
from psannlm.model.bases import BASES, cost_of
from psannlm.model.cost import Shape
from psannlm.model.sine import DampedSine
from psannlm.model.transformer import Transformer

DEVIATIONS = 4  # standard errors of a mean: a right one lies beyond once in 16,000 draws
ROUNDINGS = 8
"""Of s(z) in float32: two of a softplus, of its floor, three products, a sine, an exponential."""
LARGEST = 256.0  # pre-activation up to which the sine is held to its formula


def structure_measures(case: Case, fresh: Transformer) -> list[Measure]:
    """Of a network as it is before its first step."""
    network = fresh.config
    memory = Counter(p.data_ptr() for _, p in fresh.named_parameters(remove_duplicate=False))
    n_counted = cost_of(network, Shape(1, 1)).n_parameters
    exact = "a count, which is right or wrong"
    counts = {
        "parameters that share their memory with another": (
            sum(n - 1 for n in memory.values()),
            f"every layer learns parameters of its own: {exact}",
        ),
        "parameters more or fewer than its construction has": (
            abs(_n_parameters(fresh) - n_counted),
            exact,
        ),
        "parameters learned or kept other than configured": (len(wrongly_learned(fresh)), exact),
    }
    measures = [
        Measure(name=name, value=value, bound=0, why=why) for name, (value, why) in counts.items()
    ]
    sines = [module for module in fresh.modules() if isinstance(module, DampedSine)]
    return measures + (sine_measures(network, sines, case.device) if sines else [])


def wrongly_learned(model: Transformer) -> list[str]:
    """Parameters that are learned although `config.learnable` does not name them, or not so."""
    constant = {"amplitude", "frequency", "decay"} - set(model.config.learnable)
    of_sines = {f"{n}.raw_" for n, m in model.named_modules() if isinstance(m, DampedSine)}
    frozen = {f"{start}{part}" for start in of_sines for part in constant}
    return [n for n, p in model.named_parameters() if p.requires_grad == (n in frozen)]


def sine_measures(
    network: ModelConfig, sines: list[DampedSine], device: torch.device
) -> list[Measure]:
    """Initial A, f and d of all sines, and s(z) itself beside its formula."""
    wanted = {"amplitude": network.sine_amplitude, "decay": network.sine_decay}
    if network.freq_init_std == 0:
        wanted["frequency"] = network.sine_frequency
    gap, largest = 0.0, 1.0
    for sine in sines:
        for part, value in wanted.items():
            if (raw := getattr(sine, f"raw_{part}")) is not None:
                gap = max(gap, ((positive(sine, part) - value) / value).abs().max().item())
                largest = max(largest, raw.abs().max().item())
    initial = Measure(
        name="initial A, f and d against the configured ones, relative",
        value=gap,
        bound=EPSILON * largest,
        why="float32 rounds the raw parameter, and a softplus grows no faster than e to its power",
    )
    drawn = [_mean_frequency(network, sines)] if network.freq_init_std > 0 else []
    return [initial, *drawn, phase_measure(sines[0], torch.float32, device)]


def positive(sine: DampedSine, part: str) -> Tensor:
    """A, f or d of each feature in float64, from the raw parameters alone."""
    raw: Tensor = getattr(sine, f"raw_{part}").detach().double()
    floor = 1e-6 if part == "frequency" else 0.0
    return torch.logaddexp(raw, torch.zeros_like(raw)) + floor


def phase_measure(sine: DampedSine, dtype: torch.dtype, device: torch.device) -> Measure:
    """How far s(z) is off its formula for pre-activations of `dtype`, the largest included.

    The error a float32 phase may have grows with f |z|: the value is in units of it.
    """
    features = len(sine.raw_amplitude)
    z = torch.linspace(-LARGEST, LARGEST, 512, device=device).to(dtype)[:, None].repeat(1, features)
    x = z.double()
    a, f = positive(sine, "amplitude"), positive(sine, "frequency")
    decay = torch.zeros_like(a) if sine.raw_decay is None else positive(sine, "decay")
    with torch.no_grad():
        error = (sine(z).double() - damped_sine(x, a, f, decay, sine.decay_mode)).abs()
    exponent = decay * (x.abs() if sine.decay_mode == "abs" else x.relu())
    size = a * torch.exp(-exponent)
    allowed = ROUNDINGS * EPSILON / 2 * size * (1 + f * x.abs() + exponent)
    if dtype != torch.float32:
        allowed = allowed + torch.finfo(dtype).eps / 2 * size + torch.finfo(dtype).tiny
    return Measure(
        name=f"s(z) of {str(dtype).removeprefix('torch.')} z to {LARGEST:.0f} against its formula, "
        "over what a float32 phase may be off",
        value=(error / allowed).max().item(),
        bound=1.0,
        why=f"{ROUNDINGS} roundings of float32 move the phase f z and the exponent d |z| in "
        "proportion to their size, and the result is rounded once to the dtype of z",
    )


def _mean_frequency(network: ModelConfig, sines: list[DampedSine]) -> Measure:
    """Mean of initial frequencies that are drawn: |N(mu, sd)|, a folded normal distribution."""
    mu, sd = network.sine_frequency, network.freq_init_std
    folded = sd * math.sqrt(2 / math.pi) * math.exp(-((mu / sd) ** 2) / 2)
    folded += mu * math.erf(mu / sd / math.sqrt(2))
    found = torch.cat([positive(sine, "frequency") for sine in sines])
    return Measure(
        name="mean of the initial f against its distribution, radians per unit of z",
        value=abs(found.mean().item() - folded),
        bound=DEVIATIONS * sd / math.sqrt(len(found)) + 1e-3,
        why="four standard errors of a mean, and the 0.001 below which no f is drawn",
    )


def distinct_measure(
    case: Case, own: Transformer, tokens: Tensor, rounding: float
) -> tuple[Measure, dict[str, Any]]:
    """How far other bases are from this one, with equal seeds and equally noisy parameters.

    Args:
        case: Its configuration has the options of all bases.
        own: The network of the case, made by `networks.perturbed` with the seed of the case.
        tokens: (B, T).
        rounding: Relative norm by which float32 logits are off.

    Returns:
        The measure, and facts: the parameters of all bases, and which base is the same by choice.
    """
    gaps: dict[str, float] = {}
    facts: dict[str, Any] = {f"parameters, {case.base}": _n_parameters(own)}
    with torch.no_grad():
        logits = own(tokens)
        for base in (base for base in BASES if base != case.base):
            other = perturbed(case.config.network_of(base), case.device, case.config.seed)
            facts[f"parameters, {base}"] = _n_parameters(other)
            gap = difference(other(tokens), logits)
            if {case.base, base} == {"respsann", "waveresnet"} and case.config.wave == "none":
                facts["the same by configuration"] = f"{base}: wave is none, difference {gap:.1e}"
            else:
                gaps[base] = gap
    nearest = min(gaps, key=lambda base: gaps[base])
    measure = Measure(
        name=f"logits against those of the nearest other base, {nearest}, relative",
        value=gaps[nearest],
        bound=rounding,
        upper=False,
        why="two bases whose outputs differ by no more than float32 rounding are one base",
    )
    return measure, facts


def _n_parameters(model: Transformer) -> int:
    return sum(p.numel() for p in model.parameters())
