"""Broken twins of the networks and their surroundings, each with the check that has to see it."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

Damage = Callable[[pytest.MonkeyPatch], None]  # breaks something for as long as the patch lasts


class Twin(NamedTuple):
    """One way to break things."""

    name: str  # what is broken, in words
    check: str  # that has to fail on it, such as GPU-01
    base: str
    damage: Damage


TWINS: list[Twin] = []  # all of them, once the modules that make them are loaded


def seen_by(check: str, base: str) -> Callable[[Damage], Damage]:
    """Make a damage a twin, which bears its name."""

    def add(damage: Damage) -> Damage:
        TWINS.append(Twin(damage.__name__.replace("_", " "), check, base, damage))
        return damage

    return add


def replacing(owner: Any, name: str) -> Callable[[Callable[..., Any]], Damage]:
    """Make a damage of a function that takes an attribute's place, and is given it first."""

    def damage_of(wrong: Callable[..., Any]) -> Damage:
        def damage(patch: pytest.MonkeyPatch) -> None:
            right = getattr(owner, name)

            def broken(*given: Any, **options: Any) -> Any:
                return wrong(right, *given, **options)

            static = isinstance(inspect.getattr_static(owner, name), staticmethod)
            patch.setattr(owner, name, staticmethod(broken) if static else broken)

        damage.__name__ = wrong.__name__
        return damage

    return damage_of
