"""Cases for checks: networks small enough for a test, on real text."""

from typing import Any

import torch

from psannlm.checks.findings import Case, Result
from psannlm.config import ValidationConfig

VALIDATION: dict[str, Any] = {
    "vocab_size": 257,
    "context_length": 64,
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 2,
    "d_mlp": 64,
    "gate_n_fft": 16,
    "preset": "smoke",
    "base": ("respsann", "sgrpsann", "waveresnet", "transformer"),
    "only": (),
    "corpus": "datasets/lm/sample.txt",
    "batch": 2,
    "precision": ("bf16",),
    "n_seeds": 2,
    "fit_steps": 30,
    "compile": False,
    "learning_rate": 0.005,
    "min_seconds": 0.02,
    "min_steps": 3,
    "timeout_seconds": 60,
    "device": "cpu",
    "seed": 0,
}


def case_of(base: str, **changes: Any) -> Case:
    """A case on the CPU; keywords override what is configured."""
    config = ValidationConfig(**VALIDATION | changes)
    return Case(base=base, config=config, device=torch.device("cpu"))


def failed(result: Result) -> list[str]:
    """What a check found wrong: the measures beyond their bounds, in words."""
    return [
        f"{m.name}: {m.value:.3g}, bound {m.bound:.3g}" for m in result.measures if not m.passed
    ]
