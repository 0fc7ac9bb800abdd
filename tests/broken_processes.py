"""A process of a check with something broken in it.

`python -m tests.broken_processes NAME MODULE FOLDER` breaks what NAME says and then does what
`python -m MODULE FOLDER` would.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from psannlm.checks import ranks, saving, training_runs
from psannlm.model import generate
from psannlm.train import distributed

share = ranks.share
steps_of = ranks.steps_of


def shared_and_then(change: Callable[[Any], object]) -> None:
    """Change what a network is shared as."""

    def broken(*arguments: Any) -> nn.Module:
        module = share(*arguments)
        change(module)
        return module

    ranks.share = broken


def hooked(hook: Callable[[Any, Any], Any]) -> None:
    shared_and_then(lambda module: module.register_comm_hook(None, hook))


def unaveraged(_: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    future: torch.futures.Future[Tensor] = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


def summed(_: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


def all_but_one_averaged() -> None:
    def broken(module: nn.Module, *others: Any) -> nn.Module:
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
            module, ["model.blocks.1.alpha"]
        )
        return share(module, *others)

    ranks.share = broken


def summed_by_fsdp() -> None:
    def change(module: nn.Module) -> None:
        for part in module.modules():
            if isinstance(part, FSDPModule):
                part.set_gradient_divide_factor(1.0)
                part.set_force_sum_reduction_for_comms(True)

    shared_and_then(change)


def first_pass_only() -> None:
    summing = distributed.summing
    training_runs.summing = lambda module, last: summing(module, last=not last)


def equal_batches() -> None:
    ranks.steps_of = lambda config, rank: steps_of(config, 0)


def stale_optimizer() -> None:
    def broken(module: Any, optimizers: Any, weights: Any, tensors: Any) -> None:
        module.load_state_dict(weights)

    saving.scatter = broken


def optimizer_without_steps() -> None:
    scatter = saving.scatter

    def broken(module: Any, optimizers: Any, weights: Any, tensors: Any) -> None:
        zeroed = {n: t * 0 if n.endswith(".step") else t for n, t in tensors.items()}
        scatter(module, optimizers, weights, zeroed)

    saving.scatter = broken


def unseeded_samples() -> None:
    def broken(lengths: list[int], n_tokens: int, seed: int) -> Tensor:
        return torch.rand(len(lengths), max(lengths) + n_tokens, dtype=torch.float64)

    generate._uniform_numbers = broken


DAMAGES: Mapping[str, Callable[[], None]] = {
    "gradients stay with their rank": lambda: hooked(unaveraged),
    "gradients are summed": lambda: hooked(summed),
    "all but one gradient averaged": all_but_one_averaged,
    "gradients are summed by FSDP2": summed_by_fsdp,
    "gradients of the first pass only": first_pass_only,
    "equal batches": equal_batches,
    "stale optimizer": stale_optimizer,
    "optimizer without its count of steps": optimizer_without_steps,
    "unseeded samples": unseeded_samples,
}


def main(name: str, module: str, folder: str) -> None:
    """Break it, and go on as if nothing were."""
    DAMAGES[name]()
    importlib.import_module(module).main(Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
