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
# Least ratio of the rate of a native half precision to that of fp32. Instructions for it double
# the rate at least; conversions to fp32 and back, which are all else there is, only cost time.
NATIVE = 1.25
SIZES = {"cpu": 256, "cuda": 2048}  # of square matrices: on a CPU small, as 1 GFLOP/s must do
SECONDS = 0.05  # of timed products in one precision

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
    n_threads, size = torch.get_num_threads(), SIZES[device.type]
    torch.set_num_threads(1)
    try:
        return HalfPrecision({p: product_rate(device, p, size, SECONDS) for p in DTYPES})
    finally:
        torch.set_num_threads(n_threads)


def product_rate(device: torch.device, precision: str, size: int, seconds: float) -> float:
    """FLOP/s of the fastest product of so many seconds; 0 where torch has none."""
    watch, generator = stopwatch_for(device), torch.Generator().manual_seed(0)
    draws = (torch.randn(size, size, generator=generator) for _ in range(2))
    a, b = (draw.to(device, DTYPES[precision]) for draw in draws)
    laps: list[float] = []
    try:
        watch.lap(partial(a.matmul, b), 1)  # loads the kernel
        while sum(laps) < seconds:
            laps += watch.lap(partial(a.matmul, b), 1)
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
    asked: Any = dict(config)["precision"]
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
    return config.model_copy(update={"precision": names[int(ranks.sum(torch.tensor(meant)))]})


def asks_auto(config: Strict) -> bool:
    """Whether a configuration leaves a precision to the device."""
    return AUTO in getattr(config, "precision", ())


def stated(config: Strict, device: torch.device) -> dict[str, Any]:
    """For the manifest: what was asked as precision, and what the device makes of each."""
    asked = config.model_dump(mode="json").get("precision")
    if asked is None:
        return {}
    found = half_precision(device)
    emulated = [name for name in DTYPES if not found.native(name)]
    return {"precision": {"asked": asked, "flop_per_s": dict(found.rates), "emulated": emulated}}
