"""Checks for tests: a small network, real text, and a check made of it."""

from typing import Any

import torch

from psannlm.checks.findings import Case, Result
from psannlm.config import ValidationConfig

BASES = ("respsann", "sgrpsann", "waveresnet", "transformer")


def validation_config(**changes: Any) -> ValidationConfig:
    """What a validation is asked, of a network of some thousand weights; keywords override."""
    values: dict[str, Any] = {
        "preset": "smoke",
        "base": BASES,
        "only": (),
        "corpus": "datasets/lm/sample.txt",
        "vocab_size": 257,
        "context_length": 32,
        "d_model": 16,
        "n_layers": 2,
        "n_heads": 2,
        "d_mlp": 24,
        "gate_n_fft": 8,
        "batch": 2,
        "precision": "bf16",
        "n_seeds": 1,
        "fit_steps": 200,
        "compile": False,
        "learning_rate": 0.01,
        "min_seconds": 0.1,
        "min_steps": 3,
        "timeout_seconds": 120.0,
        "device": "cpu",
        "seed": 0,
    }
    return ValidationConfig(**values | changes)


def case_of(base: str, **changes: Any) -> Case:
    """A case on the CPU; keywords change its configuration."""
    config = validation_config(**{"base": base, **changes})
    return Case(base=base, config=config, device=torch.device("cpu"))


def broken_measures(result: Result) -> list[str]:
    """First words of the measures that are out of bounds."""
    return [measure.name for measure in result.measures if not measure.passed]
