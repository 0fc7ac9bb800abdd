"""Broken twins of generation, checkpoints and what several processes share."""

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.debugging_hooks import noop_hook
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from psannlm.checks import networks, ranks, saving
from psannlm.model import generate, mixers, sampling
from psannlm.model.positions import Rotary
from psannlm.model.sampling import Sampling
from psannlm.model.transformer import Attention
from psannlm.train import checkpoint
from tests.twins import Damage, replacing, seen_by

IN_PROCESSES: dict[str, Damage] = {}
"""What is broken in new processes, by the name of the function that breaks it."""


def broken_work(name: str, module: str, *given: Any) -> Any:
    """What a new process of a check does with something broken in it."""
    IN_PROCESSES[name](pytest.MonkeyPatch())
    return importlib.import_module(module).work(*given)


def in_processes_of(module: Any) -> Callable[[Damage], Damage]:
    """Let a damage be done in the processes that the module of a check starts."""

    def moved(inner: Damage) -> Damage:
        def damage(patch: pytest.MonkeyPatch) -> None:
            work = functools.partial(broken_work, inner.__name__, module.__name__)
            patch.setattr(module, "work", work)

        IN_PROCESSES[inner.__name__] = inner
        damage.__name__ = inner.__name__
        return damage

    return moved


def remembering(change: Callable[[Tensor], Tensor]) -> Damage:
    """Convolutions find the rows that they remember, (B, P, D), changed."""

    @replacing(mixers, "causal_convolution")
    def broken(right: Any, *given: Tensor, past: Any, name: str, **options: Any) -> Tensor:
        if past is not None and name in past:
            past[name] = change(past[name])
        return right(*given, past=past, name=name, **options)

    return broken


@seen_by("GPU-07", "sgrpsann")
@seen_by("GPU-07", "waveresnet")
def filter_with_a_memory_normalised_twice(patch: pytest.MonkeyPatch) -> None:
    remembering(lambda rows: nn.functional.rms_norm(rows, rows.shape[-1:]))(patch)


@seen_by("GPU-07", "sgrpsann")
@seen_by("GPU-07", "waveresnet")
def filter_that_forgets_the_oldest_row(patch: pytest.MonkeyPatch) -> None:
    remembering(lambda rows: nn.functional.pad(rows[:, 1:], (0, 0, 1, 0)))(patch)


@seen_by("GPU-07", "transformer")
@replacing(Attention, "_remember")
def attention_that_forgets_the_oldest_key(right: Any, *given: Any) -> tuple[Tensor, Tensor]:
    k, v = right(*given)
    return (k[:, :, 1:], v[:, :, 1:]) if given[-1] else (k, v)


@seen_by("GPU-07", "respsann")
@replacing(Rotary, "forward")
def wrong_rotary_offset_in_decoding(right: Any, rotary: Rotary, x: Tensor, position: int) -> Tensor:
    return right(rotary, x, position - 1 if position else 0)


@seen_by("GPU-07", "respsann")
@replacing(sampling, "probabilities")
def top_k_that_lets_one_more_token_in(right: Any, logits: Tensor, asked: Sampling) -> Tensor:
    return right(logits, Sampling(**asked.model_dump() | {"top_k": asked.top_k + 1}))


@seen_by("GPU-07", "transformer")
@replacing(sampling, "probabilities")
def temperature_without_effect(right: Any, logits: Tensor, asked: Sampling) -> Tensor:
    return right(logits, Sampling(**asked.model_dump() | {"temperature": 1.0}))


@seen_by("GPU-07", "respsann")
@replacing(sampling, "_nucleus")
def top_p_that_lets_one_more_token_in(_: Any, probabilities: Tensor, top_p: float) -> Tensor:
    ordered, ids = probabilities.sort(dim=-1, descending=True, stable=True)
    reached = (ordered.cumsum(-1) - ordered < top_p).sum(-1, keepdim=True)
    rank = torch.arange(probabilities.shape[-1], device=probabilities.device)
    inside = torch.zeros_like(probabilities).scatter(-1, ids, ordered.where(rank <= reached, 0.0))
    return inside / inside.sum(-1, keepdim=True)


