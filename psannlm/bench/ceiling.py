"""The fastest matrix product of a device: what it can do at most, measured."""

import torch

from psannlm.bench.timing import Timing, stopwatch_for, time_steps
from psannlm.device import DTYPES

SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
"""Square matrices that are tried, by kind of device."""


def measure_ceiling(
    device: torch.device, precision: str, *, min_seconds: float, min_steps: int, seed: int = 0
) -> tuple[int, Timing]:
    """FLOPs and times of the size with the highest rate.

    Args:
        device: What is measured.
        precision: Of the matrices.
        min_seconds: Least time of all timed products together.
        min_steps: Least number of timed products of each size.
        seed: Of the matrices.
    """
    sizes = SIZES[device.type]
    tried = []
    for size in sizes:
        generator = torch.Generator().manual_seed(seed)
        draws = (torch.randn(size, size, generator=generator) for _ in range(2))
        a, b = (draw.to(device, DTYPES[precision]) for draw in draws)
        timing = time_steps(
            lambda a=a, b=b: a @ b,  # type: ignore[misc]
            stopwatch=stopwatch_for(device),
            min_seconds=min_seconds / len(sizes),
            min_steps=min_steps,
        )
        tried.append((2 * size**3, timing))
    return max(tried, key=lambda one: rate(*one))


def rate(flops: int, timing: Timing) -> float:
    """FLOP/s over all timed products."""
    return flops * len(timing.seconds) / sum(timing.seconds)
