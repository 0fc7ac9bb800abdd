"""GPU-01: a network is built as configured, computes its formulas, sees no future, and learns.

Shape letters: B batch, T tokens.
"""

import math
from typing import Any

import numpy as np
import torch
from scipy.stats import entropy, foldnorm
from torch import Tensor

from psannlm.checks import networks, reference
from psannlm.checks.findings import Case, Measure, Result
from psannlm.checks.networks import EPSILON, Batch, difference, gradients_of, joined, leak, loss_of
from psannlm.checks.reference import CHANGES
from psannlm.config.network import ModelConfig
from psannlm.model.bases import BASES, build, cost_of
from psannlm.model.cost import Shape
from psannlm.model.sine import DampedSine
from psannlm.model.transformer import Transformer
from psannlm.train.plan import Batches

DEVIATIONS = 4  # standard errors of a mean: a right one lies beyond once in 16,000 draws
ROUNDINGS = 8  # of s(z): two of a softplus, of its floor, three products, a sine, an exponential
LARGEST = 256.0  # pre-activation up to which the sine is held to its formula
SEQUENCES = 2  # on which a network is held to its formulas
ORDERS = 2  # times the rounding of formulas in float32: a fast path has its own order of sums
COPY_SCALE = 10.0  # of the embeddings of the copying network: positions of size 1 do not blur them


def check(case: Case) -> Result:
    """Look at a network before, during and after a short fit to real text."""
    config = case.config
    fresh = build(case.network, seed=config.seed, device=case.device)
    measures = structure_measures(fresh)
    short = min(64, config.context_length)  # few steps learn a short text
    few = networks.batches_of(config, config.batch, length=short, rows=config.batch).batch(0)
    fitted, losses = fit_measures(case, fresh, few)
    measures += fitted
    facts: dict[str, Any] = {"losses of the fit, nats": losses}

    noisy = networks.perturbed(case.network, case.device, config.seed)
    batches = networks.batches_of(config, config.batch, rows=config.batch)
    tokens, targets = (part[:SEQUENCES].to(case.device) for part in batches.batch(0))
    measures.append(gradient_measure(noisy, (tokens, targets)))
    rounding = EPSILON * case.network.d_mlp
    if case.base in CHANGES:
        exact, rounding = formula_measures(noisy, (tokens, targets))
        measures += exact
    else:
        facts["formulas"] = f"{case.base} has none in checks/reference.py to be held to"
    measures += [
        Measure(
            name=f"largest change of a logit before a changed token, {at}, over the largest logit",
            value=leak(model, tokens[:1]),
            bound=rounding,
            why="nothing but rounding may differ, and float32 rounding moves logits by this much",
        )
        for at, model in (("after the fit", fresh), ("with noisy parameters", noisy))
    ]
    distinct, counts = distinct_measure(case, noisy, tokens, rounding)
    measures += [distinct, *label_measures(noisy, batches)]
    return Result(measures=measures, facts=facts | counts)


def structure_measures(fresh: Transformer) -> list[Measure]:
    """Of a network as it is before its first step: its parameters, and its sines if it has any."""
    places = [p.data_ptr() for _, p in fresh.named_parameters(remove_duplicate=False)]
    n_counted = cost_of(fresh.config, Shape(1, 1)).n_parameters
    exact = "a count, which is right or wrong"
    shared = len(places) - len(set(places))
    more = abs(sum(p.numel() for p in fresh.parameters()) - n_counted)
    constant = {"amplitude", "frequency", "decay"} - set(fresh.config.learnable)
    of_sines = {f"{n}.raw_" for n, m in fresh.named_modules() if isinstance(m, DampedSine)}
    frozen = {f"{start}{part}" for start in of_sines for part in constant}
    wrong = sum(p.requires_grad == (n in frozen) for n, p in fresh.named_parameters())
    own = f"every layer learns parameters of its own: {exact}"
    measures = [
        Measure(name=name, value=value, bound=0, why=why)
        for name, value, why in (
            ("parameters that share their memory with another", shared, own),
            ("parameters more or fewer than its construction has", more, exact),
            ("parameters learned or kept other than configured", wrong, exact),
        )
    ]
    sines = [module for module in fresh.modules() if isinstance(module, DampedSine)]
    return measures + (sine_measures(fresh.config, sines) if sines else [])


