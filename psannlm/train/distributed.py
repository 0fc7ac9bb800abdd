"""Several ranks under torchrun: who they are, how they share a network, what they gather.

DDP keeps a copy of the network on every rank, FSDP2 a piece; a single process is one rank alone.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from psannlm.config.schema import ConfigError
from psannlm.config.training import Parallel
from psannlm.device import select_device
from psannlm.train.checkpoint import Tensors

WHOLE = state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)
FROM_FIRST = state_dict.StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes files and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """`values` added up over all ranks; the same on each."""
        if self.world > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.world > 1:
            dist.barrier()


@contextlib.contextmanager
def join(device: str) -> Iterator[Ranks]:
    """Take part in what torchrun started, or stand alone where it did not.

    The device is `auto`, `cpu` or `cuda`. ConfigError for more ranks on this machine than GPUs.
    """
    chosen = select_device(device)
    if "RANK" not in os.environ:
        yield Ranks(0, 1, chosen)
        return
    if chosen.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"torchrun started rank {local} here, but there are {torch.cuda.device_count()} "
                "GPUs; start as many processes as GPUs, or set device: cpu"
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
        dist.init_process_group("nccl", device_id=chosen)  # a barrier would else guess the device
    else:
        dist.init_process_group("gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        dist.destroy_process_group()


def refuse_disagreement(ranks: Ranks, facts: Mapping[str, Any]) -> None:
    """Stop all ranks, with the name of the fact, unless each fact is the same on every one."""
    if ranks.world == 1:
        return
    digests = [hashlib.sha256(json.dumps(v, default=str).encode()).digest() for v in facts.values()]
    mine = torch.tensor([list(d) for d in digests], dtype=torch.uint8, device=ranks.device)
    everyone = [torch.empty_like(mine) for _ in range(ranks.world)]
    dist.all_gather(everyone, mine)
    for i, name in enumerate(facts):
        odd = [r for r, theirs in enumerate(everyone) if not torch.equal(theirs[i], everyone[0][i])]
        if odd:
            raise ConfigError(
                f"ranks disagree: {name} of rank {', '.join(map(str, odd))} is not that of rank 0; "
                "start all ranks with the same files and the same software"
            )


def share(
    module: nn.Module, blocks: Sequence[nn.Module], ranks: Ranks, kind: Parallel
) -> nn.Module:
    """`module` as the ranks train it together; its `blocks` FSDP2 gathers one at a time."""
    if ranks.world == 1:
        return module
    if kind == "ddp":
        return DistributedDataParallel(module)
    for part in (*blocks, module):
        fully_shard(part)
    return module


@contextlib.contextmanager
def summing(module: nn.Module, *, last: bool) -> Iterator[None]:
    """Sum gradients over ranks in the last pass of a step only; the passes before stay local."""
    if isinstance(module, DistributedDataParallel) and not last:
        with module.no_sync():
            yield
        return
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    yield


def gather(module: nn.Module, optimizers: Sequence[Optimizer]) -> tuple[Tensors, Tensors]:
    """Whole weights, and whole optimizer tensors as `parameter.tensor`, on the CPU of rank 0."""
    found = state_dict.get_state_dict(module, optimizers, options=WHOLE)
    weights, state = cast("tuple[Tensors, dict[str, Any]]", found)
    parameters = state.get("state", {}).items()  # nothing on other ranks
    return weights, {f"{p}.{name}": t for p, named in parameters for name, t in named.items()}


def scatter(
    module: nn.Module, optimizers: Sequence[Optimizer], weights: Tensors, tensors: Tensors
) -> None:
    """Put what `gather` returned back, whatever the number of ranks was then.

    The optimizers keep their own settings: only their tensors are replaced.
    """
    pieces = isinstance(module, FSDPModule)
    _, fresh = state_dict.get_state_dict(module, optimizers, options=WHOLE if pieces else None)
    state: dict[str, Any] = {}
    for key, tensor in tensors.items():
        parameter, name = key.rsplit(".", 1)
        state.setdefault(parameter, {})[name] = tensor
    state_dict.set_state_dict(
        module,
        optimizers,
        model_state_dict=dict(weights),
        optim_state_dict=fresh | {"state": state} if fresh else {},
        options=FROM_FIRST if pieces else None,
    )


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which FSDP2 leaves each rank a piece."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
