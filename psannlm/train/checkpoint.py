"""Checkpoints: weights, optimizer and place in the training, whole and hashed or not there.

A checkpoint is a folder `step_00000100/` with model.safetensors, optimizer.safetensors and, last,
checkpoint.json, which holds the hashes of both and its own. Nothing in it is ever unpickled.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from psannlm.config.schema import ConfigError
from psannlm.files import sha256_of, texts_sha256

SCHEMA = 1
WEIGHTS, OPTIMIZER, ABOUT = "model.safetensors", "optimizer.safetensors", "checkpoint.json"
# The code that decides what a step does; texts are known by their own hashes.
SOURCES = ("config/*.py", "model/*.py", "train/*.py", "device.py")
NAME = re.compile(r"step_(\d{8})")

Tensors = Mapping[str, Tensor]
Facts = Mapping[str, Any]


class CheckpointError(ConfigError):
    """A checkpoint that cannot be written, or must not be used; names it and the rule it breaks."""


class OtherCodeError(CheckpointError):
    """A checkpoint that other code or software has made."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back, every hash right."""

    folder: Path
    weights: Tensors
    optimizer: Tensors
    about: Facts  # step, network, data and whatever else the trainer needs to go on


def save(folder: Path, weights: Tensors, optimizer: Tensors, about: Facts) -> Path:
    """Write a checkpoint below `folder`, named by the step in `about`; returns its own folder.

    CheckpointError if it cannot be written, or a weight is no number; older ones are as they were.
    """
    target = folder / f"step_{about['step']:08d}"
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise CheckpointError(
                f"{target.name} is not written below {folder}: {name} must be finite numbers, "
                "and is not; lower learning_rate, and go on from an older checkpoint"
            )
    temporary = _temporary(target)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        hashes = {}
        for name, tensors in ((WEIGHTS, weights), (OPTIMIZER, optimizer)):
            # As safetensors takes them: on the CPU, each with memory of its own.
            plain = {k: t.detach().to("cpu").contiguous().clone() for k, t in tensors.items()}
            safetensors.torch.save_file(plain, temporary / name)
            hashes[name] = sha256_of(temporary / name)
        said = {"schema": SCHEMA, **about, "sha256": hashes}
        said["sha256"][ABOUT] = _own_hash(said)
        (temporary / ABOUT).write_text(_spelled(said), encoding="utf-8")
        for path in (*temporary.iterdir(), temporary):
            _flush(path)
        shutil.rmtree(target, ignore_errors=True)  # of the same step, from before a resumption
        temporary.replace(target)
        _flush(folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{target.name} cannot be written below {folder}: {error}; older checkpoints there "
            "are whole, and the training can go on from the newest"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def load(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`; CheckpointError if it is missing, incomplete or altered."""
    about = read_about(folder)
    for name in (WEIGHTS, OPTIMIZER):
        if not (folder / name).is_file():
            raise CheckpointError(f"checkpoint {folder}: {name} is missing")
        if sha256_of(folder / name) != about["sha256"][name]:
            raise _altered(folder, name)
    weights, optimizer = (safetensors.torch.load_file(folder / n) for n in (WEIGHTS, OPTIMIZER))
    return Checkpoint(folder, weights, optimizer, about)


def read_about(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, its tensors unread."""
    try:
        text = (folder / ABOUT).read_text(encoding="utf-8")
        about: dict[str, Any] = json.loads(text)
    except FileNotFoundError:
        beside = [c.name for c in checkpoints(folder)] or ["none"]
        raise CheckpointError(
            f"{folder} is no checkpoint, it has no {ABOUT}; checkpoints in it: {', '.join(beside)}"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {folder}: {ABOUT} cannot be read: {error}") from None
    got = about.get("schema") if isinstance(about, dict) else type(about).__name__
    if got != SCHEMA:
        raise CheckpointError(
            f"checkpoint {folder}: schema of {ABOUT} must be {SCHEMA}, got {got!r}; "
            "read it with the version that wrote it"
        )
    is_spelled, hashes = text == _spelled(about), about.get("sha256")
    own = hashes.pop(ABOUT, None) if isinstance(hashes, dict) else None
    if not is_spelled or own != _own_hash(about):
        raise _altered(folder, ABOUT)
    return about


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints below `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if NAME.fullmatch(p.name) and (p / ABOUT).exists())


def prune(folder: Path, *, keep: int, best: int | None) -> None:
    """Remove all checkpoints but the newest `keep` and the one of step `best`.

    What a killed training left of others goes too. CheckpointError if one cannot be removed.
    """
    try:
        for path in checkpoints(folder)[:-keep]:
            if best is None or path.name != f"step_{best:08d}":
                path.replace(_temporary(path))  # so that no half of it is ever listed
        for path in folder.glob(".step_*.tmp"):
            shutil.rmtree(path)
    except OSError as error:
        raise CheckpointError(
            f"an older checkpoint below {folder} cannot be removed: {error}; remove it, and the "
            "training can go on from the newest"
        ) from None


def made_with() -> dict[str, str]:
    """What a step rests on besides its configuration and its data."""
    package = Path(__file__).parents[1]
    code = texts_sha256(package, (path for name in SOURCES for path in package.glob(name)))
    of_torch = torch.__version__.split("+")[0]  # a training may go on on another device
    return {"code": code[:12], "torch": of_torch, "numpy": np.__version__}


def parts_of(last: Checkpoint | None, *, mixed: bool = False) -> list[dict[str, Any]]:
    """From which step on a training was made with what, if it now goes on after a checkpoint.

    OtherCodeError if that would be with something else, unless the training may be mixed.
    """
    now, step = made_with(), last.about["step"] if last else 0
    before = list(last.about.get("parts", ())) if last else []  # older versions did not say
    shown = differences(before[-1], now, now) if before else ""
    if last and shown and not mixed:
        raise OtherCodeError(
            f"checkpoint {last.folder} was made with {shown}; put that back, train in another "
            "folder, or go on with --mixed, which metrics.json will say"
        )
    return before if before and not shown else [*before, {"from_step": step + 1} | now]


def refuse_other(checkpoint: Path, what: str, then: Facts, now: Facts) -> None:
    """Refuse a checkpoint made for something else than `now`, by the first values that differ."""
    if shown := differences(then, now, {**then, **now}):
        raise CheckpointError(
            f"checkpoint {checkpoint} has another {what}: {shown}; take another checkpoint, or "
            "what this one was made with"
        )


def differences(then: Facts, now: Facts, names: Iterable[str]) -> str:
    """The first values of `names` that differ, for a message; empty if none does."""
    differing = [name for name in names if then.get(name) != now.get(name)]
    return ", ".join(f"{k} {then.get(k)!r} and not {now.get(k)!r}" for k in differing[:3])


def _flush(path: Path) -> None:
    """Until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _spelled(about: Facts) -> str:
    return json.dumps(about, indent=1) + "\n"


def _own_hash(about: Facts) -> str:
    return hashlib.sha256(_spelled(about).encode()).hexdigest()


def _altered(folder: Path, name: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {folder}: {name} was altered, its sha256 differs; take another checkpoint"
    )
