"""The published package's side of the comparison: its network by its own interface.

Needs torch alone beside that package, in whose interpreter it is loaded from its file.
Shape letters: B batch, T tokens.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]
SAME = "without options the same network as respsann"
SHAPE = ("vocab_size", "d_model", "n_layers", "n_heads", "d_mlp")


class Published:
    """The network of the package as its constructor gives it, or with fused attention.

    Its `generate` runs over all tokens for each new one; `generate_batch` keeps keys and values.

    Args:
        task: Fields of a SideTask.
        package: The package.
        works: The module of what is measured, which has the plain loss.
    """

    loss = "loss of all logits"

    def __init__(self, task: Mapping[str, Any], package: ModuleType, works: ModuleType) -> None:
        self.task, self.package, self.works = task, package, works
        self.best = task["setting"] == "best"
        network = task["model"]
        shape = {name: network[name] for name in SHAPE}
        changes = {"positional_encoding": network["positions"]}
        if self.best:
            changes["attention_implementation"] = "sdpa"
        config = package.psannLM(base=network["base"], **shape).config
        self.config = dataclasses.replace(config, **changes)
        self.attention = f"{self.config.attention_implementation} attention"
        self.generation = (
            "generate_batch, with memory, greedy by top_k=1 without top_p"
            if self.best
            else "generate, without memory, greedy by top_k=1"
        )
        self.note = SAME if network["base"] == "waveresnet" else ""

    def network(self, *, checkpointing: bool = False) -> nn.Module:
        """The freshly seeded network."""
        torch.manual_seed(self.task["seed"])
        model: nn.Module = self.package.build_lm_model(self.config).model
        if checkpointing:
            enable: Any = model.enable_gradient_checkpointing
            enable()
        return model.to(self.task["device"])

    def loss_of(self, model: nn.Module, *, compiled: bool) -> Loss:
        """Nats of the next token, of all logits at once."""
        precision = self.task["precision"]
        return lambda tokens, targets: self.works.next_token_loss(model, tokens, targets, precision)

    def generator(self, prompt: list[int]) -> Callable[[], int]:
        """Greedy generation by the package's own function, which never sees an end of text."""
        torch.manual_seed(self.task["seed"])
        language = self.package.PSANNLM(config=self.config, device=self.task["device"])
        tokenizer = endless(self.package, prompt)
        language.attach_tokenizer(tokenizer)
        n_tokens = self.task["new_tokens"]

        def continue_it() -> int:
            if self.best:
                language.generate_batch([""], max_new_tokens=n_tokens, top_k=1, top_p=None)
            else:
                language.generate("", max_new_tokens=n_tokens, top_k=1)
            return len(tokenizer.made)

        return continue_it


def endless(package: ModuleType, prompt: list[int]) -> Any:
    """A tokenizer of the package that knows no end of text, and reads `prompt` in every text.

    Its `made` are the token ids that it was last given to write.
    """
    module = importlib.import_module(f"{package.__name__}.lm.data.tokenizer")
    base: Any = module.Tokenizer

    class Endless(base):  # type: ignore[misc]  # known only once the package is
        made: tuple[int, ...] = ()
        eos_id = -1

        def encode(self, text: str, add_specials: bool = True) -> list[int]:
            return list(prompt)

        def decode(self, ids: list[int], skip_specials: bool = True) -> str:
            self.made = tuple(ids)
            return ""

    tokenizer = Endless(module.TokenizerConfig(backend="simple"))
    tokenizer.fit(["a"])
    return tokenizer
