"""A trained network read back with the tokenizer that it was trained with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from psannlm.config.network import ModelConfig
from psannlm.config.parse import parse
from psannlm.model.bases import BASES, build
from psannlm.model.generate import generate
from psannlm.model.sampling import Sampling
from psannlm.model.transformer import Transformer
from psannlm.train import checkpoint
from psannlm.train.checkpoint import CheckpointError
from psannlm.train.tokenizer import Tokenizer

TOKENIZER = "tokenizer.json"
"""Beside the checkpoints of a training."""


@dataclass(frozen=True)
class Pretrained:
    """A network that can be used, in evaluation mode."""

    model: Transformer
    tokenizer: Tokenizer
    about: Mapping[str, Any]
    """What its checkpoint says of itself."""


def load(path: Path, device: torch.device, *, tokenizer: Path | None = None) -> Pretrained:
    """The network of a checkpoint, or of the newest one of a training.

    Args:
        path: Folder of a checkpoint, or of a training.
        device: Where the network is put.
        tokenizer: Its file; found beside the checkpoint if not given.

    Raises:
        ConfigError: There is no checkpoint, it was altered, its weights are not those of the
            network it names, or the tokenizer is not the one it was trained with.
    """
    found = checkpoint.checkpoints(path)
    loaded = checkpoint.load(found[-1] if found else path)
    about, folder = loaded.about, loaded.folder
    spelled = Tokenizer.load(tokenizer or folder.parent / TOKENIZER)
    expected = about["data"]["tokenizer_sha256"]
    if spelled.sha256 != expected:
        raise CheckpointError(
            f"checkpoint {folder} was trained with the tokenizer {expected[:12]}, "
            f"{tokenizer or folder.parent / TOKENIZER} is {spelled.sha256[:12]}; "
            "give the tokenizer.json of the same training"
        )
    source = f"network of {folder}"
    config = parse(ModelConfig, about["network"], source=source, bases=tuple(BASES))
    model = build(config, seed=0, device=device)
    checkpoint.refuse_other(folder, "network", _shapes(loaded.weights), _shapes(model.state_dict()))
    model.load_state_dict(dict(loaded.weights))
    return Pretrained(model.eval(), spelled, about)


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def continuations(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    n_tokens: int,
    sampling: Sampling,
    *,
    seed: int,
) -> list[str]:
    """What follows each prompt, as the start of a document, up to the end of it.

    Args:
        model: In evaluation mode.
        tokenizer: The one it was trained with.
        prompts: Texts.
        n_tokens: Most new tokens of each.
        sampling: How they are chosen.
        seed: Of the choice.

    Raises:
        ConfigError: A prompt with its new tokens is longer than the context.
    """
    starts = [[tokenizer.end_of_text, *tokenizer.encode(prompt)] for prompt in prompts]
    found = generate(
        model,
        starts,
        n_tokens=n_tokens,
        sampling=sampling,
        end_of_text=tokenizer.end_of_text,
        seed=seed,
    )
    return [tokenizer.decode(ids.tolist()) for ids in found]
