"""What is measured of either side, and what the original's own protocol measures.

Needs torch alone, so that both interpreters run this same file.
Shape letters: B batch, T tokens, V vocabulary.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

MIB = 2**20
Loss = Callable[[Tensor, Tensor], Tensor]
Found = dict[str, Any]
Task = Mapping[str, Any]
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}  # other than that of the weights


class Side(Protocol):
    """One package's network in the shape and setting of a task."""

    task: Task  # fields of a SideTask
    attention: str  # which attention it takes, in words
    loss: str  # which loss it trains with, in words
    generation: str  # how it generates, in words
    note: str  # what else is to be known of the base; empty for nothing

    def network(self, *, checkpointing: bool = False) -> nn.Module:
        """The freshly seeded network on the task's device."""

    def loss_of(self, model: nn.Module, *, compiled: bool) -> Loss:
        """What it trains with, in the task's precision; `compiled` if the whole is to be."""

    def generator(self, prompt: list[int]) -> Callable[[], int]:
        """What continues the prompt greedily, and tells how many tokens it made."""


def batch_of(task: Task) -> tuple[Tensor, Tensor]:
    """Tokens and the tokens that follow them, each (B, T), the same for both sides."""
    generator = torch.Generator().manual_seed(task["seed"])
    vocab_size, length = task["model"]["vocab_size"], task["model"]["context_length"]
    shape = (task["batch_tokens"] // length, length + 1)
    text = torch.randint(vocab_size, shape, generator=generator)
    device = torch.device(task["device"])
    return text[:, :-1].contiguous().to(device), text[:, 1:].contiguous().to(device)


def autocast(device_type: str, precision: str) -> torch.autocast:
    """Matrix products in the precision."""
    return torch.autocast(device_type, DTYPES.get(precision), enabled=precision in DTYPES)


def next_token_loss(model: nn.Module, tokens: Tensor, targets: Tensor, precision: str) -> Tensor:
    """Cross-entropy of the float32 logits of the whole batch; tokens and targets are (B, T)."""
    with autocast(tokens.device.type, precision):
        logits = model(tokens)  # (B, T, V)
    return cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def forward(side: Side, tools: Any) -> Found:
    """Logits of a batch in evaluation mode without gradients."""
    task, model = side.task, side.network().eval()
    tokens, _ = batch_of(task)

    def logits_of(tokens: Tensor) -> Tensor:
        with autocast(task["device"], task["precision"]):
            logits: Tensor = model(tokens)  # (B, T, V)
        return logits

    with torch.no_grad():
        function, how = _fastest(logits_of, lambda f: f(tokens), task, tools)
        seconds = _seconds(lambda: function(tokens), task, tools)
    return _found(side, model, tokens.numel(), seconds, how)


def train_step(side: Side, tools: Any) -> Found:
    """Forward, backward and AdamW."""
    task, model = side.task, side.network().train()
    batch = batch_of(task)
    whole = side.loss_of(model, compiled=True)

    def differentiate(loss_of: Loss) -> None:
        backward: Any = loss_of(*batch).backward
        backward()

    compiled, how = _fastest(whole, differentiate, task, tools)
    model.zero_grad(set_to_none=True)
    loss_of = side.loss_of(model, compiled=False) if compiled is whole else compiled
    step, last_loss = tools.timing.training_step(
        model, loss_of, *batch, precision=task["precision"], learning_rate=task["learning_rate"]
    )
    seconds = _seconds(step, task, tools)
    loss = float(last_loss())
    if not math.isfinite(loss):
        raise ArithmeticError(f"loss is {loss} after {len(seconds)} timed steps")
    return _found(side, model, batch[0].numel(), seconds, side.loss, how)


def saved(side: Side, tools: Any) -> Found:
    """Bytes that an eager training step saves for backward, without parameters."""
    model = side.network().train()
    batch = batch_of(side.task)
    loss_of = side.loss_of(model, compiled=False)
    with tools.timing.saved_for_backward(model.parameters()) as counted:
        loss_of(*batch)
    found = _found(side, model, batch[0].numel(), (), side.loss, "eager")
    return found | {"saved_bytes": counted.total}


def generate(side: Side, tools: Any) -> Found:
    """Greedy continuation of one prompt."""
    task, model = side.task, side.network()
    prompt = batch_of(task)[0].flatten()[: task["prompt_tokens"]].tolist()
    continue_it = side.generator(prompt)

    def step() -> int:
        with autocast(task["device"], task["precision"]):
            n_made = continue_it()
        if n_made != task["new_tokens"]:
            raise ArithmeticError(f"made {n_made} tokens where {task['new_tokens']} were asked for")
        return n_made

    seconds = _seconds(step, task, tools)
    return _found(side, model, task["new_tokens"], seconds, side.generation, "eager")


def _fastest(
    function: FunctionT, probe: Callable[[FunctionT], object], task: Task, tools: Any
) -> tuple[FunctionT, str]:
    """The function, compiled where the setting asks for it and it can be; and which, in words."""
    if task["setting"] != "best":
        return function, "eager"

    def probed(compiled: bool) -> Any:
        made: Any = torch.compile(function) if compiled else function
        probe(made)
        return made

    fastest, made = tools.compilation.compiled_or_eager(probed)
    return (fastest if made.frames else function), made.words


def _seconds(step: Callable[[], object], task: Task, tools: Any) -> tuple[float, ...]:
    stopwatch = tools.timing.stopwatch_for(torch.device(task["device"]))
    how = {name: task[name] for name in ("min_seconds", "min_steps", "emulated")}
    return tuple(tools.timing.time_steps(step, stopwatch=stopwatch, **how).seconds)


def _found(
    side: Side, model: nn.Module, tokens: int, seconds: tuple[float, ...], *choices: str
) -> Found:
    return {
        "n_parameters": sum(p.numel() for p in model.parameters()),  # shared ones once
        "choices": "; ".join(filter(None, (side.attention, *choices, side.note))),
        "tokens": tokens,
        "seconds": seconds,
    }


# The original's own protocol of GPU-02, GPU-03 and GPU-04.


def parity(side: Side, tools: Any) -> Found:
    """|loss in bf16 - loss in fp32| / loss in fp32 of one sequence that predicts itself, unshifted.

    The original's weights are unseeded; these are seeded.
    """
    model = side.network().eval()
    tokens, _ = batch_of(side.task)
    with torch.no_grad():
        plain, half = (next_token_loss(model, tokens, tokens, p).item() for p in ("fp32", "bf16"))
    return _values(rel_diff=abs(half - plain) / plain)


def speed(side: Side, tools: Any) -> Found:
    """Tokens/s of forward passes in fp32 without gradients: one window, by wall clock."""
    model = side.network().eval()
    tokens, _ = batch_of(side.task)
    n_warmup, n_steps = 5, 20

    def run(n: int) -> None:
        for _ in range(n):
            model(tokens)
        _wait(side)

    with torch.no_grad():
        run(n_warmup)
        start = time.perf_counter()
        run(n_steps)
        seconds = time.perf_counter() - start
    return _values(tokens_per_s=n_steps * tokens.numel() / seconds)


def checkpointed_step(side: Side, tools: Any) -> Found:
    """Memory and time of one training step of one sequence with gradient checkpointing, in bf16.

    Peaks are those of the whole process. The time is that of making the optimizer and of the first
    step; the original's held loading data and writing a checkpoint too.
    """
    task, model = side.task, side.network(checkpointing=True).train()
    batch = batch_of(task)
    loss_of = side.loss_of(model, compiled=False)
    _wait(side)
    start = time.perf_counter()
    step, _ = tools.timing.training_step(
        model, loss_of, *batch, precision=task["precision"], learning_rate=task["learning_rate"]
    )
    step()
    _wait(side)
    elapsed = time.perf_counter() - start
    cuda = task["device"] == "cuda"
    allocated = torch.cuda.max_memory_allocated() / MIB if cuda else None
    reserved = torch.cuda.max_memory_reserved() / MIB if cuda else None
    with tools.timing.saved_for_backward(model.parameters()) as counted:
        loss_of(*batch)
    return _values(
        max_allocated_mib=allocated,
        max_reserved_mib=reserved,
        saved_mib=counted.total / MIB,
        elapsed_s=elapsed,
    )


def _values(**values: float | None) -> Found:
    """A value a measure, each with why this device has none."""
    lacking = "only a GPU's allocator tells its peak"
    return {"values": {k: (v, lacking if v is None else "") for k, v in values.items()}}


def _wait(side: Side) -> None:
    """Until the device has done all that it was told."""
    if side.task["device"] == "cuda":
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Check:
    """A check of the protocol: its network, its batches, and what it measures."""

    run: Callable[[Side, Any], Found]
    shape: Mapping[str, int]
    precision: str
    measures: tuple[str, ...]
    batches: tuple[int, ...] = ()  # tokens of batches of one sequence; none: those asked for

    def context_length(self, batch_tokens: int) -> int:
        """T of a batch.

        The sanity throughput is that of 4 sequences of 256 tokens. The published speeds of larger
        batches are those of sequences of 4,096: there attention's share of the FLOPs is so large
        that the published speed and its share of the GPU's peak agree.
        """
        if self.batches:
            return batch_tokens
        return 4096 if batch_tokens % 4096 == 0 else min(256, batch_tokens)


# Of GPU-04, whose vocabulary is that of the characters it trains on. No width of its MLP is on
# record: it is four times d_model, as that of GPU-03. GPU-02 takes the same network.
SMALL = {"vocab_size": 31, "d_model": 128, "n_layers": 2, "n_heads": 4, "d_mlp": 512}
# Of GPU-03. The original has 19.5 million parameters, of which 84% are embedding and head: 2 V D of
# them with D = 256, so V is 32,000. The blocks have the rest, 12 D**2 a layer.
WIDE = {"vocab_size": 32_000, "d_model": 256, "n_layers": 4, "n_heads": 4, "d_mlp": 1024}
MEMORY = ("max_allocated_mib", "max_reserved_mib", "saved_mib", "elapsed_s")
CHECKS: Mapping[str, Check] = {
    "GPU-02": Check(parity, SMALL, "fp32", ("rel_diff",), batches=(13,)),
    "GPU-03": Check(speed, WIDE, "fp32", ("tokens_per_s",)),
    "GPU-04": Check(checkpointed_step, SMALL, "bf16", MEMORY, batches=(64,)),
}
MODES: Mapping[str, Callable[[Side, Any], Found]] = {
    **{work.__name__: work for work in (forward, train_step, generate, saved)},
    **{name: check.run for name, check in CHECKS.items()},
}
"""Each takes the side, and the modules that both sides share, and gives what a PeerCell, or a
ProtocolCell, needs to know; it raises whatever goes wrong."""
