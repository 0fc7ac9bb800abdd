"""Causal attention in blocks of rows, for compiled bfloat16 on a CPU.

torch's fused CPU kernel multiplies bfloat16 matrices at float32 speed. Here the products are plain
ones, which torch hands to oneDNN, and torch.compile fuses what lies between them. As in that kernel
(Dao et al. 2022, FlashAttention), no T x T matrix is stored: a block of R rows is scored, used and
dropped, and the backward pass scores it again from the log-sum-exp of each row.

Shape letters: B batch, H heads, T tokens, K head width, R rows of a block.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ROWS = 256  # R: of 128, 256 and 512, none was faster from T = 256 to T = 2048
# T up to which it takes three quarters of the time of torch's kernel or less. The gain shrinks and
# compile time grows with every further block.
LONGEST = 1024
_FAST_PRODUCTS = torch._C._has_mkldnn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def fits(q: Tensor) -> bool:
    """Whether, compiled, it is the faster choice for queries (B, H, T, K) and as many keys."""
    fast = _FAST_PRODUCTS and q.device.type == "cpu" and q.dtype == torch.bfloat16
    return fast and q.shape[2] <= LONGEST


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Softmax(scale * q k^T) v, in which row i sees rows up to i; all (B, H, T, K).

    Scores and softmax are computed in float32, and probabilities rounded to the dtype of v.
    """
    apply: Callable[..., Tensor] = _CausalAttention.apply
    return apply(q, k, v, scale)


class _CausalAttention(torch.autograd.Function):
    """The gradient, with P the probabilities, o = P v and g the gradient of o.

    dv = P^T g,  dS = P * (g v^T - rowsum(g * o)),  dq = scale * dS k,  dk = scale * dS^T q.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        rows = [
            _rows(q[:, :, start:end], k[:, :, :end], v[:, :, :end], scale)
            for start, end in _blocks(q.shape[2])
        ]
        output, log_sums = (torch.cat(parts, 2) for parts in zip(*rows, strict=True))
        ctx.save_for_backward(q, k, v, output, log_sums)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, output, log_sums = ctx.saved_tensors
        g = gradients[0]
        shares = (g.float() * output.float()).sum(-1)  # (B, H, T)
        dq = torch.zeros_like(q, dtype=torch.float32)  # every block adds to the rows below it
        dk, dv = [], []
        for start, end in _blocks(q.shape[2]):
            keys, values = k[:, :, start:end], v[:, :, start:end]
            q_below, g_below = q[:, :, start:], g[:, :, start:]
            sums = log_sums[:, :, start:], shares[:, :, start:]
            p, ds = _columns(keys, values, q_below, g_below, *sums, ctx.scale)
            dk.append(ds @ q_below)
            dv.append(p @ g_below)
            dq[:, :, start:] += ds.transpose(-1, -2) @ keys
        return dq.to(q.dtype), torch.cat(dk, 2), torch.cat(dv, 2), None


def _blocks(n_tokens: int) -> list[tuple[int, int]]:
    return [(start, min(start + ROWS, n_tokens)) for start in range(0, n_tokens, ROWS)]


def _rows(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output (B, H, R, K) and log-sum-exp (B, H, R) of the last R rows, which see all keys."""
    scores = _product(q, k) * scale  # (B, H, R, T)
    row = torch.arange(k.shape[2] - q.shape[2], k.shape[2], device=q.device)
    column = torch.arange(k.shape[2], device=q.device)
    scores = scores.masked_fill(column > row[:, None], -math.inf)
    highest = scores.amax(-1, keepdim=True)
    weights = (scores - highest).exp()
    total = weights.sum(-1, keepdim=True)
    y = (weights.to(v.dtype) @ v).float() / total
    return y.to(v.dtype), (highest + total.log()).squeeze(-1)


def _columns(
    k: Tensor, v: Tensor, q: Tensor, g: Tensor, log_sums: Tensor, shares: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """P^T and scale * dS^T, (B, H, R, T), of the first R keys and all T rows from there on.

    Columns, not rows: were this the product of `_rows`, a compiler that sees both would take them
    for one and save it.
    """
    scores = _product(k, q) * scale
    p = (scores - log_sums[:, :, None]).exp()
    row = torch.arange(q.shape[2], device=q.device)
    p = p.masked_fill(row[: k.shape[2], None] > row, 0.0)
    ds = p * (_product(v, g) - shares[:, :, None]) * scale
    return p.to(g.dtype), ds.to(q.dtype)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """A b^T in float32, where torch's product has the dtype of a and b: (B, H, R, K) (B, H, T, K).

    The second product yields what rounding took from the first, as it adds before it rounds.
    """
    left, right = a.flatten(0, 1), b.flatten(0, 1).transpose(-1, -2)
    high = left @ right  # (B H, R, T)
    low = torch.baddbmm(high, left, right, beta=-1)
    return (high.float() + low.float()).view(*a.shape[:2], *high.shape[1:])
