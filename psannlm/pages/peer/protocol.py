"""The original's own protocol of GPU-02, GPU-03 and GPU-04, repeated on either side.

Needs torch alone, so that both interpreters run this same file.
Shape letters: B batch, T tokens, V vocabulary.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

MIB = 2**20
N_WARMUP, N_STEPS = 5, 20
"""Steps of GPU-03."""

Values = dict[str, tuple[float | None, str]]
"""A value a measure, or why this device has none."""

Found = dict[str, Values]


@dataclass(frozen=True, kw_only=True)
class Check:
    """A check of the protocol: its network, its batches, and what it measures."""

    shape: Mapping[str, int]
    precision: str
    measures: tuple[str, ...]
    sequence: int = 0
    """Tokens of its one sequence; 0 where there are several batches."""

    def batches(self, asked: Iterable[int]) -> tuple[int, ...]:
        """Tokens of each of its batches, if these are asked for."""
        return (self.sequence,) if self.sequence else tuple(asked)

    def context_length(self, batch_tokens: int) -> int:
        """T of a batch.

        The sanity throughput is that of 4 sequences of 256 tokens. The published speeds of larger
        batches are those of sequences of 4,096: there attention's share of the FLOPs is so large
        that the published speed and its share of the GPU's peak agree.
        """
        if self.sequence:
            return self.sequence
        return LONG if batch_tokens % LONG == 0 else min(SHORT, batch_tokens)


LONG, SHORT = 4096, 256

SMALL = {"vocab_size": 31, "d_model": 128, "n_layers": 2, "n_heads": 4, "d_mlp": 512}
"""Of GPU-04, whose vocabulary is that of the characters it trains on. No width of its MLP is on
record: it is four times d_model, as that of GPU-03. GPU-02 takes the same network."""

WIDE = {"vocab_size": 32_000, "d_model": 256, "n_layers": 4, "n_heads": 4, "d_mlp": 1024}
"""Of GPU-03. The original has 19.5 million parameters, of which 84% are embedding and head: 2 V D
of them with D = 256, so V is 32,000. The blocks have the rest, 12 D**2 a layer."""

CHECKS: Mapping[str, Check] = {
    "GPU-02": Check(shape=SMALL, precision="fp32", measures=("rel_diff",), sequence=13),
    "GPU-03": Check(shape=WIDE, precision="fp32", measures=("tokens_per_s",)),
    "GPU-04": Check(
        shape=SMALL,
        precision="bf16",
        measures=("max_allocated_mib", "max_reserved_mib", "saved_mib", "elapsed_s"),
        sequence=64,
    ),
}


def parity(side: Any, task: Mapping[str, Any], tools: Any) -> Found:
    """|loss in bf16 - loss in fp32| / loss in fp32 of one sequence that predicts itself, unshifted.

    The original's weights are unseeded; these are seeded.
    """
    model = side.network().eval()
    tokens, _ = tools.works.batch_of(task)
    with torch.no_grad():
        plain, half = (
            tools.works.next_token_loss(model, tokens, tokens, precision).item()
            for precision in ("fp32", "bf16")
        )
    return _found(rel_diff=abs(half - plain) / plain)


def speed(side: Any, task: Mapping[str, Any], tools: Any) -> Found:
    """Tokens/s of forward passes in fp32 without gradients: one window, by wall clock."""
    model = side.network().eval()
    tokens, _ = tools.works.batch_of(task)
    with torch.no_grad():
        for _ in range(N_WARMUP):
            model(tokens)
        _wait(task)
        start = time.perf_counter()
        for _ in range(N_STEPS):
            model(tokens)
        _wait(task)
        seconds = time.perf_counter() - start
    return _found(tokens_per_s=N_STEPS * tokens.numel() / seconds)


def checkpointed_step(side: Any, task: Mapping[str, Any], tools: Any) -> Found:
    """Memory and time of one training step of one sequence with gradient checkpointing, in bf16.

    Peaks are those of the whole process. The time is that of making the optimizer and of the first
    step; the original's held loading data and writing a checkpoint too.
    """
    cuda = task["device"] == "cuda"
    model = side.network(checkpointing=True).train()
    batch = tools.works.batch_of(task)
    loss_of = side.loss_of(model, compiled=False)
    _wait(task)
    start = time.perf_counter()
    step, _ = tools.timing.training_step(
        model, loss_of, *batch, precision=task["precision"], learning_rate=task["learning_rate"]
    )
    step()
    _wait(task)
    elapsed = time.perf_counter() - start
    peaks: list[float | None] = [None, None]
    if cuda:
        peaks = [torch.cuda.max_memory_allocated() / MIB, torch.cuda.max_memory_reserved() / MIB]
    with tools.memory.saved_for_backward(model.parameters()) as counted:
        loss_of(*batch)
    allocated, reserved = peaks
    return _found(
        max_allocated_mib=allocated,
        max_reserved_mib=reserved,
        saved_mib=counted.total / MIB,
        elapsed_s=elapsed,
    )


MODES: Mapping[str, Callable[[Any, Mapping[str, Any], Any], Found]] = {
    "GPU-02": parity,
    "GPU-03": speed,
    "GPU-04": checkpointed_step,
}
"""Each takes what those of works take, and gives the values by measure."""


def _found(**values: float | None) -> Found:
    lacking = "only a GPU's allocator tells its peak"
    return {"values": {k: (v, lacking if v is None else "") for k, v in values.items()}}


def _wait(task: Mapping[str, Any]) -> None:
    """Until the device has done all that it was told."""
    if task["device"] == "cuda":
        torch.cuda.synchronize()
