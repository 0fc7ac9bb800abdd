"""Each broken twin is seen by the check that has to see it, and what is sound passes every check.

Processes of checks, sound and broken, are started here.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from psannlm.checks import suite
from psannlm.model import blockwise
from psannlm.pages.validation import prose as validation_views
from tests import twins_fast, twins_network, twins_processes  # noqa: F401  # they fill TWINS
from tests.checked import BASES, case_of, validation_config
from tests.networks import OPTIONS
from tests.twins import TWINS, Twin

REFUSED = {"checkpoint that skips a parameter": "Missing key"}
"""Twins that no check can judge, and what it says then; all others are seen by their measures."""

SHORT_FIT = {"fit_steps": 50, "learning_rate": 0.02}

OPTIONS_OF_CHECKS: dict[str, dict[str, Any]] = {
    "GPU-01": {"grad_checkpoint": True, "learnable": (), **SHORT_FIT},
    "GPU-02": {"positions": "alibi", "n_seeds": 1, "seed": 5},
    "GPU-04": {"positions": "sinusoidal"},
}
"""How every option of every base is tried in a check."""

pytestmark = pytest.mark.slow


def sound() -> Iterator[Any]:
    """Checks, bases and what is asked of them besides what is asked of all."""
    for check, changes in OPTIONS_OF_CHECKS.items():
        for name, options in OPTIONS.items():
            yield pytest.param(check, options | changes, id=f"{check} {name}")
    for base in BASES:
        yield pytest.param("GPU-02", {"base": base, "precision": "fp16"}, id=f"fp16 {base}")
        for seed, positions in enumerate(("rope", "alibi", "sinusoidal")):
            changes = {"base": base, "positions": positions, "seed": seed}
            yield pytest.param("GPU-01", changes | SHORT_FIT, id=f"GPU-01 {base} {positions}")
            yield pytest.param(
                "GPU-07", changes | {"fit_steps": 600}, id=f"GPU-07 {base} {positions}"
            )


@pytest.fixture(autouse=True)
def _attention_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention in blocks serves, whether or not this processor multiplies bfloat16 fast."""
    monkeypatch.setattr(blockwise, "_FAST_PRODUCTS", True)


def test_every_base_passes_every_check() -> None:
    config = validation_config(n_seeds=1, **SHORT_FIT)

    found = list(suite.validate(config, torch.device("cpu")))

    assert [f"{f.check} {f.base}: {f.reason}" for f in found if f.status != "passed"] == []
    assert len(found) == len(suite.CHECKS) * len(BASES)
    for finding in found:  # a measure with a new name would else drop out of the highlights
        assert finding.check in validation_views.highlights([finding])


@pytest.mark.parametrize(("check", "changes"), list(sound()))
def test_what_is_sound_passes_with_every_option(check: str, changes: dict[str, Any]) -> None:
    assert suite.find(check, case_of(**changes)).reason == ""


@pytest.mark.parametrize("twin", TWINS, ids=[f"{twin.check} {twin.name}" for twin in TWINS])
def test_a_twin_is_seen(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of(twin.base)
    twin.damage(monkeypatch)

    found = suite.find(twin.check, case)

    assert found.status == "failed"
    if twin.name in REFUSED:
        assert REFUSED[twin.name] in found.reason
    else:
        assert found.measures, found.reason
