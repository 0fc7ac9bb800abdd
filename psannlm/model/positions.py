"""How a token knows where it stands: rotary, ALiBi or sinusoidal positions.

Shape letters: B batch, T tokens, H heads, K head width, D model width.
"""

import math

import torch
from torch import Tensor, nn

# Features that ALiBi adds to a head: two carry the bias, the rest keep rows aligned.
ALIBI_FEATURES = 8


class Rotary(nn.Module):
    """Turns the pairs (i, i + K/2) of a query or key by an angle that grows with its position.

    The angle of pair i at position t is t * 10000 ** (-2 i / K), as in RoFormer (Su et al. 2021).

    Shape:
        (..., T, K) -> (..., T, K); position is that of the first of the T tokens.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, d_head: int, context_length: int) -> None:
        super().__init__()
        rate = 10000.0 ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
        angle = torch.outer(torch.arange(context_length, dtype=torch.float64), rate)  # (T, K/2)
        wide = torch.get_default_dtype()
        self.register_buffer("cosine", angle.cos().to(wide), persistent=False)
        self.register_buffer("sine", angle.sin().to(wide), persistent=False)

    def forward(self, x: Tensor, position: int) -> Tensor:
        cosine = self.cosine[position : position + x.shape[-2]]
        sine = self.sine[position : position + x.shape[-2]]
        left, right = x.chunk(2, dim=-1)  # each (..., T, K/2)
        turned = torch.cat([left * cosine - right * sine, right * cosine + left * sine], dim=-1)
        return turned.to(x.dtype)


class Alibi(nn.Module):
    """Linear attention biases (Press et al. 2021) written as features of queries and keys.

    ALiBi adds -slope * (i - j) to the score of query i and key j. The softmax over j does not see
    slope * i, so the bias is slope * j: a product of one query feature and one key feature. As
    bfloat16 counts exactly to 256 only, j is split into 256 * high + low, a feature each: exact to
    65,536 tokens. Scores then need no (T, T) bias, and every fused attention kernel serves.
    """

    slopes: Tensor

    def __init__(self, n_heads: int) -> None:
        super().__init__()
        slopes = torch.tensor(alibi_slopes(n_heads), dtype=torch.get_default_dtype())
        self.register_buffer("slopes", slopes, persistent=False)

    def query(self, q: Tensor) -> Tensor:
        """(B, H, T, K) -> (B, H, T, K + 8); scores must still be scaled by 1 / sqrt(K)."""
        slope = (self.slopes * math.sqrt(q.shape[-1])).to(q.dtype)  # (H,)
        extra = q.new_zeros(*q.shape[:-1], ALIBI_FEATURES)
        extra[..., 0] = (slope * 256)[:, None]
        extra[..., 1] = slope[:, None]
        return torch.cat([q, extra], dim=-1)

    def key(self, k: Tensor, position: int) -> Tensor:
        """(B, H, T, K) -> (B, H, T, K + 8); position is that of the first of the T tokens."""
        index = torch.arange(position, position + k.shape[2], device=k.device)
        extra = k.new_zeros(*k.shape[:-1], ALIBI_FEATURES)
        extra[..., 0] = (index // 256).to(k.dtype)
        extra[..., 1] = (index % 256).to(k.dtype)
        return torch.cat([k, extra], dim=-1)


def alibi_slopes(n_heads: int) -> list[float]:
    """Slope of head h: 2 ** (-8 h / H); H between powers of two takes every second slope of 2 H.

    Source: Press et al. 2021, section 3 and its reference release.
    """
    power = 2 ** math.floor(math.log2(n_heads))
    slopes = [2.0 ** (-8 * head / power) for head in range(1, power + 1)]
    finer = [2.0 ** (-4 * head / power) for head in range(1, 2 * power + 1, 2)]
    return slopes + finer[: n_heads - power]


def sinusoidal_table(context_length: int, d_model: int) -> Tensor:
    """(T, D): sines in the even features, cosines in the odd ones (Vaswani et al. 2017)."""
    rate = 10000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    angle = torch.outer(torch.arange(context_length, dtype=torch.float64), rate)  # (T, D/2)
    table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
    return table.to(torch.get_default_dtype())
