"""A tiny comparison with the published package, and a stand-in for that package."""

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from psannlm.bench import memory, timing, worker
from psannlm.pages.peer import protocol, works
from psannlm.pages.peer.config import PeerConfig
from psannlm.pages.peer.plan import SideTask
from tests import synthetic_peer

TOOLS = SimpleNamespace(timing=timing, memory=memory, worker=worker, works=works, protocol=protocol)


def peer_config(**changes: Any) -> PeerConfig:
    """A comparison of tiny networks in all kinds of work."""
    values: dict[str, Any] = {
        "vocab_size": 24, "context_length": 8, "d_model": 8, "n_layers": 2, "d_mlp": 12,
        "peer": "psannlm==9.9.9", "base": ("respsann", "transformer"), "batch_tokens": 16,
        "work": ("forward", "train_step", "generate", "saved"), "prompt_tokens": 3,
        "new_tokens": 5, "protocol_batch_tokens": (), "n_repeats": 2, "min_seconds": 1e-6,
        "learning_rate": 0.01,
    }  # fmt: skip
    return synthetic_peer.peer_config(**values | changes)


def side_task(**changes: Any) -> dict[str, Any]:
    """Fields of a task, as its process reads them."""
    config = peer_config()
    values: dict[str, Any] = {
        "python": "", "model": config.network_of(changes.pop("base", "respsann")).model_dump(),
        "batch": 2, "tokens": 8, "setting": "defaults", "precision": "fp32", "prompt_tokens": 3,
        "new_tokens": 5, "device": "cpu", "min_seconds": 1e-6, "min_steps": 2,
        "learning_rate": 0.01, "seed": 0, "modes": ("forward",),
    }  # fmt: skip
    return vars(SideTask(**values | changes))


@dataclass(frozen=True)
class Config:
    base: str
    shape: tuple[tuple[str, int], ...]
    positional_encoding: str = "rope"
    attention_implementation: str = "math"


class Network(nn.Module):
    """An embedding and a head, in the place of the package's network."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        shape = dict(config.shape)
        self.config, self.checkpointed = config, False
        self.embedding = nn.Embedding(shape["vocab_size"], shape["d_model"])
        self.head = nn.Linear(shape["d_model"], shape["vocab_size"], bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embedding(tokens))
        return logits

    def enable_gradient_checkpointing(self) -> None:
        self.checkpointed = True


class Tokenizer:
    """One whose texts end: a stand-in for what the package offers."""

    eos_id = 0

    def __init__(self, config: Any) -> None:
        self.texts: list[str] = []

    def fit(self, texts: list[str]) -> None:
        self.texts = texts


class Language:
    """Writes as many tokens as it is asked for, unless one ends the text."""

    def __init__(self, *, config: Config, device: str) -> None:
        self.config, self.asked = config, []

    def attach_tokenizer(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def generate(self, prompt: str, *, max_new_tokens: int, **options: Any) -> str:
        self.asked.append(("generate", options))
        ids = []
        for position in range(max_new_tokens):
            if position == self.tokenizer.eos_id:
                break
            ids.append(position)
        assert self.tokenizer.encode(prompt)
        return self.tokenizer.decode(ids)

    def generate_batch(self, prompts: list[str], **options: Any) -> list[str]:
        text = [self.generate(prompt, **options) for prompt in prompts]
        self.asked[-1] = ("generate_batch", self.asked[-1][1])
        return text


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str = "stand_in_package") -> ModuleType:
    """A package with the published one's interface; `made` of it are its languages."""
    package: Any = ModuleType(name)
    package.made = []

    def named(base: str, **shape: int) -> SimpleNamespace:
        if base not in ("respsann", "waveresnet", "transformer"):
            raise ValueError(f"no architecture {base!r}")
        return SimpleNamespace(config=Config(base, tuple(shape.items())))

    def language(**options: Any) -> Language:
        package.made.append(Language(**options))
        return package.made[-1]

    package.psannLM = named
    package.PSANNLM = language
    package.build_lm_model = lambda config: SimpleNamespace(model=Network(config))
    tokenizers: Any = ModuleType(f"{name}.lm.data.tokenizer")
    tokenizers.Tokenizer = Tokenizer
    tokenizers.TokenizerConfig = lambda **options: options
    for full in (name, f"{name}.lm", f"{name}.lm.data"):
        parent = package if full == name else ModuleType(full)
        parent.__path__ = []
        monkeypatch.setitem(sys.modules, full, parent)
    monkeypatch.setitem(sys.modules, tokenizers.__name__, tokenizers)
    return package


def text_of(task: dict[str, Any]) -> Tensor:
    """The batch (B, T + 1) by another way."""
    generator = torch.Generator().manual_seed(task["seed"])
    return torch.randint(
        task["model"]["vocab_size"], (task["batch"], task["tokens"] + 1), generator=generator
    )
