"""Broken twins of generation, checkpoints and what several processes share.

A check of several processes keeps what it found for other bases: each twin here empties that, and
gives it back when the patch ends.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from psannlm.checks import ranks, saving
from psannlm.checks.launcher import Results
from psannlm.model import mixers, sampling
from psannlm.model.positions import Rotary
from psannlm.model.sampling import Sampling
from psannlm.model.transformer import Attention
from psannlm.train import checkpoint
from tests.twins import Twin

Damage = Callable[[pytest.MonkeyPatch], None]


def in_the_processes(module: Any, name: str) -> Damage:
    """What `broken_processes` calls by that name, in the processes that the module starts."""

    def damage(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(module, "WORKER", ("tests.broken_processes", name, *module.WORKER))
        patch.setattr(module, "_results", Results())

    return damage


def remembered(change: Callable[[Tensor], Tensor]) -> Damage:
    """Convolutions find their remembered rows, (B, P, D), changed."""
    convolution = mixers.causal_convolution

    def broken(x: Tensor, taps: Tensor, *, past: Any, name: str, **options: Any) -> Tensor:
        if past is not None and name in past:
            past[name] = change(past[name])
        return convolution(x, taps, past=past, name=name, **options)

    return lambda patch: patch.setattr(mixers, "causal_convolution", broken)


def normalised(rows: Tensor) -> Tensor:
    return torch.nn.functional.rms_norm(rows, rows.shape[-1:])


def without_the_oldest(rows: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(rows[:, :1]), rows[:, 1:]], dim=1)


def forget_the_oldest_key(patch: pytest.MonkeyPatch) -> None:
    remember = Attention._remember

    def broken(self: Attention, past: Any, k: Tensor, v: Tensor, position: int) -> Any:
        k, v = remember(self, past, k, v, position)
        return (k[:, :, 1:], v[:, :, 1:]) if position else (k, v)

    patch.setattr(Attention, "_remember", broken)


def turn_one_too_far(patch: pytest.MonkeyPatch) -> None:
    turn = Rotary.forward
    patch.setattr(Rotary, "forward", lambda self, x, at: turn(self, x, at - 1 if at else 0))


def changed_sampling(**change: Callable[[Sampling], Any]) -> Damage:
    probabilities = sampling.probabilities

    def broken(logits: Tensor, asked: Sampling) -> Tensor:
        values = asked.model_dump() | {name: value(asked) for name, value in change.items()}
        return probabilities(logits, Sampling(**values))

    return lambda patch: patch.setattr(sampling, "probabilities", broken)


def one_more_in_the_nucleus(patch: pytest.MonkeyPatch) -> None:
    def broken(probabilities: Tensor, top_p: float) -> Tensor:
        ordered, ids = probabilities.sort(dim=-1, descending=True, stable=True)
        reached = (ordered.cumsum(-1) - ordered < top_p).sum(-1, keepdim=True)
        rank = torch.arange(probabilities.shape[-1], device=probabilities.device)
        kept = torch.zeros_like(probabilities).scatter(-1, ids, ordered.where(rank <= reached, 0.0))
        return kept / kept.sum(-1, keepdim=True)

    patch.setattr(sampling, "_nucleus", broken)


def written(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Damage:
    """A checkpoint's tensors are changed on their way to the file."""
    plain = checkpoint._plain

    def damage(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(checkpoint, "_plain", lambda tensors: change(plain(tensors)))
        patch.setattr(saving, "_results", Results())

    return damage


def rounded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.bfloat16().to(t.dtype) for name, t in tensors.items()}


def without_one(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(list(tensors.items())[:-1])


def with_one_at_its_beginning(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        n: t * 0 + 1 if n.endswith("blocks.0.mlp_norm.weight") else t for n, t in tensors.items()
    }


def trust_every_file(patch: pytest.MonkeyPatch) -> None:
    load = checkpoint.load

    def broken(folder: Path) -> checkpoint.Checkpoint:
        told = checkpoint.read_about(folder)["sha256"]
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(checkpoint, "sha256_of", lambda path: told[path.name])
            return load(folder)

    patch.setattr(checkpoint, "load", broken)
    patch.setattr(saving, "_results", Results())


GENERATION_TWINS = [
    Twin("double normalisation in the gate's memory", "GPU-07", "sgrpsann", remembered(normalised)),
    Twin(
        "double normalisation in the wave's memory", "GPU-07", "waveresnet", remembered(normalised)
    ),
    Twin("gate that forgets the oldest row", "GPU-07", "sgrpsann", remembered(without_the_oldest)),
    Twin(
        "wave that forgets the oldest row", "GPU-07", "waveresnet", remembered(without_the_oldest)
    ),
    Twin("attention that forgets the oldest key", "GPU-07", "transformer", forget_the_oldest_key),
    Twin("wrong rotary offset in decoding", "GPU-07", "respsann", turn_one_too_far),
    Twin(
        "top-k that lets one more token in",
        "GPU-07",
        "respsann",
        changed_sampling(top_k=lambda s: s.top_k + 1),
    ),
    Twin("top-p that lets one more token in", "GPU-07", "respsann", one_more_in_the_nucleus),
    Twin(
        "temperature without effect",
        "GPU-07",
        "transformer",
        changed_sampling(temperature=lambda s: 1.0),
    ),
]
RANK_TWINS = [
    Twin(
        "no gradient averaging across ranks",
        "GPU-05",
        "respsann",
        in_the_processes(ranks, "gradients stay with their rank"),
    ),
    Twin(
        "gradients summed instead of averaged",
        "GPU-05",
        "transformer",
        in_the_processes(ranks, "gradients are summed"),
    ),
    Twin(
        "one parameter left out of the averaging",
        "GPU-05",
        "respsann",
        in_the_processes(ranks, "all but one gradient averaged"),
    ),
    Twin(
        "DDP ranks that see equal batches",
        "GPU-05",
        "respsann",
        in_the_processes(ranks, "equal batches"),
    ),
    Twin(
        "gradients of one pass alone are averaged",
        "GPU-05",
        "transformer",
        in_the_processes(ranks, "gradients of the first pass only"),
    ),
    Twin(
        "FSDP ranks that see equal batches",
        "GPU-06",
        "sgrpsann",
        in_the_processes(ranks, "equal batches"),
    ),
    Twin(
        "gradients summed instead of averaged by FSDP2",
        "GPU-06",
        "waveresnet",
        in_the_processes(ranks, "gradients are summed by FSDP2"),
    ),
]
SAVING_TWINS = [
    Twin("lossy checkpoint", "GPU-08", "respsann", written(rounded)),
    Twin("checkpoint that skips a parameter", "GPU-08", "transformer", written(without_one)),
    Twin(
        "checkpoint with one parameter at its beginning",
        "GPU-08",
        "sgrpsann",
        written(with_one_at_its_beginning),
    ),
    Twin("hashes that nobody looks at", "GPU-08", "respsann", trust_every_file),
    Twin(
        "stale optimizer state on load",
        "GPU-08",
        "waveresnet",
        in_the_processes(saving, "stale optimizer"),
    ),
    Twin(
        "optimizer that forgets its steps",
        "GPU-08",
        "respsann",
        in_the_processes(saving, "optimizer without its count of steps"),
    ),
    Twin(
        "samples that no seed repeats",
        "GPU-08",
        "transformer",
        in_the_processes(saving, "unseeded samples"),
    ),
]
PROCESS_TWINS = [*GENERATION_TWINS, *RANK_TWINS, *SAVING_TWINS]
