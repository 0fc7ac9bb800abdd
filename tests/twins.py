"""Broken twins of the networks and their surroundings, each with the check that has to see it."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Twin:
    """One way to break things."""

    name: str
    """What is broken, in words."""

    check: str
    """The check that has to fail on it, such as GPU-01."""

    base: str
    damage: Callable[[pytest.MonkeyPatch], None]
    """Breaks it, for as long as the patch lasts, in this process or in those it starts."""
