"""How fast a device multiplies in each precision, and how long work should take on it.

A processor without instructions for a half precision emulates it: torch then multiplies many times
slower than in fp32. What it can do is measured, as names of models and flags do not tell.

What work should take follows from the same rates. A step is counted as two kinds of work: matrix
products, at the rate of their precision, and all else, done in float32 whatever the precision,
which is stated as the FLOPs of float32 products that would take as long. The constants were fitted
to the committed runs of the cpu preset; a test holds what is expected of those to what they took.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from psannlm.bench.steps import SIZES
from psannlm.bench.timing import FEW, WINDOW, stopwatch_for
from psannlm.config.network import ModelConfig
from psannlm.config.schema import Strict
from psannlm.config.training import ProcessSettings, TrainingConfig
from psannlm.device import DTYPES, select_device
from psannlm.model.bases import cost_of
from psannlm.model.cost import Shape
from psannlm.places import located
from psannlm.train.data import limits
from psannlm.train.distributed import Ranks

AUTO = "auto"
# Least ratio of the rate of a native half precision to that of fp32. Instructions for it double
# the rate at least; conversions to fp32 and back, which are all else there is, only cost time.
NATIVE = 1.25
SMALL = {"cpu": 256, "cuda": 2048}  # of square matrices: on a CPU small, as 1 GFLOP/s must do
SECONDS = 0.05  # of timed products in one precision

FORWARD, BACKWARD = 1500, 4500  # FLOPs a token, layer and feature of the stream, compiled
EAGER = 3  # times as many where each operation passes over memory by itself
UPDATE = 400  # FLOPs a parameter: AdamW reads and writes it, its gradient and two moments
LOOP = 1.15  # times a step in a training: logits by chunks, computed again, and norms of gradients
PROCESS_SECONDS = 3.0  # until a fresh process measures: torch is loaded, the network built
FORKED_SECONDS = 1.0  # likewise of one that is forked
COMPILING = {True: 20.0, False: 4.0}  # seconds of a step, by whether its cache is cold
RATE_SECONDS = 0.5  # of large products on all threads
HELD_OUT, HELD_OUT_BYTES = 0.05, 1e6  # of a text, for validation and as much for test; if not built

ConfigT = TypeVar("ConfigT", bound=Strict)


@dataclass(frozen=True)
class Pace:
    """Rates of a device by precision, and what should take how long at them."""

    rates: Mapping[str, float]  # FLOP/s of a product in fp32, bf16, fp16; 0 where torch has none
    device_type: str = "cpu"

    def native(self, name: str) -> bool:
        """Whether products in a precision are those of the device, and not emulated."""
        return name == "fp32" or self.rates[name] >= NATIVE * self.rates["fp32"]

    @property
    def auto(self) -> str:
        """The precision that `auto` means: bf16 where it is native, else fp32."""
        return "bf16" if self.native("bf16") else "fp32"

    def __str__(self) -> str:
        rates = (f"{name} {rate / 1e9:,.3g} GFLOP/s" for name, rate in self.rates.items())
        return f"the rates of matrix products, {', '.join(rates)}"

    def forward(
        self, network: ModelConfig, tokens: float, precision: str, *, compiled: bool = False
    ) -> float:
        """Seconds of forward passes over so many tokens, in sequences as long as the context."""
        return self._passes(network, tokens, precision, (1, FORWARD), compiled)

    def step(
        self,
        network: ModelConfig,
        tokens: float,
        precision: str,
        *,
        compiled: bool = False,
        updates: float = 1,
    ) -> float:
        """Seconds of so many training steps of AdamW, over so many tokens together."""
        n_forward = 2 if network.grad_checkpoint else 1
        work = n_forward + 2, n_forward * FORWARD + BACKWARD
        update = UPDATE * cost_of(network, Shape(1, 1)).n_parameters / self.rates["fp32"]
        return self._passes(network, tokens, precision, work, compiled) + updates * update

    def _passes(
        self,
        network: ModelConfig,
        tokens: float,
        precision: str,
        work: tuple[int, int],  # products, in forward passes; FLOPs of all else
        compiled: bool,
    ) -> float:
        length, (n_forward, rest) = network.context_length, work
        products = n_forward * cost_of(network, Shape(1, length)).model_flops * tokens / length
        rest *= network.n_layers * network.d_model * (1 if compiled else EAGER)
        return products / self._rate(precision) + rest * tokens / self.rates["fp32"]

    def training(self, config: TrainingConfig, *, with_test: bool) -> float:
        """Seconds of all steps and evaluations, but for compiling; infinite as `text_bytes`."""
        per_token = bytes_per_token(config.vocab_size)
        train, held_out, test = (n_bytes / per_token for n_bytes in text_bytes(config))
        trained = config.epochs * train
        evaluated = math.ceil(config.epochs * config.evaluations) * held_out + with_test * test
        given, compiled = (config.precision,), config.compile
        updates = trained / config.batch_tokens
        steps = self.step(config.network, trained, *given, compiled=compiled, updates=updates)
        return LOOP * steps + self.forward(config.network, evaluated, *given, compiled=compiled)

    def timed(self, step: float, precision: str, config: ProcessSettings) -> float:
        """Seconds of timing a step of so many seconds, which is taken to be steady at once."""
        if not self.native(precision):
            return (1 + FEW) * step
        return (1 + 2 * WINDOW) * step + max(config.min_seconds, config.min_steps * step)

    def ceiling(self, precision: str, config: ProcessSettings) -> float:
        """Seconds of `measure_ceiling`; of what is emulated, small products take none."""
        if not self.native(precision):
            return 0.0
        products = (2 * size**3 / self._rate(precision) for size in SIZES[self.device_type])
        return sum(self.timed(product, precision, config) for product in products)

    def _rate(self, precision: str) -> float:
        return self.rates[precision] or self.rates["fp32"]


@functools.cache
def half_precision(device: torch.device) -> Pace:
    """Measure the rates of a device; once a process, in a quarter of a second.

    On a CPU of one thread: two that share a core with other work would wait for one another, and
    the ratio is that of every thread.
    """
    n_threads, size = torch.get_num_threads(), SMALL[device.type]
    torch.set_num_threads(1)
    try:
        return Pace({p: product_rate(device, p, size, SECONDS) for p in DTYPES})
    finally:
        torch.set_num_threads(n_threads)


@functools.cache
def measured(device: torch.device) -> Pace:
    """The pace of a device, measured once a process, in a second or less.

    All threads of a CPU are as many times as fast as one in each precision as they are in fp32.
    """
    rates = half_precision(device).rates
    all_threads = product_rate(device, "fp32", SIZES[device.type][0], RATE_SECONDS)
    times = all_threads / rates["fp32"]
    return Pace({name: times * rate for name, rate in rates.items()}, device.type)


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


def text_bytes(config: TrainingConfig) -> list[float]:
    """About what a training reads of each split; inf if it is the whole of a text not yet there."""
    path, size, held_out = located(config.corpus), math.inf, HELD_OUT_BYTES
    if path.is_file():
        size = path.stat().st_size
        held_out = HELD_OUT * size
    there, asked = (size, held_out, held_out), limits(config).values()
    return [min(*one) for one in zip(there, (most or math.inf for most in asked), strict=True)]


def bytes_per_token(vocab_size: int) -> float:
    """Of English: one for bytes; of pairs of bytes more with each doubling of the vocabulary.

    Fitted to the tokenizers of the committed runs, of 1,024 and of 4,096 tokens.
    """
    return 1.0 if vocab_size <= 257 else 0.57 + 0.24 * math.log2(vocab_size)
