"""The fastest matrix product of a device: measured, and as its maker states it.

PEAKS are rates of dense matrix products in FLOP/s. A GPU is known by the whole name that CUDA gives
it: a variant may be called almost the same and be a fifth slower. Where a datasheet states a rate
with sparsity, half of it stands here. fp32 is the rate without tensor cores, as torch multiplies
float32 by default.
"""

from functools import partial

import torch

from psannlm.bench.timing import Timing, stopwatch_for, time_steps
from psannlm.device import DTYPES

SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}  # square matrices that are tried

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


def measure_ceiling(
    device: torch.device, precision: str, *, min_seconds: float, min_steps: int, seed: int = 0
) -> tuple[int, Timing]:
    """FLOPs and times of the size with the highest rate.

    All timed products together take `min_seconds` at least; of each size are `min_steps` at least.
    """
    sizes, watch = SIZES[device.type], stopwatch_for(device)
    tried = []
    for size in sizes:
        generator = torch.Generator().manual_seed(seed)
        draws = (torch.randn(size, size, generator=generator) for _ in range(2))
        a, b = (draw.to(device, DTYPES[precision]) for draw in draws)
        product, least = partial(a.matmul, b), min_seconds / len(sizes)
        timing = time_steps(product, stopwatch=watch, min_seconds=least, min_steps=min_steps)
        tried.append((2 * size**3, timing))
    return max(tried, key=lambda one: rate(*one))


def rate(flops: int, timing: Timing) -> float:
    """FLOP/s over all timed products."""
    return flops * len(timing.seconds) / sum(timing.seconds)


def stated_peak(device_name: str, precision: str) -> float | None:
    """Peak of the device in FLOP/s, or None where no datasheet is known."""
    return PEAKS.get(device_name, {}).get(precision)
