"""What is timed and counted of our networks, and the matmul ceiling that speeds are held to.

Shape letters: B batch, T tokens, V vocabulary.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from psannlm.bench.timing import Loss, Timing, stopwatch_for, time_steps
from psannlm.config.network import ModelConfig
from psannlm.device import DTYPES, autocast
from psannlm.model.cost import Shape
from psannlm.model.transformer import Transformer

SETTINGS = {"device", "min_seconds", "min_steps", "learning_rate", "seed"}  # of a run, for tasks
SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}  # square matrices that are tried
EMULATED_SIZES = (256,)  # in a precision that the device emulates

_A100 = {"bf16": 312e12, "fp16": 312e12, "fp32": 19.5e12}  # NVIDIA A100 datasheet
_HOPPER_SXM = {"bf16": 989e12, "fp16": 989e12, "fp32": 67e12}  # NVIDIA H100 and H200 datasheets

PEAKS: dict[str, dict[str, float]] = {
    "NVIDIA H200": _HOPPER_SXM,
    "NVIDIA H100 80GB HBM3": _HOPPER_SXM,
    "NVIDIA H100 PCIe": {"bf16": 756e12, "fp16": 756e12, "fp32": 51e12},  # NVIDIA H100 datasheet
    "NVIDIA A100-SXM4-40GB": _A100,
    "NVIDIA A100-SXM4-80GB": _A100,
    "NVIDIA A100-PCIE-40GB": _A100,
    "NVIDIA A100 80GB PCIe": _A100,
    "NVIDIA L40S": {"bf16": 362e12, "fp16": 362e12, "fp32": 91.6e12},  # NVIDIA L40S datasheet
    "NVIDIA L4": {"bf16": 121e12, "fp16": 121e12, "fp32": 30.3e12},  # NVIDIA L4 datasheet
}
"""Rates of dense matrix products in FLOP/s, as its maker states them. A GPU is known by the whole
name that CUDA gives it: a variant may be called almost the same and be a fifth slower. Where a
datasheet states a rate with sparsity, half of it stands here. fp32 is the rate without tensor
cores, as torch multiplies float32 by default."""


@dataclass(frozen=True, kw_only=True)
class NetworkTask:
    """What one process measures of one network; its subclass stands in the module of its worker."""

    model: Mapping[str, Any]  # a ModelConfig; sequences are as long as its context_length
    batch_tokens: int
    modes: tuple[str, ...]
    precision: str
    device: str
    min_seconds: float
    min_steps: int
    learning_rate: float
    seed: int
    emulated: bool = False  # whether the device emulates the precision: then few steps are timed

    @property
    def worker(self) -> tuple[str, ...]:
        """The command that measures it."""
        return (sys.executable, "-m", type(self).__module__)

    @property
    def config(self) -> ModelConfig:
        """The network."""
        return ModelConfig(**self.model)

    @property
    def shape(self) -> Shape:
        """Of the batch."""
        length = self.config.context_length
        return Shape(self.batch_tokens // length, length)

    def timing_of(self, step: Callable[[], object], device: torch.device) -> Timing:
        """What a step takes once it runs steadily."""
        return time_steps(
            step,
            stopwatch=stopwatch_for(device),
            min_seconds=self.min_seconds,
            min_steps=self.min_steps,
            emulated=self.emulated,
        )


def random_batch(
    vocab_size: int, shape: Shape, *, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Tokens and the tokens that follow them, each (B, T), drawn evenly."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(vocab_size, (shape.batch, shape.tokens + 1), generator=generator)
    return text[:, :-1].contiguous().to(device), text[:, 1:].contiguous().to(device)


def forward_step(
    model: Transformer, tokens: Tensor, *, precision: str, compiled: bool
) -> Callable[[], object]:
    """Logits of a batch in evaluation mode without gradients: the protocol of GPU-03."""
    model.eval()

    def forward(tokens: Tensor) -> Tensor:
        with autocast(tokens.device, precision):
            logits: Tensor = model(tokens)  # (B, T, V)
        return logits

    function = torch.compile(forward) if compiled else forward

    @torch.no_grad()
    def step() -> object:
        return function(tokens)

    return step


def plain_loss(model: Transformer, precision: str) -> Loss:
    """Cross-entropy of the float32 logits of the whole batch."""

    def loss_of(tokens: Tensor, targets: Tensor) -> Tensor:
        with autocast(tokens.device, precision):
            logits = model(tokens)  # (B, T, V)
        return cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    return loss_of


def finite_loss(last_loss: Callable[[], Tensor], n_steps: int) -> float:
    """The loss after `n_steps` timed steps; raises ArithmeticError if it is not finite."""
    loss = float(last_loss())
    if not math.isfinite(loss):
        raise ArithmeticError(f"loss is {loss} after {n_steps} timed steps")
    return loss


def cuda_peaks(device: torch.device) -> dict[str, int]:
    """Most bytes that torch's allocator had handed out and reserved on a GPU; empty on a CPU."""
    if device.type != "cuda":
        return {}
    return {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
    }


def measure_ceiling(
    device: torch.device,
    precision: str,
    *,
    min_seconds: float,
    min_steps: int,
    seed: int = 0,
    emulated: bool = False,
) -> tuple[int, Timing]:
    """FLOPs and times of the size with the highest rate.

    All timed products together take `min_seconds` at least; of each size are `min_steps` at least.
    Of a precision that is emulated, a few small products are timed.
    """
    sizes, watch = EMULATED_SIZES if emulated else SIZES[device.type], stopwatch_for(device)
    tried = []
    for size in sizes:
        generator = torch.Generator().manual_seed(seed)
        draws = (torch.randn(size, size, generator=generator) for _ in range(2))
        a, b = (draw.to(device, DTYPES[precision]) for draw in draws)
        timing = time_steps(
            partial(a.matmul, b),
            stopwatch=watch,
            min_seconds=min_seconds / len(sizes),
            min_steps=min_steps,
            emulated=emulated,
        )
        tried.append((2 * size**3, timing))
    return max(tried, key=lambda one: rate(*one))


def rate(flops: int, timing: Timing) -> float:
    """FLOP/s over all timed products."""
    return flops * len(timing.seconds) / sum(timing.seconds)


def stated_peak(device_name: str, precision: str) -> float | None:
    """Peak of the device in FLOP/s, or None where no datasheet is known."""
    return PEAKS.get(device_name, {}).get(precision)
