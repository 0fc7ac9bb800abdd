"""What an arm must pass before it is ranked: it sees no future, and it is no other arm."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """What the gates found of one arm."""

    arm: str
    leak: float
    """How far changed tokens move logits before them, over the largest logit: the worst of the
    network with noisy parameters and of its finished trainings."""

    bound: float
    """More is no rounding."""

    nearest: str
    """The other arm whose logits are nearest, with equal seeds; empty if there is no other."""

    distance: float
    """Norm of the difference of their logits, over the norm of the logits."""

    same_as: str
    """The first arm, in the order of arms, that is the same network; empty if there is none."""

    refused: str
    """Why the arm gets no rank; empty if it gets one."""
