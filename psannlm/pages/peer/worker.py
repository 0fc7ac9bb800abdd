"""One side of the comparison in a process of its own: a script for either package's interpreter.

Both packages have one name, and an interpreter sees one of them. What both sides share is loaded
from its file: it needs torch alone.
"""

import dataclasses
import importlib
import importlib.util
import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

PACKAGE = Path(__file__).resolve().parents[2]
MODULES = ("train/compilation.py", "bench/timing.py", "bench/worker.py", "pages/peer/works.py")
SHARED = tuple(PACKAGE / name for name in MODULES)
SHAPE = ("vocab_size", "d_model", "n_layers", "n_heads", "d_mlp")


class Published:
    """The network of the package as its constructor gives it, or with fused attention.

    Its `generate` runs over all tokens for each new one; `generate_batch` keeps keys and values.
    The plain loss is that of `works`, the module of what is measured.
    """

    loss = "loss of all logits"

    def __init__(self, task: Mapping[str, Any], package: ModuleType, works: ModuleType) -> None:
        self.task, self.package, self.works = task, package, works
        self.best = task["setting"] == "best"
        network = task["model"]
        config = package.psannLM(base=network["base"], **{n: network[n] for n in SHAPE}).config
        changes = {"positional_encoding": network["positions"]}
        if self.best:
            changes["attention_implementation"] = "sdpa"
        self.config = dataclasses.replace(config, **changes)
        self.attention = f"{self.config.attention_implementation} attention"
        self.generation = (
            "generate_batch, with memory, greedy by top_k=1 without top_p"
            if self.best
            else "generate, without memory, greedy by top_k=1"
        )
        same = "without options the same network as respsann"
        self.note = same if network["base"] == "waveresnet" else ""

    def network(self, *, checkpointing: bool = False) -> nn.Module:
        torch.manual_seed(self.task["seed"])
        model: nn.Module = self.package.build_lm_model(self.config).model
        if checkpointing:
            enable: Any = model.enable_gradient_checkpointing
            enable()
        return model.to(self.task["device"])

    def loss_of(self, model: nn.Module, *, compiled: bool) -> Callable[[Tensor, Tensor], Tensor]:
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


def load(path: Path) -> ModuleType:
    """A module by its file, without the package around it."""
    spec: Any = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def side_of(task: Mapping[str, Any], works: ModuleType) -> Any:
    """The side of the task; raises ImportError if its package is not the one that was meant."""
    package = importlib.import_module("psannlm")
    found = Path(str(package.__file__)).resolve()
    if not task["python"]:
        if found.parent != PACKAGE:
            raise ImportError("the package that was imported is not ours")
        return importlib.import_module("psannlm.pages.peer.ours").Ours(task)
    if not found.is_relative_to(Path(sys.prefix).resolve()):
        raise ImportError("the package that was imported is not the one that was installed")
    return Published(task, package, works)


def main(arguments: Sequence[str]) -> None:
    """Measure every work of the task; see `measure_modes`."""
    warnings.simplefilter("ignore")
    task_path, result_path = map(Path, arguments)
    task = json.loads(task_path.read_text(encoding="utf-8"))
    tools: Any = SimpleNamespace(**{path.stem: load(path) for path in SHARED})

    def measure(mode: str) -> dict[str, Any]:
        found: dict[str, Any] = tools.works.MODES[mode](side_of(task, tools.works), tools)
        return found

    tools.worker.measure_modes(task["modes"], measure, result_path)


if __name__ == "__main__":
    main(sys.argv[1:])
