"""What fast paths are tried on: parts of a base's network, inputs and weights drawn at random.

Shape letters: B batch, T tokens, D d_model, F d_mlp, H heads, K head width, L taps, N = B T, V
vocabulary.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import linear, scaled_dot_product_attention

from psannlm.checks import plain_parts as plain
from psannlm.checks.exactness import Path, Problem
from psannlm.checks.findings import Case
from psannlm.config.network import DecayMode
from psannlm.device import DTYPES
from psannlm.model import blockwise, loss, mixers, sine
from psannlm.model.loss import IGNORED
from psannlm.model.positions import ALIBI_FEATURES
from psannlm.model.transformer import Attention

DECAY_MODES: tuple[DecayMode, ...] = ("abs", "relu", "none")

SPREADS = (3.0, 300.0)
"""Of z: that of features, and one at which the phase turns round many times."""


class Draw:
    """Leaves of a precision, drawn from a seed.

    Args:
        case: Its network's shape and its device are used.
        precision: Of the problems; weights and features are float32 in each, as under autocast.
        seed: Of all that is drawn.
    """

    def __init__(self, case: Case, precision: str, seed: int) -> None:
        self.config, self.device, self.precision = case.network, case.device, precision
        self.rows = (case.config.batch, case.config.context_length)  # B, T
        self.generator = torch.Generator().manual_seed(seed)

    def numbers(self, *shape: int, spread: float = 1.0, rounded: bool = False) -> Tensor:
        """From a normal distribution; in the dtype of products if `rounded`."""
        return self._leaf(spread * torch.randn(shape, generator=self.generator), rounded)

    def gains(self, n: int, size: float = 1.0) -> Tensor:
        """Between 0.3 and 1.3 times `size`, (n,)."""
        return self._leaf(size * (0.3 + torch.rand(n, generator=self.generator)), False)

    def tokens(self) -> Tensor:
        """Token ids, (B, T)."""
        drawn = torch.randint(self.config.vocab_size, self.rows, generator=self.generator)
        return drawn.to(self.device)

    def targets(self) -> Tensor:
        """Token ids, (B, T), of which every seventh counts for nothing."""
        targets = self.tokens()
        targets.view(-1)[6::7] = IGNORED
        return targets

    def problem(
        self, leaves: Mapping[str, Tensor], plainly: Path, fast: Mapping[str, Path]
    ) -> Problem:
        """A problem whose plain path is the exact one in float64."""
        return Problem(
            leaves=leaves,
            precision=self.precision,
            plain=plainly,
            exact=plainly,
            fast=fast,
            n_terms=math.prod(self.rows),
        )

    def _leaf(self, values: Tensor, rounded: bool) -> Tensor:
        dtype = DTYPES[self.precision] if rounded else torch.float32
        return values.to(self.device, dtype).requires_grad_()


def sines(draw: Draw) -> Iterator[Problem]:
    """The damped sine of F features, in each decay mode, on small z and on large."""
    features = draw.config.d_mlp
    for mode in DECAY_MODES:
        for spread in SPREADS:
            leaves = {
                "z": draw.numbers(*draw.rows, features, spread=spread, rounded=True),
                "amplitude": draw.gains(features),
                "frequency": draw.gains(features),
            }
            if mode != "none":
                leaves["decay"] = draw.gains(features, size=1 / spread)
            yield draw.problem(
                leaves,
                _in_mode(plain.damped_sine, mode),
                {
                    "damped sine, gradient written out": _in_mode(sine.damped_sine, mode),
                    "damped sine, as compiled": _in_mode(sine.damped_sine_reference, mode),
                },
            )


def _in_mode(function: Callable[..., Tensor], mode: DecayMode) -> Path:
    def path(
        z: Tensor, amplitude: Tensor, frequency: Tensor, decay: Tensor | None = None
    ) -> Tensor:
        return function(z, amplitude, frequency, decay, mode)

    return path


def attention_layers(draw: Draw) -> Iterator[Problem]:
    """Attention as the networks have it, with its projections and positions."""
    width = draw.config.d_model
    leaves = {
        "x": draw.numbers(*draw.rows, width),
        "to_qkv.weight": draw.numbers(3 * width, width, spread=width**-0.5),
        "out.weight": draw.numbers(width, width, spread=width**-0.5),
    }

    def plainly(x: Tensor, to_qkv: Tensor, out: Tensor) -> Tensor:
        return plain.attention_layer(x, to_qkv, out, draw.config)

    layer = Attention(draw.config).to(draw.device)
    yield draw.problem(leaves, plainly, {"attention layer": _module(layer, *list(leaves)[1:])})


def _module(module: nn.Module, *names: str) -> Path:
    """The module as a function of its input and the parameters of those names."""

    def path(x: Tensor, *parameters: Tensor) -> Tensor:
        y: Tensor = functional_call(module, dict(zip(names, parameters, strict=True)), (x,))
        return y

    return path


def attentions(draw: Draw, backends: Mapping[str, SDPBackend]) -> Iterator[Problem]:
    """Attention between given q, k and v, by each of torch's kernels and by our own."""
    scale = draw.config.d_head**-0.5
    width = draw.config.d_head
    if draw.config.positions == "alibi":
        width += ALIBI_FEATURES
    shape = (draw.rows[0], draw.config.n_heads, draw.rows[1], width)
    leaves = {name: draw.numbers(*shape, rounded=True) for name in ("q", "k", "v")}

    def plainly(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return plain.attention(q, k, v, scale)

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return blockwise.causal_attention(q, k, v, scale)

    fast = {f"attention, {name} kernel": _kernel(kind, scale) for name, kind in backends.items()}
    if blockwise.fits(leaves["q"]):
        fast["attention, in blocks"] = ours
    yield draw.problem(leaves, plainly, fast)


def _kernel(backend: SDPBackend, scale: float) -> Path:
    def path(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)

    return path


def losses(draw: Draw) -> Iterator[Problem]:
    """The mean loss in chunks that do and do not divide N, and the loss of each token."""
    n, width = draw.rows[0] * draw.rows[1], draw.config.d_model
    leaves = {
        "hidden": draw.numbers(n, width),
        "head": draw.numbers(draw.config.vocab_size, width, spread=2 * width**-0.5),
    }
    targets = draw.targets().flatten()

    def plain_mean(hidden: Tensor, head: Tensor) -> Tensor:
        return plain.mean_loss(linear(hidden, head), targets)

    def plain_tokens(hidden: Tensor, head: Tensor) -> Tensor:
        return plain.token_losses(linear(hidden, head), targets)

    def in_chunks(chunk: int) -> Path:
        def path(hidden: Tensor, head: Tensor) -> Tensor:
            return loss.linear_cross_entropy(hidden, head, targets, chunk_tokens=chunk)

        return path

    def tokens(hidden: Tensor, head: Tensor) -> Tensor:
        return loss.token_losses(hidden, head, targets, chunk_tokens=n // 2 + 1)[0]

    for chunk in sorted({n // 7 + 1, n // 2 + 1, n}):
        yield draw.problem(leaves, plain_mean, {"loss in chunks": in_chunks(chunk)})
    fixed = {name: leaf.detach() for name, leaf in leaves.items()}
    yield draw.problem(fixed, plain_tokens, {"loss of each token": tokens})


def gates(draw: Draw) -> Iterator[Problem]:
    """The spectral gate: taps from its mask, and the convolution with them."""
    width, n_fft = draw.config.d_model, draw.config.gate_n_fft
    leaves = {
        "x": draw.numbers(*draw.rows, width, rounded=True),
        "mask": draw.numbers(width, n_fft // 2 + 1),
    }
    gate = mixers.SpectralGate(draw.config.model_copy(update={"gate_mix": "none"})).to(draw.device)

    def plainly(x: Tensor, mask: Tensor) -> Tensor:
        return plain.convolution(x, plain.gate_taps(mask), dilation=1)

    yield draw.problem(leaves, plainly, {"convolution of the gate": _module(gate, "mask")})


def waves(draw: Draw) -> Iterator[Problem]:
    """The convolution of the wave, at the dilation of each layer."""
    config = draw.config
    leaves = {
        "x": draw.numbers(*draw.rows, config.d_model, rounded=True),
        "taps": draw.numbers(config.d_model, config.wave_kernel),
    }

    def plainly(dilation: int) -> Path:
        return lambda x, taps: plain.convolution(x, taps, dilation)

    def fast(dilation: int) -> Path:
        return lambda x, taps: mixers.causal_convolution(
            x, taps, dilation=dilation, past=None, name="wave"
        )

    for dilation in sorted(
        {mixers.wave_dilation(config, layer) for layer in range(config.n_layers)}
    ):
        paths = {"convolution of the wave": fast(dilation)}
        yield draw.problem(leaves, plainly(dilation), paths)
