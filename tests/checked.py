"""Cases for checks: networks of some thousand weights, on real text, that every check passes."""

from typing import Any

import pytest
import torch

from psannlm.checks.findings import Case, Result, ValidationConfig

# Warnings about what torch's compiler itself does.
compiles = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script_method. is deprecated:DeprecationWarning",
    "ignore:.*Function'> should not be instantiated:DeprecationWarning",
)

BASES = ("respsann", "sgrpsann", "waveresnet", "transformer")
SHAPE = {"vocab_size": 257, "context_length": 32, "d_model": 16, "d_mlp": 24, "gate_n_fft": 8}


def validation_config(**changes: Any) -> ValidationConfig:
    """What a validation of all bases is asked; keywords change it."""
    values: dict[str, Any] = {**SHAPE, "n_layers": 2, "n_heads": 2, "batch": 2, "device": "cpu"}
    values |= {"preset": "smoke", "base": BASES, "only": (), "corpus": "datasets/lm/sample.txt"}
    values |= {"precision": "bf16", "n_seeds": 2, "seed": 0, "compile": False}
    values |= {"fit_steps": 200, "learning_rate": 0.01, "timeout_seconds": 120.0}
    values |= {"min_seconds": 0.02, "min_steps": 3}
    return ValidationConfig(**values | changes)


def case_of(base: str, **changes: Any) -> Case:
    """The case of one base alone, on the CPU; keywords change what is asked."""
    config = validation_config(**{"base": base, **changes})
    return Case(base=base, config=config, device=torch.device("cpu"))


def failed(result: Result) -> dict[str, str]:
    """Measures beyond their bounds, by name: the value and the bound."""
    return {m.name: f"{m.value:.3g}, {m.bound:.3g}" for m in result.measures if not m.passed}
