"""The two blocks that mix along time: the causal spectral gate and the causal wave.

Both are causal convolutions, so both decode step by step from a few remembered rows.
Shape letters: B batch, T tokens, D channels, P past rows, L taps.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from psannlm.config.network import Architecture
from psannlm.model.projection import project, unchanged
from psannlm.model.sine import DampedSine

Rows = dict[str, Tensor]  # what a layer remembers between decoding steps, by name


def causal_convolution(
    x: Tensor, taps: Tensor, *, dilation: int, past: Rows | None, name: str
) -> Tensor:
    """Filter each channel with its own taps: y[t] = sum over k of taps[k] * x[t - k * dilation].

    Args:
        x: (B, T, D).
        taps: (D, L); taps[:, 0] weighs the present.
        dilation: Distance between taps, in tokens.
        past: Its (B, P, D) rows under `name`, P = (L - 1) * dilation, stand before x, and the last
            P of both replace them. Without past or rows, zeros stand before x.
        name: Of the rows.

    Returns:
        (B, T, D).
    """
    reach = (taps.shape[1] - 1) * dilation  # P
    if past is None or name not in past:
        seen = pad(x, (0, 0, reach, 0))  # (B, P + T, D)
    else:
        seen = torch.cat([past[name], x], dim=1)  # (B, P + T, D)
        if x.shape[1] == 1:  # a sum takes a tenth of what it takes to set a convolution up
            past[name] = seen[:, 1:]
            weights = taps.T.flip(0).to(x.dtype)  # (L, D), the present last
            return (seen[:, ::dilation] * weights).sum(1, keepdim=True)
    if past is not None:
        past[name] = seen[:, seen.shape[1] - reach :].clone()  # a view would hold all of `seen`
    kernel = taps.flip(1).unsqueeze(1).to(x.dtype)  # (D, 1, L), the present last
    y = conv1d(seen.transpose(1, 2), kernel, dilation=dilation, groups=x.shape[2])  # (B, D, T)
    return y.transpose(1, 2)


class CausalWave(nn.Module):
    """W * s(causal depthwise convolution of x), s a damped sine, its dilation that of the layer.

    Shape:
        (B, T, D) -> (B, T, D)
    """

    def __init__(self, config: Architecture, layer: int) -> None:
        super().__init__()
        self.dilation = wave_dilation(config, layer)
        self.taps = nn.Parameter(torch.empty(config.d_model, config.wave_kernel))  # (D, L)
        self.bias = nn.Parameter(torch.zeros(config.d_model))
        self.sine = DampedSine(config.d_model, config)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the taps so that the convolution keeps the variance of a white input."""
        nn.init.normal_(self.taps, std=self.taps.shape[1] ** -0.5, generator=generator)

    def forward(self, x: Tensor, past: Rows | None = None) -> Tensor:
        z = causal_convolution(x, self.taps, dilation=self.dilation, past=past, name="wave")
        return project(z + self.bias.to(z.dtype), self.sine, self.out)


def wave_dilation(config: Architecture, layer: int) -> int:
    """Of the wave of a layer, from 0, in tokens: it grows over four layers, then starts again."""
    return int(config.wave_dilation_growth ** (layer % 4))


class SpectralGate(nn.Module):
    """A causal filter per channel whose frequency response has a learned real part in (0, 1).

    The response is g = sigmoid(mask) over the n/2 + 1 bins of a gate_n_fft-point transform. With
    h = irfft(g), the causal taps are h[0], 2 h[1], ..., 2 h[n/2 - 1], h[n/2]: the even part of
    that sequence is h, so the real part of its response is g. At mask = 0 the gate is y = x / 2.

    Shape:
        (B, T, D) -> (B, T, D)
    """

    to_taps: Tensor

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        n_bins = config.gate_n_fft // 2 + 1
        self.mask = nn.Parameter(torch.zeros(config.d_model, n_bins))
        self.register_buffer("to_taps", response_to_taps(config.gate_n_fft), persistent=False)
        self.mix: nn.Parameter | nn.Linear | None = None
        if config.gate_mix == "depthwise":
            self.mix = nn.Parameter(torch.ones(config.d_model))
        elif config.gate_mix == "full":
            self.mix = nn.Linear(config.d_model, config.d_model, bias=False)

    def taps(self) -> Tensor:
        """(D, n/2 + 1), in the dtype of the mask."""
        with torch.autocast(self.mask.device.type, enabled=False):
            return torch.sigmoid(self.mask) @ self.to_taps

    def forward(self, x: Tensor, past: Rows | None = None) -> Tensor:
        remembered: Rows = {} if past is None else past
        if "taps" not in remembered:
            remembered["taps"] = self.taps()
        y = causal_convolution(x, remembered["taps"], dilation=1, past=past, name="gate")
        if isinstance(self.mix, nn.Linear):
            y = project(y, unchanged, self.mix)
        elif self.mix is not None:
            y = y * self.mix.to(y.dtype)
        return y


def response_to_taps(n_fft: int) -> Tensor:
    """The matrix (n/2 + 1, n/2 + 1) that takes a real response to its causal taps.

    Row m is the taps of a response that is 1 at bin m: w_m w_k / n * cos(2 pi m k / n) with
    weights w = 1, 2, ..., 2, 1; the first from the inverse transform, the second from folding it.
    """
    last = n_fft // 2
    index = torch.arange(last + 1, dtype=torch.float64)
    weight = torch.full((last + 1,), 2.0, dtype=torch.float64)
    weight[0] = weight[last] = 1.0
    cosine = torch.cos(2 * math.pi * torch.outer(index, index) / n_fft)
    return (torch.outer(weight, weight) * cosine / n_fft).to(torch.get_default_dtype())
