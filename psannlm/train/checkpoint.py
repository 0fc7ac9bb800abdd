"""Checkpoints: weights, optimizer and place in the training, whole and hashed or not there.

A checkpoint is a folder `step_00000100/` with model.safetensors, optimizer.safetensors and, last,
checkpoint.json, which holds the hashes of both. Nothing in it is ever unpickled.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from psannlm.files import sha256_of
from psannlm.schema import ConfigError

SCHEMA = 1
WEIGHTS, OPTIMIZER, ABOUT = "model.safetensors", "optimizer.safetensors", "checkpoint.json"
NAME = re.compile(r"step_(\d{8})")


class CheckpointError(ConfigError):
    """A checkpoint that cannot be written, or must not be used; names it and the rule it breaks."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back, every hash right."""

    folder: Path
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    about: Mapping[str, Any]
    """Step, network, tokenizer and whatever else the trainer needs to go on."""


def save(
    folder: Path,
    weights: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    about: Mapping[str, Any],
) -> Path:
    """Write a checkpoint below `folder`, named by the step in `about`; returns its own folder.

    Raises:
        CheckpointError: It cannot be written. Older checkpoints are as they were.
    """
    target = folder / f"step_{about['step']:08d}"
    temporary = folder / f".{target.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        for name, tensors in ((WEIGHTS, weights), (OPTIMIZER, optimizer)):
            safetensors.torch.save_file(_plain(tensors), temporary / name)
        hashes = {name: sha256_of(temporary / name) for name in (WEIGHTS, OPTIMIZER)}
        said = {"schema": SCHEMA, **about, "sha256": hashes}
        (temporary / ABOUT).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        _flush(temporary)
        shutil.rmtree(target, ignore_errors=True)  # of the same step, from before a resumption
        temporary.replace(target)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{target.name} cannot be written below {folder}: {error}; older checkpoints there "
            "are whole, and the training can go on from the newest"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def load(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`.

    Raises:
        CheckpointError: It is missing, incomplete, altered, or of an unknown schema.
    """
    about = read_about(folder)
    for name, expected in about["sha256"].items():
        if not (folder / name).is_file():
            raise CheckpointError(f"checkpoint {folder}: {name} is missing")
        if sha256_of(folder / name) != expected:
            raise CheckpointError(
                f"checkpoint {folder}: {name} was altered, its sha256 differs; "
                "take another checkpoint"
            )
    weights, optimizer = (
        safetensors.torch.load_file(folder / name) for name in (WEIGHTS, OPTIMIZER)
    )
    return Checkpoint(folder, weights, optimizer, about)


def read_about(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, its tensors unread.

    Raises:
        CheckpointError: There is none, or it cannot be read.
    """
    path = folder / ABOUT
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        beside = [c.name for c in checkpoints(folder)] or ["none"]
        raise CheckpointError(
            f"{folder} is no checkpoint, it has no {ABOUT}; checkpoints in it: {', '.join(beside)}"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {folder}: {ABOUT} cannot be read: {error}") from None
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        raise CheckpointError(f"checkpoint {folder}: schema must be {SCHEMA}")
    return about


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints below `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if NAME.fullmatch(p.name) and (p / ABOUT).exists())


def prune(folder: Path, *, keep: int, best: int | None) -> None:
    """Remove all checkpoints but the newest `keep` and the one of step `best`."""
    for path in checkpoints(folder)[:-keep]:
        if path.name != f"step_{best or 0:08d}":
            shutil.rmtree(path)


def refuse_other(
    checkpoint: Path, what: str, then: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Refuse a checkpoint made for something else than `now`.

    Raises:
        CheckpointError: Names the first values that differ.
    """
    differing = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    if differing:
        shown = ", ".join(f"{k} {then.get(k)!r} and not {now.get(k)!r}" for k in differing[:3])
        raise CheckpointError(f"checkpoint {checkpoint} has another {what}: {shown}")


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors takes them: on the CPU, each with memory of its own."""
    return {name: t.detach().to("cpu").contiguous().clone() for name, t in tensors.items()}


def _flush(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        with path.open("rb") as written:
            os.fsync(written.fileno())


def torch_states() -> dict[str, Tensor]:
    """States of torch's random generators, by device."""
    states = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["rng.cuda"] = torch.cuda.get_rng_state()
    return states


def restore_torch_states(tensors: Mapping[str, Tensor]) -> None:
    """Set torch's random generators to what `torch_states` found."""
    if "rng.cpu" in tensors:
        torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
