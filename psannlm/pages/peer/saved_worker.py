"""What the published package's network keeps for backward: a script for an interpreter of its own.

It sees no module of this project, whose package has the same name; `saved.py`, which counts, is
loaded from its file.
Shape letters: B batch, T tokens, V vocabulary.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SAVED = Path(__file__).resolve().parents[2] / "bench" / "saved.py"
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def measure(task: dict[str, Any], package: ModuleType, counter: ModuleType) -> dict[str, Any]:
    """Count the bytes that one training step keeps.

    Args:
        task: Fields of a PeerTask.
        package: The module that has the network and its configuration.
        counter: The module that counts.
    """
    device = torch.device(task["device"])
    torch.manual_seed(task["seed"])
    model = network(task, package).to(device).train()
    text = torch.randint(task["vocab_size"], (task["batch"], task["tokens"] + 1)).to(device)
    with counter.saved_for_backward(model.parameters()) as saved:
        loss_of(model, text, DTYPES[task["precision"]])
    return {
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "saved_bytes": saved.total,
        "saved_kinds": dict(saved.kinds),
    }


def network(task: dict[str, Any], package: ModuleType) -> nn.Module:
    """The package's respsann with rotary positions and fused attention."""
    shape = {name: task[name] for name in ("vocab_size", "d_model", "n_layers", "n_heads", "d_mlp")}
    config = package.ResPSANNTransformerConfig(
        **shape, positional_encoding="rope", attn_impl="sdpa"
    )
    model: nn.Module = package.ResPSANNTransformer(config)
    return model


def loss_of(model: nn.Module, text: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Cross-entropy of each token given those before it, from text (B, T + 1)."""
    return next_token_loss(model, text[:, :-1], text[:, 1:], dtype)


def next_token_loss(
    model: nn.Module, tokens: Tensor, targets: Tensor, dtype: torch.dtype | None
) -> Tensor:
    """Cross-entropy of the float32 logits of the whole batch; both are (B, T)."""
    with torch.autocast(tokens.device.type, dtype, enabled=dtype is not None):
        logits = model(tokens)  # (B, T, V)
    return cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def from_file(path: Path) -> ModuleType:
    """A module by the path of its source."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is no module")
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(task_path: Path, result_path: Path) -> None:
    """Measure, after making sure that it is the other package."""
    task = json.loads(task_path.read_text(encoding="utf-8"))
    found = Path(str(importlib.import_module("psannlm").__file__)).resolve()
    if not found.is_relative_to(Path(sys.prefix).resolve()):
        raise ImportError("the package that was imported is not the one that was installed")
    package = importlib.import_module("psannlm.lm.models.transformer_respsann")
    counted = measure(task, package, from_file(SAVED))
    version = importlib.metadata.version("psannlm")
    row = {"mode": task["modes"][0], "status": "ok", "reason": "", "version": version} | counted
    result_path.write_text(json.dumps(row) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
