"""Each broken twin is seen by the check that has to see it."""

from collections.abc import Mapping

import pytest

from psannlm.checks import checkpointing, forward_backward, precision, speed
from psannlm.checks.findings import RunCheck
from tests.checked import case_of, failed
from tests.twins import Twin
from tests.twins_network import NETWORK_TWINS

CHECKS: Mapping[str, RunCheck] = {
    "GPU-01": forward_backward.check,
    "GPU-02": precision.check,
    "GPU-03": speed.check,
    "GPU-04": checkpointing.check,
}

TWINS = [*NETWORK_TWINS]


@pytest.mark.slow
@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_a_twin_is_seen(twin: Twin, monkeypatch: pytest.MonkeyPatch):
    case = case_of(twin.base)
    twin.damage(monkeypatch)

    result = CHECKS[twin.check](case)

    assert failed(result)
