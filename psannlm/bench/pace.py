"""How long work should take on a device of known rates: what a run is planned by.

A step is counted as two kinds of work: matrix products, at the rate of their precision, and all
else, done in float32 whatever the precision, which is stated as the FLOPs of float32 products that
would take as long. The constants were fitted to the committed runs of the cpu preset; a test holds
what is expected of those runs to what they took.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from psannlm.bench.rates import NATIVE, half_precision
from psannlm.bench.steps import SIZES
from psannlm.bench.timing import FEW, WINDOW, stopwatch_for
from psannlm.config.network import ModelConfig
from psannlm.config.schema import ConfigError
from psannlm.config.training import ProcessSettings, TrainingConfig
from psannlm.corpora.corpus import load
from psannlm.corpora.recipe import SPLITS
from psannlm.device import DTYPES
from psannlm.model.bases import cost_of
from psannlm.model.cost import Shape
from psannlm.places import located
from psannlm.train.data import limits

FORWARD, BACKWARD = 1500, 4500  # FLOPs a token, layer and feature of the stream, compiled
EAGER = 3  # times as many where each operation passes over memory by itself
UPDATE = 400  # FLOPs a parameter: AdamW reads and writes it, its gradient and two moments
LOOP = 1.15  # times a step in a training: logits by chunks, computed again, and norms of gradients
PROCESS_SECONDS = 3.0  # until a fresh process measures: torch is loaded, the network built
FORKED_SECONDS = 1.0  # likewise of one that is forked
COMPILING = {True: 20.0, False: 4.0}  # seconds of a step, by whether its cache is cold
RATE_SECONDS = 0.5  # of products, of which the fastest tells the rate
HELD_OUT_BYTES = 1e6  # of a whole split whose corpus is not built yet


@dataclass(frozen=True)
class Pace:
    """What a device does in a second, and a process on it besides."""

    device_type: str
    rates: Mapping[str, float]  # of matrix products by precision, FLOP/s; fp32 is one of them

    @property
    def said(self) -> str:
        """The rates in words."""
        rates = (f"{p} {rate / 1e9:,.3g} GFLOP/s" for p, rate in self.rates.items())
        return f"the rates of matrix products, {', '.join(rates)}"

    def forward(
        self, network: ModelConfig, tokens: float, precision: str, *, compiled: bool = False
    ) -> float:
        """Seconds of forward passes over so many tokens, in sequences as long as the context."""
        rest = self._rest(network, tokens, FORWARD, compiled)
        return _flops(network, tokens) / self._rate(precision) + rest

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
        products = (n_forward + 2) * _flops(network, tokens) / self._rate(precision)
        rest = self._rest(network, tokens, n_forward * FORWARD + BACKWARD, compiled)
        n_parameters = cost_of(network, Shape(1, 1)).n_parameters
        return products + rest + updates * UPDATE * n_parameters / self.rates["fp32"]

    def training(
        self, config: TrainingConfig, text: Mapping[str, float], *, with_test: bool
    ) -> float:
        """Seconds of all steps and evaluations, but for compiling; `text` as of `text_bytes`."""
        network, how = config.network, {"compiled": config.compile}
        per_token = bytes_per_token(config.vocab_size)
        train, held_out, test = (text[split] / per_token for split in SPLITS)
        trained = config.epochs * train
        evaluated = math.ceil(config.epochs * config.evaluations) * held_out
        evaluated += test if with_test else 0.0
        updates = trained / config.batch_tokens
        steps = self.step(network, trained, config.precision, updates=updates, **how)
        return LOOP * steps + self.forward(network, evaluated, config.precision, **how)

    def timed(self, step: float, precision: str, config: ProcessSettings) -> float:
        """Seconds of timing a step of so many seconds, which is taken to be steady at once."""
        if self._is_emulated(precision):
            return (1 + FEW) * step
        return (1 + 2 * WINDOW) * step + max(config.min_seconds, config.min_steps * step)

    def products(self, precision: str, config: ProcessSettings) -> float:
        """Seconds of `measure_ceiling`; of what is emulated, small products take none."""
        if self._is_emulated(precision):
            return 0.0
        steps = (2 * size**3 / self._rate(precision) for size in SIZES[self.device_type])
        return sum(self.timed(step, precision, config) for step in steps)

    def _is_emulated(self, precision: str) -> bool:
        least = NATIVE * self.rates["fp32"]
        return precision != "fp32" and self.rates.get(precision, least) < least

    def _rate(self, precision: str) -> float:
        return self.rates.get(precision) or self.rates["fp32"]

    def _rest(self, network: ModelConfig, tokens: float, flops: int, compiled: bool) -> float:
        features = tokens * network.n_layers * network.d_model
        return features * flops * (1 if compiled else EAGER) / self.rates["fp32"]


@functools.cache
def measured(device: torch.device) -> Pace:
    """The pace of a device by its matrix products, taken once a process, in a second or less.

    What is emulated would take many times as long: its rate follows from small products.
    """
    found = half_precision(device)
    known = {name: _rate(device, name) for name in found.rates if found.native(name)}
    small = {name: rate / found.rates["fp32"] for name, rate in found.rates.items()}
    return Pace(device.type, {name: small[name] * known["fp32"] for name in small} | known)


def _rate(device: torch.device, precision: str) -> float:
    """FLOP/s of the fastest product of a while, as others on the machine may slow some of them."""
    size, watch = SIZES[device.type][0], stopwatch_for(device)
    a = torch.ones(size, size, device=device, dtype=DTYPES[precision])
    watch.lap(partial(a.matmul, a), 1)
    laps = watch.lap(partial(a.matmul, a), 1)
    while sum(laps) < RATE_SECONDS:
        laps += watch.lap(partial(a.matmul, a), 1)
    return 2 * size**3 / min(laps)


def text_bytes(config: TrainingConfig) -> dict[str, float] | None:
    """Bytes that a training reads of each split; None if its whole text is asked for and not there.

    As long as a text is not there, each split that is held out of it is taken for HELD_OUT_BYTES.
    """
    asked, path = limits(config), located(config.corpus)
    try:
        there = _split_bytes(path, path.stat().st_mtime_ns)
    except (OSError, ConfigError):
        there = dict(zip(SPLITS, (math.inf, HELD_OUT_BYTES, HELD_OUT_BYTES), strict=True))
    found = {split: min(there[split], asked[split] or math.inf) for split in SPLITS}
    return found if math.isfinite(max(found.values())) else None


@functools.cache
def _split_bytes(path: Path, changed: int) -> dict[str, float]:
    """Of each split of a corpus, read once as long as it does not change."""
    corpus = load(path)
    return {split: float(corpus.n_bytes(split)) for split in SPLITS}


def bytes_per_token(vocab_size: int) -> float:
    """Of English: one for bytes; of pairs of bytes more with each doubling of the vocabulary.

    Fitted to the tokenizers of the committed runs, of 1,024 and of 4,096 tokens.
    """
    return 1.0 if vocab_size <= 257 else 0.57 + 0.24 * math.log2(vocab_size)


def _flops(network: ModelConfig, tokens: float) -> float:
    """Of the products that forward passes need."""
    length = network.context_length
    return cost_of(network, Shape(1, length)).model_flops * tokens / length
