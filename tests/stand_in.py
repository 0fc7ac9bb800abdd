"""A stand-in for the published package: its interface, around an embedding and a head."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

from torch import Tensor, nn


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
    """One whose texts end."""

    eos_id = 0

    def __init__(self, config: Any) -> None:
        self.texts: list[str] = []

    def fit(self, texts: list[str]) -> None:
        self.texts = texts


class PSANNLM:
    """Writes as many tokens as it is asked for, unless one ends the text."""

    asked: ClassVar[list[tuple[str, Config, dict[str, Any]]]] = []

    def __init__(self, *, config: Config, device: str) -> None:
        self.config = config

    def attach_tokenizer(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def generate(self, prompt: str, **options: Any) -> None:
        self._write("generate", prompt, **options)

    def generate_batch(self, prompts: list[str], **options: Any) -> None:
        self._write("generate_batch", *prompts, **options)

    def _write(self, how: str, prompt: str, *, max_new_tokens: int, **options: Any) -> None:
        self.asked.append((how, self.config, options))
        assert self.tokenizer.encode(prompt)
        ends = self.tokenizer.eos_id in range(max_new_tokens)
        self.tokenizer.decode(range(self.tokenizer.eos_id if ends else max_new_tokens))


def psannLM(base: str, **shape: int) -> SimpleNamespace:
    if base not in ("respsann", "waveresnet", "transformer"):
        raise ValueError(f"no architecture {base!r}")
    return SimpleNamespace(config=Config(base, tuple(shape.items())))


def build_lm_model(config: Config) -> SimpleNamespace:
    return SimpleNamespace(model=Network(config))
