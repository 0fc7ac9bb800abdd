"""The script that counts another package's network, on a stand-in for that package."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from psannlm.bench import saved
from psannlm.pages.peer import saved_worker as peer_worker

TASK = {
    "vocab_size": 11,
    "d_model": 4,
    "n_layers": 2,
    "n_heads": 2,
    "d_mlp": 6,
    "batch": 2,
    "tokens": 5,
    "precision": "fp32",
    "device": "cpu",
    "seed": 0,
}


@dataclass
class Config:
    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    d_mlp: int
    positional_encoding: str
    attn_impl: str


class Network(nn.Module):
    """An embedding and a head, which remembers how it was asked for."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embedding(tokens))
        return logits


PACKAGE = SimpleNamespace(ResPSANNTransformerConfig=Config, ResPSANNTransformer=Network)


def test_the_network_has_the_shape_rotary_positions_and_fused_attention():
    config = peer_worker.network(TASK, PACKAGE).config

    shape = {name: TASK[name] for name in ("vocab_size", "d_model", "n_layers", "n_heads", "d_mlp")}
    assert config == Config(**shape, positional_encoding="rope", attn_impl="sdpa")


def test_kept_bytes_are_those_of_the_whole_step_without_parameters():
    found = peer_worker.measure(TASK, PACKAGE, saved)

    text, embedded, log_chances = 2 * 6 * 8, 2 * 5 * 4 * 4, 2 * 5 * 11 * 4
    # Besides, the targets in one piece and the sum of their weights.
    assert found["saved_bytes"] == text + embedded + log_chances + 2 * 5 * 8 + 4
    assert found["saved_bytes"] == sum(found["saved_kinds"].values())
    assert found["n_parameters"] == 2 * 11 * 4


def test_half_precision_is_that_of_autocast():
    kinds = peer_worker.measure(TASK | {"precision": "bf16"}, PACKAGE, saved)["saved_kinds"]

    assert any(kind.startswith("bfloat16") for kind in kinds)


def test_labels_are_the_tokens_that_follow():
    text = torch.tensor([[3, 1, 4, 1, 5]])

    def knows_the_next(tokens: Tensor) -> Tensor:
        return 50.0 * nn.functional.one_hot(text[:, 1:], 11).float()

    assert peer_worker.loss_of(knows_the_next, text, None).item() < 1e-6


def test_the_counter_is_loaded_from_its_file_alone(monkeypatch):
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    path = Path(saved.__file__)

    loaded = peer_worker.from_file(path)

    assert loaded is not saved
    assert loaded.__name__ == "saved"
    # In the other interpreter there is nothing of ours to import.
    assert not [line for line in path.read_text().splitlines() if "import psannlm" in line]
    assert "from psannlm" not in path.read_text() + Path(peer_worker.__file__).read_text()


def test_our_own_package_is_never_taken_for_the_other(tmp_path):
    (tmp_path / "task").write_text('{"modes": ["saved"]}')

    with pytest.raises(ImportError, match="not the one that was installed"):
        peer_worker.main(tmp_path / "task", tmp_path / "result")

    assert not (tmp_path / "result").exists()
