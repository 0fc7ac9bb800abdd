"""How fast a device multiplies matrices in each precision, and which half precision is native.

A processor without instructions for a half precision emulates it: torch then multiplies many times
slower than in fp32. What it can do is measured, as names of models and flags do not tell.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from psannlm.bench.timing import stopwatch_for
from psannlm.config.schema import Strict
from psannlm.config.training import TrainingConfig
from psannlm.device import DTYPES, select_device
from psannlm.train.distributed import Ranks

AUTO = "auto"
NATIVE = 1.25
"""Least ratio of the rate of a native half precision to that of fp32. Instructions for it double
the rate at least; conversions to fp32 and back, which are all else there is, only cost time."""

SIZES = {"cpu": 256, "cuda": 2048}  # of square matrices: on a CPU small, as 1 GFLOP/s must do
SECONDS, FEWEST, MOST = 0.05, 2, 50  # of timed products in one precision

ConfigT = TypeVar("ConfigT", bound=Strict)


@dataclass(frozen=True)
class HalfPrecision:
    """What a device makes of each precision."""

    rates: Mapping[str, float]  # FLOP/s of a product in fp32, bf16, fp16; 0 where torch has none

    def native(self, name: str) -> bool:
        """Whether products in a precision are those of the device, and not emulated."""
        return name == "fp32" or self.rates[name] >= NATIVE * self.rates["fp32"]

    @property
    def auto(self) -> str:
        """The precision that `auto` means: bf16 where it is native, else fp32."""
        return "bf16" if self.native("bf16") else "fp32"


@functools.cache
def half_precision(device: torch.device) -> HalfPrecision:
    """Measure the rates of a device; once a process, in a quarter of a second.

    On a CPU of one thread: two that share a core with other work would wait for one another, and
    the ratio is that of every thread.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return HalfPrecision({name: _rate(device, dtype) for name, dtype in DTYPES.items()})
    finally:
        torch.set_num_threads(threads)


def _rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of a few products; 0 where torch cannot multiply in that type."""
    size, watch = SIZES[device.type], stopwatch_for(device)
    generator, laps = torch.Generator().manual_seed(0), list[float]()
    draws = (torch.randn(size, size, generator=generator) for _ in range(2))
    a, b = (draw.to(device, dtype) for draw in draws)
    product = partial(a.matmul, b)
    try:
        watch.lap(product, 1)  # loads the kernel
        while len(laps) < FEWEST or (sum(laps) < SECONDS and len(laps) < MOST):
            laps += watch.lap(product, 1)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # no kernel for it
        return 0.0
    return 2 * size**3 / min(laps)


def is_emulated(device: str, precision: str) -> bool:
    """Whether a device, by its name in a configuration, emulates a precision."""
    return precision != "fp32" and not half_precision(select_device(device)).native(precision)


def resolve(config: ConfigT, device: torch.device, held: Any = None) -> ConfigT:
    """The configuration with the precision that `auto` means on the device, each named once.

    `held` is what a run or a training that goes on has used so far, and counts instead.
    """
    if not asks_auto(config):
        return config
    asked: Any = getattr(config, "precision", ())
    meant = held or half_precision(device).auto
    if not isinstance(asked, str):
        meant = tuple(held or dict.fromkeys(meant if name == AUTO else name for name in asked))
    return config.model_copy(update={"precision": meant})


def agreed(config: TrainingConfig, ranks: Ranks, held: str | None) -> TrainingConfig:
    """The same for a training, as its first rank finds: others may be of another opinion."""
    if not asks_auto(config):
        return config
    names = list(DTYPES)
    meant = names.index(resolve(config, ranks.device, held).precision) if ranks.is_first else 0
    chosen = int(ranks.sum(torch.tensor(meant)))
    return config.model_copy(update={"precision": names[chosen]})


def asks_auto(config: Strict) -> bool:
    """Whether a configuration leaves a precision to the device."""
    asked = getattr(config, "precision", ())
    return AUTO in ((asked,) if isinstance(asked, str) else asked)


def stated(config: Strict, device: torch.device) -> dict[str, Any]:
    """For the manifest: what was asked as precision, and what the device makes of each."""
    asked = getattr(config, "precision", None)
    if asked is None:
        return {}
    found = half_precision(device)
    told = {"flop_per_s": dict(found.rates), "emulated": [n for n in DTYPES if not found.native(n)]}
    return {"precision": {"asked": asked if isinstance(asked, str) else list(asked), **told}}