@seen_by("GPU-05", "respsann")
@in_processes_of(ranks)
@replacing(ranks, "share")
def gradients_stay_with_their_rank(share: Any, *given: Any) -> nn.Module:
    module = share(*given)
    module.register_comm_hook(None, noop_hook)
    return module


@seen_by("GPU-05", "transformer")
@in_processes_of(ranks)
@replacing(ranks, "share")
def gradients_are_summed(share: Any, *given: Any) -> nn.Module:
    def summed(_: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        work = dist.all_reduce(bucket.buffer(), async_op=True)
        return work.get_future().then(lambda future: future.value()[0])

    module = share(*given)
    module.register_comm_hook(None, summed)
    return module


@seen_by("GPU-05", "respsann")
@in_processes_of(ranks)
@replacing(ranks, "share")
def all_but_one_gradient_averaged(share: Any, module: nn.Module, *others: Any) -> nn.Module:
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
        module, ["model.blocks.1.alpha"]
    )
    return share(module, *others)


@seen_by("GPU-06", "waveresnet")
@in_processes_of(ranks)
@replacing(ranks, "share")
def gradients_are_summed_by_FSDP2(share: Any, *given: Any) -> nn.Module:
    module = share(*given)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)
    return module


@seen_by("GPU-05", "transformer")
@in_processes_of(ranks)
@replacing(networks, "summing")
def gradients_of_the_first_pass_only(summing: Any, module: nn.Module, *, last: bool) -> Any:
    return summing(module, last=not last)


@seen_by("GPU-05", "respsann")
@seen_by("GPU-06", "sgrpsann")
@in_processes_of(ranks)
@replacing(ranks, "steps_of")
def equal_batches(steps_of: Any, config: Any, rank: int) -> Any:
    return steps_of(config, 0)


@seen_by("GPU-08", "respsann")
@replacing(safetensors.torch, "save_file")
def lossy_checkpoint(save: Any, tensors: Any, path: Path) -> None:
    save({name: t.bfloat16().to(t.dtype) for name, t in tensors.items()}, path)


@seen_by("GPU-08", "transformer")
@replacing(safetensors.torch, "save_file")
def checkpoint_that_skips_a_parameter(save: Any, tensors: Any, path: Path) -> None:
    save(dict(list(tensors.items())[:-1]), path)


@seen_by("GPU-08", "sgrpsann")
@replacing(safetensors.torch, "save_file")
def checkpoint_of_a_fresh_parameter(save: Any, tensors: Any, path: Path) -> None:
    fresh = "blocks.0.mlp_norm.weight"
    save({n: t * 0 + 1 if n.endswith(fresh) else t for n, t in tensors.items()}, path)


@seen_by("GPU-08", "respsann")
@replacing(checkpoint, "load")
def hashes_that_nobody_looks_at(load: Any, folder: Path) -> checkpoint.Checkpoint:
    told = checkpoint.read_about(folder)["sha256"]
    with pytest.MonkeyPatch.context() as inner:
        inner.setattr(checkpoint, "sha256_of", lambda path: told[path.name])
        return load(folder)


@seen_by("GPU-08", "waveresnet")
@in_processes_of(saving)
@replacing(saving, "scatter")
def stale_optimizer(_: Any, module: nn.Module, optimizers: Any, weights: Any, __: Any) -> None:
    module.load_state_dict(weights)


@seen_by("GPU-08", "respsann")
@in_processes_of(saving)
@replacing(saving, "scatter")
def optimizer_without_its_count_of_steps(scatter: Any, *given: Any) -> None:
    *others, tensors = given
    scatter(*others, {n: t * 0 if n.endswith(".step") else t for n, t in tensors.items()})


@seen_by("GPU-08", "transformer")
@in_processes_of(saving)
@replacing(generate, "_uniform_numbers")
def unseeded_samples(_: Any, lengths: list[int], n_tokens: int, seed: int) -> Tensor:
    return torch.rand(len(lengths), max(lengths) + n_tokens, dtype=torch.float64)
