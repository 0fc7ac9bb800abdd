"""Broken twins of generation, checkpoints and what several processes share.

A check of several processes remembers what it found for other bases: each twin here empties that,
and gives it back when the patch ends.
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
from tests.twins import TWINS, Damage, Twin, replacing, seen_by


def in_the_processes(module: Any, name: str) -> Damage:
    """What `broken_processes` calls by that name, in the processes that the module starts."""

    def damage(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(module, "WORKER", ("tests.broken_processes", name, *module.WORKER))
        patch.setattr(module, "_results", Results())

    return damage


def remembered(change: Callable[[Tensor], Tensor]) -> Damage:
    """Convolutions find their remembered rows, (B, P, D), changed."""

    @replacing(mixers, "causal_convolution")
    def broken(right: Any, *given: Tensor, past: Any, name: str, **options: Any) -> Tensor:
        if past is not None and name in past:
            past[name] = change(past[name])
        return right(*given, past=past, name=name, **options)

    return broken


def normalised(rows: Tensor) -> Tensor:
    return torch.nn.functional.rms_norm(rows, rows.shape[-1:])


def without_the_oldest(rows: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(rows[:, :1]), rows[:, 1:]], dim=1)


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


def written(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Damage:
    """A checkpoint's tensors are changed on their way to the file."""

    def damage(patch: pytest.MonkeyPatch) -> None:
        plain = checkpoint._plain
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


@seen_by("GPU-08", "respsann")
def hashes_that_nobody_looks_at(patch: pytest.MonkeyPatch) -> None:
    load = checkpoint.load

    def broken(folder: Path) -> checkpoint.Checkpoint:
        told = checkpoint.read_about(folder)["sha256"]
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(checkpoint, "sha256_of", lambda path: told[path.name])
            return load(folder)

    patch.setattr(checkpoint, "load", broken)
    patch.setattr(saving, "_results", Results())


MADE: list[tuple[str, str, str, Damage]] = [
    ("GPU-07", "sgrpsann", "gate with a memory normalised twice", remembered(normalised)),
    ("GPU-07", "waveresnet", "wave with a memory normalised twice", remembered(normalised)),
    ("GPU-07", "sgrpsann", "gate that forgets the oldest row", remembered(without_the_oldest)),
    ("GPU-07", "waveresnet", "wave that forgets the oldest row", remembered(without_the_oldest)),
    ("GPU-08", "respsann", "lossy checkpoint", written(rounded)),
    ("GPU-08", "transformer", "checkpoint that skips a parameter", written(without_one)),
    ("GPU-08", "sgrpsann", "checkpoint of a fresh parameter", written(with_one_at_its_beginning)),
    *(
        (check, base, name, in_the_processes(saving if check == "GPU-08" else ranks, name))
        for check, base, name in (
            ("GPU-05", "respsann", "gradients stay with their rank"),
            ("GPU-05", "transformer", "gradients are summed"),
            ("GPU-05", "respsann", "all but one gradient averaged"),
            ("GPU-05", "respsann", "equal batches"),
            ("GPU-05", "transformer", "gradients of the first pass only"),
            ("GPU-06", "sgrpsann", "equal batches"),
            ("GPU-06", "waveresnet", "gradients are summed by FSDP2"),
            ("GPU-08", "waveresnet", "stale optimizer"),
            ("GPU-08", "respsann", "optimizer without its count of steps"),
            ("GPU-08", "transformer", "unseeded samples"),
        )
    ),
]
TWINS.extend(Twin(name, check, base, damage) for check, base, name, damage in MADE)
