"""A trained network read back with its tokenizer, and what it has learned."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from psannlm.config.network import ModelConfig
from psannlm.config.parse import parse
from psannlm.model.bases import BASES, build
from psannlm.model.generate import generate
from psannlm.model.sampling import Sampling
from psannlm.model.sine import DampedSine
from psannlm.model.transformer import GeluScaled, Transformer
from psannlm.train import checkpoint
from psannlm.train.checkpoint import CheckpointError
from psannlm.train.tokenizer import Tokenizer

TOKENIZER = "tokenizer.json"  # beside the checkpoints of a training
# Learned parameters of the damped sine, by the letter of the formula.
PARTS = {"amplitude": "A", "frequency": "f", "decay": "d"}
LOW, HIGH = 0.05, 0.95  # quantiles between which most features lie


@dataclass(frozen=True)
class Pretrained:
    """A network that can be used, in evaluation mode."""

    model: Transformer
    tokenizer: Tokenizer
    about: Mapping[str, Any]  # what its checkpoint says of itself


def load(path: Path, device: torch.device, *, tokenizer: Path | None = None) -> Pretrained:
    """The network of a checkpoint, or of the newest one of a training.

    The tokenizer lies beside the checkpoints if its file is not given. ConfigError if there is no
    checkpoint, it was altered, its weights are not those of the network that it names, or the
    tokenizer is not the one it was trained with.
    """
    found = checkpoint.checkpoints(path)
    loaded = checkpoint.load(found[-1] if found else path)
    about, folder = loaded.about, loaded.folder
    path = tokenizer or folder.parent / TOKENIZER
    spelled = Tokenizer.load(path)
    expected = about["data"]["tokenizer_sha256"]
    if spelled.sha256 != expected:
        raise CheckpointError(
            f"checkpoint {folder} was trained with the tokenizer {expected[:12]}, {path} is "
            f"{spelled.sha256[:12]}; give the tokenizer.json of the same training"
        )
    source = f"network of {folder}"
    config = parse(ModelConfig, about["network"], source=source, bases=tuple(BASES))
    model = build(config, seed=0, device=device)
    checkpoint.refuse_other(folder, "network", _shapes(loaded.weights), _shapes(model.state_dict()))
    model.load_state_dict(dict(loaded.weights))
    return Pretrained(model.eval(), spelled, about)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
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
    """What follows each prompt, as the start of a document, up to its end or `n_tokens` new tokens.

    From a network in evaluation mode; ConfigError if a prompt and they exceed the context.
    """
    end = tokenizer.end_of_text
    starts = [[end, *tokenizer.encode(prompt)] for prompt in prompts]
    found = generate(
        model, starts, n_tokens=n_tokens, sampling=sampling, end_of_text=end, seed=seed
    )
    return [tokenizer.decode(ids.tolist()) for ids in found]


@dataclass(frozen=True)
class LearnedNonlinearity:
    """The parameters of one nonlinearity, before a training and after it."""

    layer: str  # as people call it: `0 mlp`, and `0 wave` where there is such a block
    kind: type[DampedSine] | type[GeluScaled]
    before: dict[str, Tensor]  # those of PARTS that it has, each (features,), on the CPU
    after: dict[str, Tensor]


def nonlinearities(before: Transformer, after: Transformer) -> Iterator[LearnedNonlinearity]:
    """Every nonlinearity that has parameters, layer by layer, before and after a training."""
    for (name, old), new in zip(before.named_modules(), after.modules(), strict=True):
        if isinstance(old, DampedSine | GeluScaled):
            _, number, part, _ = name.split(".")
            yield LearnedNonlinearity(f"{number} {part}", type(old), _values(old), _values(new))


def _values(module: object) -> dict[str, Tensor]:
    found = {part: getattr(module, part, None) for part in PARTS}
    return {part: v.detach().cpu() for part, v in found.items() if v is not None}