def sine_measures(network: ModelConfig, sines: list[DampedSine]) -> list[Measure]:
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
    return [initial, *drawn, phase_measure(sines[0], torch.float32)]


def positive(sine: DampedSine, part: str) -> Tensor:
    """A, f or d of each feature in float64, from the raw parameters alone."""
    floor = reference.FREQUENCY_FLOOR if part == "frequency" else 0.0
    return reference.softplus(getattr(sine, f"raw_{part}").detach().double()) + floor


def phase_measure(sine: DampedSine, dtype: torch.dtype) -> Measure:
    """How far s(z) is off its formula for pre-activations of `dtype`, the largest included.

    The error a float32 phase may have grows with f |z|: the value is in units of it.
    """
    z = torch.linspace(-LARGEST, LARGEST, 512).to(sine.raw_amplitude.device, dtype)
    z = z[:, None].repeat(1, len(sine.raw_amplitude))
    x = z.double()
    a, f = positive(sine, "amplitude"), positive(sine, "frequency")
    decay = torch.zeros_like(a) if sine.raw_decay is None else positive(sine, "decay")
    with torch.no_grad():
        error = (sine(z).double() - reference.damped_sine(x, a, f, decay, sine.decay_mode)).abs()
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
    sd = network.freq_init_std
    folded = float(foldnorm.mean(network.sine_frequency / sd, scale=sd))
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

    `own` is the `perturbed` network of the case; float32 logits are off by `rounding`. Facts tell
    the parameters of all bases, and which base is the same by choice.
    """
    facts: dict[str, Any] = {f"parameters, {case.base}": sum(p.numel() for p in own.parameters())}
    gaps = {}
    for base in (base for base in BASES if base != case.base):
        network = case.config.network_of(base)
        other = networks.perturbed(network, case.device, case.config.seed)
        facts[f"parameters, {base}"] = sum(p.numel() for p in other.parameters())
        with torch.no_grad():
            gaps[base] = difference(other(tokens), own(tokens))
    same = {"respsann": "waveresnet", "waveresnet": "respsann"}.get(case.base)
    if same and case.config.wave == "none":
        gap = gaps.pop(same)
        facts["the same by configuration"] = f"{same}: wave is none, difference {gap:.1e}"
    nearest = min(gaps, key=lambda base: gaps[base])
    measure = Measure(
        name=f"logits against those of the nearest other base, {nearest}, relative",
        value=gaps[nearest],
        bound=rounding,
        upper=False,
        why="two bases whose outputs differ by no more than float32 rounding are one base",
    )
    return measure, facts


def fit_measures(case: Case, model: Transformer, batch: Batch) -> tuple[list[Measure], list[float]]:
    """Fit a network to one batch; its first loss and its last are judged, all are told."""
    optimizer = networks.optimizer_of(model, case.config)
    steps = range(case.config.fit_steps)
    losses = [networks.train_step(model, optimizer, batch).item() for _ in steps]
    with torch.no_grad():
        losses.append(loss_of(model, batch).item())
    spread = case.network.init_std * math.sqrt(case.network.d_model)
    measures = [
        Measure(
            name="first loss against the logarithm of the vocabulary, nats",
            value=abs(losses[0] - math.log(case.network.vocab_size)),
            bound=spread**2 / 2 + 3 * spread,
            why="features have size 1, so first logits spread by init_std * sqrt(d_model) = s: "
            "their log-sum-exp adds s^2 / 2, and the targets' own lie within 3 s",
        ),
        Measure(
            name=f"loss after {case.config.fit_steps} steps, nats",
            value=losses[-1],
            bound=float(entropy(np.bincount(batch[1].flatten()))),
            why="the entropy of the fitted bytes: what knowing no more than how often each "
            "stands there costs",
        ),
    ]
    return measures, losses


def gradient_measure(model: Transformer, batch: Batch) -> Measure:
    """How many parameters that are learned get no gradient, or one that is no number or zero."""
    gradients = gradients_of(model, loss_of(model, batch)).values()
    return Measure(
        name="learned parameters without a finite gradient other than zero",
        value=sum(not (g.isfinite().all() and g.any()) for g in gradients),
        bound=0,
        why="with noisy parameters every one of them has a part in the loss",
    )


def formula_measures(model: Transformer, batch: Batch) -> tuple[list[Measure], float]:
    """Logits and gradients of the fast network beside those of its formulas.

    Returned besides is how far float32 logits of the same formulas are off, as a relative norm.
    """
    sides = []
    for dtype in (torch.float64, torch.float32):
        formulas = reference.Reference.of(model, dtype)
        logits = formulas.logits(batch[0])
        loss = reference.token_losses(logits, batch[1]).mean()
        sides.append((logits, joined(gradients_of(formulas.weights, loss))))
    exact, rounded = sides
    found = model(batch[0]), joined(gradients_of(model, loss_of(model, batch)))
    roundings = [difference(r, e) for r, e in zip(rounded, exact, strict=True)]
    measures = [
        Measure(
            name=f"{kind} against the formulas in float64, relative norm of the difference",
            value=difference(f, e),
            bound=ORDERS * rounding,
            why="twice what float32 rounding alone does to the same formulas, written a second "
            "time",
        )
        for kind, f, e, rounding in zip(
            ("logits", "gradients"), found, exact, roundings, strict=True
        )
    ]
    return measures, roundings[0]


def label_measures(model: Transformer, batches: Batches) -> list[Measure]:
    """The loss of the trainer beside one by hand, and beside that of a network that copies.

    `model` has parameters that tell tokens apart, and becomes a network that copies.
    """
    batch = batches.batch(0)
    # Not a divisor of B * T: the last chunk is shorter, and must not weigh more for it.
    chunk = max(1, 2 * batch[0].numel() // 5)
    wanted = loss_by_hand(model, batches)
    with torch.no_grad():
        found = loss_of(model, batch, chunk_tokens=chunk).item()
        copied = loss_of(copying(model), batch, chunk_tokens=chunk).item()
    return [
        Measure(
            name="loss of the trainer against logits[t] and token t + 1 by hand, relative",
            value=abs(found - wanted) / wanted,
            bound=model.config.d_model * EPSILON,
            why="a logit is a sum of d_model products, each of which float32 rounds once",
        ),
        Measure(
            name="loss of a network that repeats its input, nats",
            value=copied,
            bound=math.log(model.config.vocab_size),
            upper=False,
            why="whoever repeats a token where the next is asked for is worse than a blind guess",
        ),
    ]


def loss_by_hand(model: Transformer, batches: Batches) -> float:
    """Mean nats that logits[t] of step 0 give to the token at t + 1 of the text, in float64."""
    length = batches.context_length
    starts = batches.windows(np.arange(batches.batch_sequences)) * length
    text = np.asarray(batches.tokens.ids).astype(np.int64)
    rows = torch.from_numpy(np.stack([text[s : s + length + 1] for s in starts]))  # (B, T + 1)
    with torch.no_grad():
        logits = model(rows[:, :-1].to(model.embedding.weight.device)).double().cpu()
    return float(-logits.softmax(-1).gather(2, rows[:, 1:, None]).log().mean())


@torch.no_grad()
def copying(model: Transformer) -> Transformer:
    """The network with blocks that add nothing and a head that finds the embedding again.

    What writes to the residual stream is a linear map named `out`; at zero, a block is idle. Equal
    lengths make an embedding its own nearest one.
    """
    for name, parameter in model.named_parameters():
        if name.endswith((".out.weight", ".out.bias")):
            parameter.zero_()
    table = torch.nn.functional.normalize(model.embedding.weight, dim=1)
    model.embedding.weight.copy_(COPY_SCALE * model.config.d_model**0.5 * table)
    model.norm.weight.fill_(1.0)
    # The nearest other embedding lies at a cosine below 1; enough of a factor tells them apart.
    nearest = (table @ table.T).fill_diagonal_(-1.0).max().item()
    model.lm_head.weight.copy_(table * 20 / max(1 - nearest, 1e-3) / model.config.d_model**0.5)
    return model
