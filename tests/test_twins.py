"""Each broken twin is seen by the check that has to see it, and what is sound passes every check.

Processes of checks, sound and broken, are started here.
"""

import pytest
import torch

from psannlm.checks import suite
from psannlm.model import blockwise
from psannlm.pages.validation import prose as validation_views
from tests.checked import BASES, case_of, validation_config
from tests.twins import Twin
from tests.twins_fast import FAST_TWINS
from tests.twins_network import NETWORK_TWINS
from tests.twins_processes import PROCESS_TWINS

TWINS = (*NETWORK_TWINS, *PROCESS_TWINS, *FAST_TWINS)

REFUSED = {"checkpoint that skips a parameter": "Missing key"}
"""Twins that no check can judge, and what it says then; all others are seen by their measures."""

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _attention_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention in blocks serves, whether or not this processor multiplies bfloat16 fast."""
    monkeypatch.setattr(blockwise, "_FAST_PRODUCTS", True)


def test_every_base_passes_every_check() -> None:
    found = list(suite.validate(validation_config(), torch.device("cpu")))

    assert [f"{f.check} {f.base}: {f.reason}" for f in found if f.status != "passed"] == []
    assert len(found) == len(suite.CHECKS) * len(BASES)
    for finding in found:  # a measure with a new name would else drop out of the highlights
        assert finding.check in validation_views.highlights([finding])


@pytest.mark.parametrize("twin", TWINS, ids=[f"{twin.check} {twin.name}" for twin in TWINS])
def test_a_twin_is_seen(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of(twin.base, only=twin.check)
    twin.damage(monkeypatch)

    found = suite.find(twin.check, case)

    assert found.status == "failed"
    if twin.name in REFUSED:
        assert REFUSED[twin.name] in found.reason
    else:
        assert found.measures, found.reason
