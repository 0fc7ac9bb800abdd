"""GPU-07: what a network generates is what its full forward pass says, token by token.

Shape letters: B batch, T tokens, V vocabulary, N draws.
"""

import math

import torch
from torch import Tensor

from psannlm.checks.courses import EPSILON, distance, full_products
from psannlm.checks.findings import Case, Measure, Result
from psannlm.checks.memorising import memorise
from psannlm.checks.supports import sampled
from psannlm.config.network import ModelConfig
from psannlm.model.bases import build
from psannlm.model.generate import generate
from psannlm.model.mixers import wave_dilation
from psannlm.model.transformer import Transformer

N_STEPPED = 4
"""Tokens that are read one by one behind a prompt; the rest of the context follows at once."""

N_WRITTEN = 16


def check(case: Case) -> Result:
    """GPU-07: greedy against argmax, cached against full, supports of samples, a text by heart."""
    model = shaken(case.network, case.config.seed, case.device)
    lengths = prompt_lengths(case.network)
    text = _random_tokens(case, len(lengths))
    with full_products():
        measures = _cached(model, text, lengths), _greedy(model, text, lengths)
        drawn, draws = sampled(model, text[0, : min(2, text.shape[1] - 1)], case.config.seed)
    learned, heart = memorise(case)
    facts = {"prompt_lengths": lengths, **draws, **heart}
    return Result(measures=(*measures, *drawn, *learned), facts=facts)


def shaken(network: ModelConfig, seed: int, device: torch.device) -> Transformer:
    """A network in which no parameter is neutral: a fresh gate, for one, lets all tokens alone.

    Matrices keep the size of what they multiply, all else moves by some 0.3.
    """
    model = build(network, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.startswith("embedding."):
                parameter.copy_(noise)
            elif parameter.dim() == 2 and name.endswith(".weight"):
                parameter.copy_(noise * parameter.shape[1] ** -0.5)
            else:
                parameter.add_(0.3 * noise)
    return model.to(device)


def prompt_lengths(network: ModelConfig) -> list[int]:
    """Lengths around which the memory of a base changes: its windows, one token less and more."""
    wave = (network.wave_kernel - 1) * max(
        wave_dilation(network, i) for i in range(network.n_layers)
    )
    windows = (network.gate_n_fft // 2, wave)
    longest = network.context_length - N_STEPPED
    around = {w + d for w in windows for d in (-1, 0, 1)}
    wanted = around | {1, 2, network.context_length // 2, longest}
    return sorted(n for n in wanted if 1 <= n <= longest) or [1]


@torch.no_grad()
def _cached(model: Transformer, text: Tensor, lengths: list[int]) -> Measure:
    full = model(text)  # (B, T, V)
    found = [
        _furthest_position(_in_parts(model, row[None], length), full[i, None])
        for i, (row, length) in enumerate(zip(text, lengths, strict=True))
    ]
    stepwise = _in_parts(model, text[:1], 1, stepped=text.shape[1] - 1)
    return Measure(
        name="difference of cached logits from those of a full pass, relative, worst position",
        value=max(*found, _furthest_position(stepwise, full[:1])),
        bound=_rounding(model.config),
        why="Both add up the same float32 terms in another order: a sum of n terms moves by about "
        "sqrt(n) rounding errors, n over all sums on the way.",
    )


def _in_parts(model: Transformer, text: Tensor, length: int, stepped: int = N_STEPPED) -> Tensor:
    """Logits of a text of which the first tokens are read at once, then some singly, then all."""
    state = model.state()
    sizes = [length, *[1] * stepped]
    if left := text.shape[1] - sum(sizes):
        sizes.append(left)
    return torch.cat([model(part, state) for part in torch.split(text, sizes, 1)], 1)


def _furthest_position(found: Tensor, right: Tensor) -> float:
    """Largest relative difference of the logits, (1, T, V), of one position."""
    return max(distance(a, b) for a, b in zip(found[0].cpu(), right[0].cpu(), strict=True))


def _rounding(network: ModelConfig) -> float:
    """Relative error of logits that are computed in another order."""
    heads = 4 * network.d_model + network.context_length
    terms = network.n_layers * (heads + network.d_model + network.d_mlp)
    return float(EPSILON * math.sqrt(terms))


@torch.no_grad()
def _greedy(model: Transformer, text: Tensor, lengths: list[int]) -> Measure:
    wrong = 0
    for row, length in zip(text, lengths, strict=True):
        n_tokens = min(N_WRITTEN, len(row) - length)
        new = generate(model, [row[:length]], n_tokens=n_tokens)[0]
        logits = model(torch.cat([row[:length], new])[None])[0, length - 1 : -1]  # (N, V)
        lead = logits.amax(-1) - logits.gather(1, new[:, None]).squeeze(1)
        wrong += int((lead > 2 * _rounding(model.config) * logits.norm(dim=-1)).sum())
        wrong += n_tokens - len(new)
    return Measure(
        name="greedy tokens that are not the likeliest of a full pass",
        value=wrong,
        bound=0,
        why="The most likely token has no other above it by more than rounding may turn.",
    )


def _random_tokens(case: Case, count: int) -> Tensor:
    """(B, T), on the device: no token is foreseeable, so a memory that is wrong shows."""
    shape = (count, case.network.context_length)
    generator = torch.Generator().manual_seed(case.config.seed)
    tokens = torch.randint(case.network.vocab_size, shape, generator=generator)
    return tokens.to(case.device)
