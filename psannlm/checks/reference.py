"""The bases once more, slow and plain, from their formulas: what the fast networks are held to.

Nothing here is shared with the networks but the names of their parameters. Attention has its whole
T x T matrix, filters are sums over shifted rows, positions are complex numbers. The functions take
any precision: in float64 they are the exact result, under autocast a plain one.
Shape letters: B batch, T tokens, D d_model, H heads, K head width, F d_mlp, L taps, N tokens,
V vocabulary.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from psannlm.config.network import DecayMode, ModelConfig
from psannlm.model.transformer import Transformer

Cut = Callable[[Tensor], Tensor]

NORM_EPSILON = torch.finfo(torch.float32).eps  # what torch's RMSNorm of float32 features adds
FREQUENCY_FLOOR = 1e-6


def exact(x: Tensor) -> Tensor:
    """No rounding but that of the dtype."""
    return x


def cut_to(dtype: torch.dtype) -> Cut:
    """Rounds values, and gradients on their way back, to `dtype` and keeps them in their own."""
    return lambda x: x.to(dtype).to(x.dtype)


def damped_sine(
    z: Tensor, amplitude: Tensor, frequency: Tensor, decay: Tensor | None, decay_mode: DecayMode
) -> Tensor:
    """A exp(-d g(z)) sin(f z), (..., F), with float32 gains at least, as torch promotes them."""
    size = {"abs": z.abs(), "relu": z.relu(), "none": z}[decay_mode]
    damping = 1.0 if decay is None else torch.exp(-decay * size)
    return (amplitude * damping * torch.sin(frequency * z)).to(z.dtype)


def attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None, cut: Cut = exact
) -> Tensor:
    """Causal softmax attention by its formula, with a T x T matrix of scores; all (B, H, T, K).

    A bias, (H, T, T) or what broadcasts to it, is added to the scaled scores; `cut` rounds the
    probabilities.
    """
    scores = _wide(q @ k.mT) * scale  # (B, H, T, T)
    if bias is not None:
        scores = scores + bias.to(scores)
    row = torch.arange(q.shape[2], device=q.device)
    probabilities = scores.masked_fill(row > row[:, None], -math.inf).softmax(-1)
    return cut(probabilities.to(v.dtype)) @ v


def rotated(x: Tensor) -> Tensor:
    """Rotary positions, (..., T, K): features i and i + K/2 turned by t * 10000 ** (-2 i / K)."""
    tokens, width = x.shape[-2:]
    rate = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64, device=x.device) / width)
    angle = torch.outer(torch.arange(tokens, device=x.device).double(), rate)  # (T, K/2)
    pairs = torch.complex(*_wide(x).chunk(2, dim=-1))
    turned = pairs * torch.polar(torch.ones_like(angle), angle).to(pairs.dtype)
    return torch.cat([turned.real, turned.imag], dim=-1).to(x.dtype)


def alibi_slopes(n_heads: int) -> list[float]:
    """2 ** (-8 h / P) for the greatest power of two P <= H, then every second one for 2 P."""
    power = 1 << (n_heads.bit_length() - 1)
    wanted = [h / power for h in range(1, power + 1)]
    wanted += [h / (2 * power) for h in range(1, 2 * power, 2)]
    return [2.0 ** (-8 * part) for part in wanted[:n_heads]]


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
        impulse = torch.fft.irfft(torch.sigmoid(mask))  # (D, n)
    half = mask.shape[1] - 1
    return torch.cat([impulse[:, :1], 2 * impulse[:, 1:half], impulse[:, half : half + 1]], 1)


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats of each target, (..., V) and (...) -> (...); zero where it does not count."""
    losses = cross_entropy(_wide(logits).flatten(0, -2), targets.flatten(), reduction="none")
    return losses.view(targets.shape)


def mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats of a token that counts, from all logits at once, (N, V)."""
    return cross_entropy(_wide(logits), targets)


@dataclass(frozen=True)
class Reference:
    """One network by its formulas."""

    config: ModelConfig
    weights: Mapping[str, Tensor]  # by name, all of the dtype in which everything is computed
    cut: Cut = exact  # rounds what goes into a matrix product or a convolution, and comes out

    @classmethod
    def of(cls, model: Transformer, dtype: torch.dtype, cut: Cut = exact) -> "Reference":
        """The formulas at the parameters of a network, copied; those it learns want gradients."""
        named = copy.deepcopy(model).to(dtype).named_parameters(remove_duplicate=False)
        return cls(model.config, dict(named), cut)

    def logits(self, tokens: Tensor) -> Tensor:
        """(B, T) token ids -> (B, T, V)."""
        x = self.weights["embedding.weight"][tokens]  # (B, T, D)
        if self.config.positions == "sinusoidal":
            x = x + _sinusoids(x)
        for layer in range(self.config.n_layers):
            at = f"blocks.{layer}"
            x = x + self.attention(self._norm(x, f"{at}.attention_norm"), f"{at}.attention.")
            x = CHANGES[self.config.base](self, x, layer)
        return self._linear(self._norm(x, "norm"), "lm_head")

    def _norm(self, x: Tensor, at: str) -> Tensor:
        size = (x.square().mean(-1, keepdim=True) + NORM_EPSILON).sqrt()
        return x / size * self.weights[f"{at}.weight"]

    def _linear(self, x: Tensor, at: str) -> Tensor:
        y = self.cut(x) @ self.cut(self.weights[f"{at}.weight"]).T
        if f"{at}.bias" in self.weights:
            y = y + self.cut(self.weights[f"{at}.bias"])
        return self.cut(y)

    def attention(self, x: Tensor, at: str = "") -> Tensor:
        """`Attention` of the networks, (B, T, D), whose weights have names that begin with `at`."""
        qkv = self._linear(x, f"{at}to_qkv")
        qkv = qkv.view(*qkv.shape[:2], 3, self.config.n_heads, self.config.d_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, T, K) each
        scale, bias = self.config.d_head**-0.5, None
        if self.config.positions == "rope":
            q, k = self.cut(rotated(q)), self.cut(rotated(k))
        elif self.config.positions == "alibi":
            place = torch.arange(x.shape[1], device=x.device)
            slopes = torch.tensor(alibi_slopes(self.config.n_heads)).to(x)
            slopes = self.cut(slopes / scale) * scale  # as a feature of the keys that are scaled
            bias = slopes[:, None, None] * (place - place[:, None])
        y = self.cut(attention(q, k, v, scale, bias, self.cut))
        return self._linear(y.transpose(1, 2).flatten(2), f"{at}out")

    def _sine(self, z: Tensor, at: str) -> Tensor:
        amplitude = softplus(self.weights[f"{at}.raw_amplitude"])
        frequency = softplus(self.weights[f"{at}.raw_frequency"]) + FREQUENCY_FLOOR
        mode = self.config.decay_mode
        decay = None if mode == "none" else softplus(self.weights[f"{at}.raw_decay"])
        return self.cut(damped_sine(z, amplitude, frequency, decay, mode))

    def _mlp(self, x: Tensor, at: str, kind: str) -> Tensor:
        x = self._norm(x, f"{at}.mlp_norm")
        if kind == "swiglu":
            gate, up = self._linear(x, f"{at}.mlp.gate_up").chunk(2, -1)
            y = gate * torch.sigmoid(gate) * up
        else:
            z, inner = self._linear(x, f"{at}.mlp.up"), f"{at}.mlp.nonlinearity"
            if kind == "sine":
                y = self._sine(z, inner)
            elif kind == "relu_squared":
                y = z.clamp_min(0) ** 2
            elif kind == "gelu_scaled":
                raw = (self.weights[f"{inner}.raw_{part}"] for part in ("amplitude", "frequency"))
                outer, rate = map(softplus, raw)
                y = outer * _gelu(self.cut(rate * z))
            else:
                y = _gelu(z)
        return self._linear(self.cut(y), f"{at}.mlp.out")

    def _respsann(self, x: Tensor, layer: int) -> Tensor:
        at = f"blocks.{layer}"
        return x + self.weights[f"{at}.alpha"] * self._mlp(x, at, "sine")

    def _sgrpsann(self, x: Tensor, layer: int) -> Tensor:
        at = f"blocks.{layer}"
        y = self._mlp(x, at, "sine")
        gated = self._filter(y, gate_taps(self.weights[f"{at}.gate.mask"]), dilation=1)
        if self.config.gate_mix == "full":
            gated = self._linear(gated, f"{at}.gate.mix")
        elif self.config.gate_mix == "depthwise":
            gated = self.cut(gated * self.cut(self.weights[f"{at}.gate.mix"]))
        y = self.cut(y + self.cut(self.cut(self.weights[f"{at}.strength"]) * gated))
        return x + self.weights[f"{at}.alpha"] * y

    def _waveresnet(self, x: Tensor, layer: int) -> Tensor:
        at, kind = f"blocks.{layer}", self.config.wave
        if kind != "none":
            y = self._norm(x, f"{at}.wave_norm")
            dilation = self.config.wave_dilation_growth ** (layer % 4)
            z = self._filter(y, self.weights[f"{at}.wave.taps"], dilation)
            z = self.cut(z + self.cut(self.weights[f"{at}.wave.bias"]))
            x = x + self._linear(self._sine(z, f"{at}.wave.sine"), f"{at}.wave.out")
        return x if kind == "replace" else self._respsann(x, layer)

    def _filter(self, x: Tensor, taps: Tensor, dilation: int) -> Tensor:
        return self.cut(convolution(self.cut(x), self.cut(taps), dilation))


CHANGES: Mapping[str, Callable[[Reference, Tensor, int], Tensor]] = {
    "respsann": Reference._respsann,
    "sgrpsann": Reference._sgrpsann,
    "transformer": lambda own, x, layer: x + own._mlp(x, f"blocks.{layer}", own.config.mlp),
    "waveresnet": Reference._waveresnet,
}
"""What the block of a base does after attention; a base without an entry has no reference."""


def _sinusoids(x: Tensor) -> Tensor:
    """Sines in the even features, cosines a quarter turn ahead in the odd ones, (T, D)."""
    feature = torch.arange(x.shape[-1], dtype=torch.float64, device=x.device)
    place = torch.arange(x.shape[1], dtype=torch.float64, device=x.device)
    rate = 10000.0 ** (-(feature - feature % 2) / x.shape[-1])
    return torch.sin(place[:, None] * rate + feature % 2 * math.pi / 2).to(x.dtype)


def softplus(raw: Tensor) -> Tensor:
    """log(1 + e^raw), which makes sine parameters of what is learned."""
    return torch.logaddexp(raw, torch.zeros_like(raw))


def _gelu(z: Tensor) -> Tensor:
    return z * (1 + torch.erf(z / math.sqrt(2))) / 2


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
