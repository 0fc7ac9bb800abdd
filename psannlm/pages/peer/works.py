"""What is measured of either side: a forward pass, a training step, saved bytes, generation.

Needs torch alone, so that both interpreters run this same file.
Shape letters: B batch, T tokens, V vocabulary.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Loss = Callable[[Tensor, Tensor], Tensor]
Found = dict[str, Any]
Task = Mapping[str, Any]
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Of matrix products in a precision other than that of the weights."""


class Side(Protocol):
    """One package's network in the shape and setting of a task."""

    attention: str
    """Which attention it takes, in words."""

    loss: str
    """Which loss it trains with, in words."""

    generation: str
    """How it generates, in words."""

    note: str
    """What else is to be known of the base; empty for nothing."""

    def network(self, *, checkpointing: bool = False) -> nn.Module:
        """The freshly seeded network on the task's device."""

    def loss_of(self, model: nn.Module, *, compiled: bool) -> Loss:
        """What it trains with, in the task's precision; `compiled` if the whole is to be."""

    def generator(self, prompt: list[int]) -> Callable[[], int]:
        """What continues the prompt greedily, and tells how many tokens it made."""


def batch_of(task: Task) -> tuple[Tensor, Tensor]:
    """Tokens and the tokens that follow them, each (B, T), the same for both sides."""
    generator = torch.Generator().manual_seed(task["seed"])
    shape = (task["batch"], task["tokens"] + 1)
    text = torch.randint(task["model"]["vocab_size"], shape, generator=generator)
    device = torch.device(task["device"])
    return text[:, :-1].contiguous().to(device), text[:, 1:].contiguous().to(device)


def autocast(device_type: str, precision: str) -> torch.autocast:
    """Matrix products in the precision."""
    dtype = DTYPES.get(precision)
    return torch.autocast(device_type, dtype, enabled=dtype is not None)


def next_token_loss(model: nn.Module, tokens: Tensor, targets: Tensor, precision: str) -> Tensor:
    """Cross-entropy of the float32 logits of the whole batch; tokens and targets are (B, T)."""
    with autocast(tokens.device.type, precision):
        logits = model(tokens)  # (B, T, V)
    return cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def n_parameters(model: nn.Module) -> int:
    """Of all parameters, those that several modules share once."""
    return sum(p.numel() for p in model.parameters())


def forward(side: Side, task: Task, tools: Any) -> Found:
    """Logits of a batch in evaluation mode without gradients."""
    model = side.network().eval()
    tokens, _ = batch_of(task)

    def logits_of(tokens: Tensor) -> Tensor:
        with autocast(task["device"], task["precision"]):
            logits: Tensor = model(tokens)  # (B, T, V)
        return logits

    with torch.no_grad():
        function, how = _fastest(logits_of, lambda f: f(tokens), task, tools)
        seconds = _seconds(lambda: function(tokens), task, tools)
    chosen = _words(side.attention, how, side.note)
    return _found(model, chosen, tokens.numel(), seconds)


def train_step(side: Side, task: Task, tools: Any) -> Found:
    """Forward, backward and AdamW."""
    model = side.network().train()
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
    chosen = _words(side.attention, side.loss, how, side.note)
    return _found(model, chosen, batch[0].numel(), seconds)


def saved(side: Side, task: Task, tools: Any) -> Found:
    """Bytes that an eager training step saves for backward, without parameters."""
    model = side.network().train()
    batch = batch_of(task)
    loss_of = side.loss_of(model, compiled=False)
    with tools.memory.saved_for_backward(model.parameters()) as counted:
        loss_of(*batch)
    chosen = _words(side.attention, side.loss, "eager", side.note)
    return _found(model, chosen, batch[0].numel(), ()) | {"saved_bytes": counted.total}


def generate(side: Side, task: Task, tools: Any) -> Found:
    """Greedy continuation of one prompt."""
    model = side.network()
    prompt = batch_of(task)[0].flatten()[: task["prompt_tokens"]].tolist()
    continue_it = side.generator(prompt)

    def step() -> int:
        with autocast(task["device"], task["precision"]):
            n_made = continue_it()
        if n_made != task["new_tokens"]:
            raise ArithmeticError(f"made {n_made} tokens where {task['new_tokens']} were asked for")
        return n_made

    seconds = _seconds(step, task, tools)
    chosen = _words(side.attention, side.generation, "eager", side.note)
    return _found(model, chosen, task["new_tokens"], seconds)


MODES: Mapping[str, Callable[[Side, Task, Any], Found]] = {
    "forward": forward,
    "train_step": train_step,
    "generate": generate,
    "saved": saved,
}
"""Each takes the side, the fields of a SideTask, and the modules that both sides share, and gives
what a PeerCell needs to know; it raises whatever goes wrong."""


def _fastest(
    function: FunctionT, probe: Callable[[FunctionT], object], task: Task, tools: Any
) -> tuple[FunctionT, str]:
    """The function, compiled where the setting asks for it and it can be; and which, in words."""
    if task["setting"] != "best":
        return function, "eager"
    compiled: Any = torch.compile(function)
    try:
        probe(compiled)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        torch.compiler.reset()
        return function, f"eager, as it does not compile ({tools.worker.reason_of(error)[:200]})"
    return compiled, "compiled"


def _seconds(step: Callable[[], object], task: Task, tools: Any) -> tuple[float, ...]:
    seconds: tuple[float, ...] = tools.timing.time_steps(
        step,
        stopwatch=tools.timing.stopwatch_for(torch.device(task["device"])),
        min_seconds=task["min_seconds"],
        min_steps=task["min_steps"],
    ).seconds
    return seconds


def _words(*choices: str) -> str:
    return "; ".join(choice for choice in choices if choice)


def _found(model: nn.Module, choices: str, tokens: int, seconds: tuple[float, ...]) -> Found:
    return {
        "n_parameters": n_parameters(model),
        "choices": choices,
        "tokens": tokens,
        "seconds": seconds,
    }
