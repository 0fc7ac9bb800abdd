"""Parts of the networks in plain torch, differentiated by autograd: what fast paths are held to.

They take any precision: in float64 they are the exact result, under autocast a plain one.
Shape letters: B batch, H heads, T tokens, K head width, D d_model, L taps, N tokens, V vocabulary.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, pad

from psannlm.config.network import Architecture, DecayMode
from psannlm.model.positions import alibi_slopes


def damped_sine(
    z: Tensor, amplitude: Tensor, frequency: Tensor, decay: Tensor | None, mode: DecayMode
) -> Tensor:
    """A exp(-d g(z)) sin(f z), (..., F), with float32 gains at least, as torch promotes them."""
    size = {"abs": z.abs(), "relu": z.relu(), "none": z}[mode]
    damping = 1.0 if decay is None else torch.exp(-decay * size)
    return (amplitude * damping * torch.sin(frequency * z)).to(z.dtype)


def attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, slopes: Tensor | None = None
) -> Tensor:
    """Causal softmax attention by its formula, with a T x T matrix of scores; all (B, H, T, K).

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        scale: Of the scores.
        slopes: Of ALiBi's linear biases, (H,).
    """
    scores = _wide(q @ k.mT) * scale  # (B, H, T, T)
    row = torch.arange(q.shape[2], device=q.device)
    if slopes is not None:
        # As the authors have it: the softmax over j does not see the slope * i of slope * (j - i).
        scores = scores + slopes.to(scores)[:, None, None] * row
    probabilities = scores.masked_fill(row > row[:, None], -math.inf).softmax(-1)
    return probabilities.to(v.dtype) @ v


def attention_layer(x: Tensor, to_qkv: Tensor, out: Tensor, config: Architecture) -> Tensor:
    """`Attention` of the networks, (B, T, D), from its two weights, with positions written out."""
    qkv = linear(x, to_qkv).view(*x.shape[:2], 3, config.n_heads, config.d_head)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T, K)
    slopes = None
    if config.positions == "rope":
        q, k = turned(q), turned(k)
    elif config.positions == "alibi":
        slopes = torch.tensor(alibi_slopes(config.n_heads), device=x.device)
    y = attention(q, k, v, config.d_head**-0.5, slopes)
    return linear(y.transpose(1, 2).flatten(2), out)


def turned(x: Tensor) -> Tensor:
    """Rotary positions, (..., T, K), as products of the complex numbers x[i] + j x[i + K/2]."""
    tokens, width = x.shape[-2:]
    rate = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64, device=x.device) / width)
    angle = torch.outer(torch.arange(tokens, device=x.device).double(), rate)  # (T, K/2)
    pairs = torch.complex(*_wide(x).chunk(2, dim=-1))
    spun = pairs * torch.polar(torch.ones_like(angle), angle).to(pairs.dtype)
    return torch.cat([spun.real, spun.imag], dim=-1).to(x.dtype)


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats of each token, (N,), from all logits at once, (N, V)."""
    return cross_entropy(_wide(logits), targets, reduction="none")


def mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats of a token that counts, from all logits at once, (N, V)."""
    return cross_entropy(_wide(logits), targets)


def convolution(x: Tensor, taps: Tensor, dilation: int) -> Tensor:
    """y[t] = sum over k of taps[:, k] * x[t - k * dilation], term by term; (B, T, D), (D, L)."""
    tokens, reach = x.shape[1], (taps.shape[1] - 1) * dilation
    seen, weights = pad(x, (0, 0, reach, 0)), taps.to(x.dtype)
    starts = range(reach, -1, -dilation)
    terms = [weights[:, k] * seen[:, start : start + tokens] for k, start in enumerate(starts)]
    return torch.stack(terms).sum(0)


def gate_taps(mask: Tensor) -> Tensor:
    """Causal taps (D, n/2 + 1) whose response has the real part sigmoid(mask), by a transform."""
    with torch.autocast(mask.device.type, enabled=False):
        whole = torch.fft.irfft(torch.sigmoid(mask))  # (D, n)
    last = mask.shape[1] - 1
    return torch.cat([whole[:, :1], 2 * whole[:, 1:last], whole[:, last : last + 1]], 1)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
