"""The bases once more, slow and plain, from their formulas: what the fast networks are held to.

Nothing here is shared with the networks but the names of their parameters. Attention has its whole
T x T matrix, filters are sums over shifted rows, positions are complex numbers.
Shape letters: B batch, T tokens, D d_model, H heads, K head width, F d_mlp, L taps, V vocabulary.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from psannlm.config.network import ModelConfig
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


@dataclass(frozen=True)
class Reference:
    """One network by its formulas.

    Args:
        config: What network it is.
        weights: Its parameters by name, all of one dtype, in which everything is computed.
        cut: Rounds what goes into a matrix product or a convolution, and what comes out of it.
    """

    config: ModelConfig
    weights: Mapping[str, Tensor]
    cut: Cut = exact

    @classmethod
    def of(cls, model: Transformer, dtype: torch.dtype, cut: Cut = exact) -> "Reference":
        """The formulas at the parameters of a network, copied; those it learns want gradients."""
        copies = {
            id(p): p.detach().to(dtype, copy=True).requires_grad_(p.requires_grad)
            for p in model.parameters()
        }
        named = model.named_parameters(remove_duplicate=False)
        weights = {name: copies[id(p)] for name, p in named}
        return cls(model.config, weights, cut)

    def losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """What each target costs in nats, (B, T)."""
        return token_losses(self.logits(tokens), targets)

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        """The gradient of a loss by each learned parameter."""
        learned = {name: w for name, w in self.weights.items() if w.requires_grad}
        found = torch.autograd.grad(loss, list(learned.values()), materialize_grads=True)
        return dict(zip(learned, found, strict=True))

    def logits(self, tokens: Tensor) -> Tensor:
        """(B, T) token ids -> (B, T, V)."""
        x = self.weights["embedding.weight"][tokens]  # (B, T, D)
        if self.config.positions == "sinusoidal":
            x = x + self._sinusoids(x)
        for layer in range(self.config.n_layers):
            at = f"blocks.{layer}"
            x = x + self._attention(self._norm(x, f"{at}.attention_norm"), f"{at}.attention")
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

    def _attention(self, x: Tensor, at: str) -> Tensor:
        n_heads, width = self.config.n_heads, self.config.d_head
        qkv = self._linear(x, f"{at}.to_qkv")
        qkv = qkv.reshape(*x.shape[:2], 3, n_heads, width)
        q, k, v = (qkv[:, :, part].transpose(1, 2) for part in range(3))  # (B, H, T, K)
        if self.config.positions == "rope":
            q, k = self.cut(self._turned(q)), self.cut(self._turned(k))
        scores = q @ k.transpose(-1, -2) / math.sqrt(width)  # (B, H, T, T)
        place = torch.arange(x.shape[1], device=x.device)
        distance = place[:, None] - place  # how far key j lies before query i
        if self.config.positions == "alibi":
            slope = torch.tensor(_slopes(n_heads), dtype=x.dtype, device=x.device)
            slope = self.cut(slope * math.sqrt(width)) / math.sqrt(width)
            scores = scores - slope[:, None, None] * distance
        probabilities = scores.masked_fill(distance < 0, -math.inf).softmax(-1)
        y = self.cut(self.cut(probabilities) @ v)
        return self._linear(y.transpose(1, 2).flatten(2), f"{at}.out")

    def _turned(self, x: Tensor) -> Tensor:
        """Pair i, the features i and i + K/2, turned by t * 10000 ** (-2 i / K)."""
        half = x.shape[-1] // 2
        pair = torch.arange(half, dtype=torch.float64, device=x.device)
        place = torch.arange(x.shape[2], dtype=torch.float64, device=x.device)
        angle = place[:, None] * 10000.0 ** (-pair / half)
        turn = torch.polar(torch.ones_like(angle), angle)
        turned = torch.complex(x[..., :half], x[..., half:]) * turn.to(x.dtype.to_complex())
        return torch.cat([turned.real, turned.imag], dim=-1)

    def _sinusoids(self, x: Tensor) -> Tensor:
        """Sines in the even features, cosines a quarter turn ahead in the odd ones."""
        feature = torch.arange(x.shape[-1], dtype=torch.float64, device=x.device)
        place = torch.arange(x.shape[1], dtype=torch.float64, device=x.device)
        rate = 10000.0 ** (-(feature - feature % 2) / x.shape[-1])
        return torch.sin(place[:, None] * rate + feature % 2 * math.pi / 2).to(x.dtype)

    def _sine(self, z: Tensor, at: str) -> Tensor:
        """A exp(-d g(z)) sin(f z)."""
        y = self._softplus(f"{at}.raw_amplitude") * torch.sin(
            (self._softplus(f"{at}.raw_frequency") + FREQUENCY_FLOOR) * z
        )
        if self.config.decay_mode != "none":
            size = z.abs() if self.config.decay_mode == "abs" else z.clamp_min(0)
            y = y * torch.exp(-self._softplus(f"{at}.raw_decay") * size)
        return self.cut(y)

    def _softplus(self, name: str) -> Tensor:
        raw = self.weights[name]
        return torch.logaddexp(raw, torch.zeros_like(raw))

    def _mlp(self, x: Tensor, at: str, kind: str) -> Tensor:
        if kind == "swiglu":
            gate, up = self._linear(x, f"{at}.gate_up").chunk(2, -1)
            y = gate * torch.sigmoid(gate) * up
        else:
            z, inner = self._linear(x, f"{at}.up"), f"{at}.nonlinearity"
            if kind == "sine":
                y = self._sine(z, inner)
            elif kind == "relu_squared":
                y = z.clamp_min(0) ** 2
            elif kind == "gelu_scaled":
                outer, rate = (f"{inner}.raw_{part}" for part in ("amplitude", "frequency"))
                y = self._softplus(outer) * _gelu(self.cut(self._softplus(rate) * z))
            else:
                y = _gelu(z)
        return self._linear(self.cut(y), f"{at}.out")

    def _transformer(self, x: Tensor, layer: int) -> Tensor:
        at = f"blocks.{layer}"
        return x + self._mlp(self._norm(x, f"{at}.mlp_norm"), f"{at}.mlp", self.config.mlp)

    def _respsann(self, x: Tensor, layer: int) -> Tensor:
        at = f"blocks.{layer}"
        y = self._mlp(self._norm(x, f"{at}.mlp_norm"), f"{at}.mlp", "sine")
        return x + self.weights[f"{at}.alpha"] * y

    def _sgrpsann(self, x: Tensor, layer: int) -> Tensor:
        at = f"blocks.{layer}"
        y = self._mlp(self._norm(x, f"{at}.mlp_norm"), f"{at}.mlp", "sine")
        half = self.config.gate_n_fft // 2
        response = torch.sigmoid(self.weights[f"{at}.gate.mask"])  # (D, n/2 + 1)
        impulse = torch.fft.irfft(response, n=2 * half)  # (D, n)
        middle = 2 * impulse[:, 1:half]
        taps = torch.cat([impulse[:, :1], middle, impulse[:, half : half + 1]], dim=1)
        gated = self._filter(y, taps, dilation=1)
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
        """y[t] = sum over k of taps[k] * x[t - k * dilation]: x (B, T, D), taps (D, L)."""
        x, taps = self.cut(x), self.cut(taps)
        y = torch.zeros_like(x)
        for tap in range(taps.shape[1]):
            late = tap * dilation
            if late < x.shape[1]:
                shifted = torch.zeros_like(x)
                shifted[:, late:] = x[:, : x.shape[1] - late]
                y = y + taps[:, tap] * shifted
        return self.cut(y)


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats of each target: (B, T, V) and (B, T) -> (B, T)."""
    return logits.logsumexp(-1) - logits.gather(-1, targets[..., None]).squeeze(-1)


CHANGES: Mapping[str, Callable[[Reference, Tensor, int], Tensor]] = {
    "respsann": Reference._respsann,
    "sgrpsann": Reference._sgrpsann,
    "transformer": Reference._transformer,
    "waveresnet": Reference._waveresnet,
}
"""What the block of a base does after attention; a base without an entry has no reference."""


def _gelu(z: Tensor) -> Tensor:
    return z * (1 + torch.erf(z / math.sqrt(2))) / 2


def _slopes(n_heads: int) -> list[float]:
    """2 ** (-8 h / P) for the greatest power of two P <= H, then every second one for 2 P."""
    power = 1 << (n_heads.bit_length() - 1)
    wanted = [h / power for h in range(1, power + 1)]
    wanted += [h / (2 * power) for h in range(1, 2 * power, 2)]
    return [2.0 ** (-8 * part) for part in wanted[:n_heads]]
