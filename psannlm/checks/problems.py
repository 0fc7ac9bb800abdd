"""What fast paths are tried on: parts of a base's network, inputs and weights drawn at random.

Shape letters: B batch, T tokens, D d_model, F d_mlp, H heads, K head width, L taps, N = B T, V
vocabulary.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import linear, scaled_dot_product_attention

from psannlm.checks import reference
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
        dtype = DTYPES[self.precision] if rounded else torch.float32
        return self._leaf(spread * torch.randn(shape, generator=self.generator), dtype)

    def gains(self, n: int, size: float = 1.0) -> Tensor:
        """Between 0.3 and 1.3 times `size`, (n,)."""
        return self._leaf(size * (0.3 + torch.rand(n, generator=self.generator)), torch.float32)

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
        self, leaves: Mapping[str, Tensor], plain: Path, fast: Mapping[str, Path]
    ) -> Problem:
        """A problem whose plain path is the exact one in float64."""
        return Problem(
            leaves=leaves,
            precision=self.precision,
            plain=plain,
            exact=plain,
            fast=fast,
            n_terms=math.prod(self.rows),
        )

    def _leaf(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        return values.to(self.device, dtype).requires_grad_()


Make = Callable[[Draw], Iterator[Problem]]


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
            options: dict[str, Any] = {"decay_mode": mode}
            if mode == "none":
                options["decay"] = None
            else:
                leaves["decay"] = draw.gains(features, size=1 / spread)
            fast = {
                "damped sine, gradient written out": sine.damped_sine,
                "damped sine, as compiled": sine.damped_sine_reference,
            }
            yield draw.problem(
                leaves,
                functools.partial(reference.damped_sine, **options),
                {name: functools.partial(path, **options) for name, path in fast.items()},
            )


def attention_layers(draw: Draw) -> Iterator[Problem]:
    """Attention as the networks have it, with its projections and positions."""
    width = draw.config.d_model
    leaves = {
        "x": draw.numbers(*draw.rows, width),
        "to_qkv.weight": draw.numbers(3 * width, width, spread=width**-0.5),
        "out.weight": draw.numbers(width, width, spread=width**-0.5),
    }
    layer = Attention(draw.config).to(draw.device)
    yield draw.problem(
        leaves,
        functools.partial(reference.attention_layer, config=draw.config),
        {"attention layer": _module(layer, *list(leaves)[1:])},
    )


def _module(module: nn.Module, *names: str) -> Path:
    """The module as a function of its input and the parameters of those names."""

    def path(x: Tensor, *parameters: Tensor) -> Tensor:
        y: Tensor = functional_call(module, dict(zip(names, parameters, strict=True)), (x,))
        return y

    return path


def attentions(draw: Draw, backends: Mapping[str, SDPBackend]) -> Iterator[Problem]:
    """Attention between given q, k and v, by each of torch's kernels and by our own."""
    scale = draw.config.d_head**-0.5
    extra = ALIBI_FEATURES if draw.config.positions == "alibi" else 0
    shape = (draw.rows[0], draw.config.n_heads, draw.rows[1], draw.config.d_head + extra)
    leaves = {name: draw.numbers(*shape, rounded=True) for name in ("q", "k", "v")}
    fast = {f"attention, {name} kernel": _kernel(kind, scale) for name, kind in backends.items()}
    if blockwise.fits(leaves["q"]):
        ours = functools.partial(blockwise.causal_attention, scale=scale)
        fast["attention, in blocks"] = ours
    yield draw.problem(leaves, functools.partial(reference.attention, scale=scale), fast)


def _kernel(backend: SDPBackend, scale: float) -> Path:
    def path(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)

    return path


def losses(draw: Draw) -> Iterator[Problem]:
    """The mean loss in chunks that do and do not divide N, and the loss of each token."""
    n, width = math.prod(draw.rows), draw.config.d_model
    leaves = {
        "hidden": draw.numbers(n, width),
        "head": draw.numbers(draw.config.vocab_size, width, spread=2 * width**-0.5),
    }
    targets = draw.targets().flatten()
    for chunk in sorted({n // 7 + 1, n // 2 + 1, n}):
        in_chunks = functools.partial(
            loss.linear_cross_entropy, targets=targets, chunk_tokens=chunk
        )
        yield draw.problem(
            leaves,
            lambda hidden, head: reference.mean_loss(linear(hidden, head), targets),
            {"loss in chunks": in_chunks},
        )
    each = functools.partial(loss.token_losses, targets=targets, chunk_tokens=n // 2 + 1)
    yield draw.problem(
        {name: leaf.detach() for name, leaf in leaves.items()},
        lambda hidden, head: reference.token_losses(linear(hidden, head), targets),
        {"loss of each token": lambda hidden, head: each(hidden, head)[0]},
    )


def gates(draw: Draw) -> Iterator[Problem]:
    """The spectral gate: taps from its mask, and the convolution with them."""
    width, n_fft = draw.config.d_model, draw.config.gate_n_fft
    leaves = {
        "x": draw.numbers(*draw.rows, width, rounded=True),
        "mask": draw.numbers(width, n_fft // 2 + 1),
    }
    gate = mixers.SpectralGate(draw.config.model_copy(update={"gate_mix": "none"})).to(draw.device)
    yield draw.problem(
        leaves,
        lambda x, mask: reference.convolution(x, reference.gate_taps(mask), dilation=1),
        {"convolution of the gate": _module(gate, "mask")},
    )


def waves(draw: Draw) -> Iterator[Problem]:
    """The convolution of the wave, at the dilation of each layer."""
    config = draw.config
    leaves = {
        "x": draw.numbers(*draw.rows, config.d_model, rounded=True),
        "taps": draw.numbers(config.d_model, config.wave_kernel),
    }
    for dilation in sorted({mixers.wave_dilation(config, i) for i in range(config.n_layers)}):
        fast = functools.partial(
            mixers.causal_convolution, dilation=dilation, past=None, name="wave"
        )
        plain = functools.partial(reference.convolution, dilation=dilation)
        yield draw.problem(leaves, plain, {"convolution of the wave": fast})


MODULES: Mapping[type[nn.Module], Make] = {
    sine.DampedSine: sines,
    mixers.SpectralGate: gates,
    mixers.CausalWave: waves,
}
"""What tries the fast paths of the parts that only some bases have."""
