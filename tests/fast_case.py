"""The case on which the check of fast paths is tested: small, and with every part of a base."""

from typing import Any

import torch

from psannlm.checks.findings import Case
from psannlm.config import ValidationConfig
from psannlm.model.bases import BASES

SMALL: dict[str, Any] = {
    "preset": "smoke",
    "base": list(BASES),
    "only": [],
    "corpus": "text.txt",
    "batch": 2,
    "precision": ["bf16"],
    "n_seeds": 2,
    "fit_steps": 1,
    "learning_rate": 0.01,
    "compile": False,
    "min_seconds": 0.1,
    "min_steps": 1,
    "timeout_seconds": 10.0,
    "device": "cpu",
    "seed": 0,
    "vocab_size": 32,
    "context_length": 37,
    "d_model": 16,
    "n_layers": 2,
    "n_heads": 2,
    "d_mlp": 24,
    "gate_n_fft": 8,
}


def fast_case(base: str, **changes: Any) -> Case:
    """The case of a base on the CPU; keywords change its configuration."""
    config = ValidationConfig(**SMALL | changes)
    return Case(base=base, config=config, device=torch.device("cpu"))
