"""Final trainings made up for tests, with differences that are known because they were put in."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from psannlm.pages.shootout.records import DocumentLoss, Setting, TrainingRecord


def final(arm: str, seed: int, val_loss: float | None = None, **changes: Any) -> TrainingRecord:
    """A finished training of an arm; what a comparison does not read is the same in all."""
    values: dict[str, Any] = {
        "key": f"{arm}-{seed}", "arm": arm, "base": "transformer",
        "setting": Setting(0.001, 1.0, 0.02, ()), "seed": seed, "final": True, "status": "ok",
        "reason": "", "started_at": "2026-01-01T00:00:00Z", "device": "cpu", "d_mlp": 32,
        "n_parameters": 1000, "flops_per_token": 6000, "val_loss": val_loss,
    }  # fmt: skip
    return TrainingRecord(**values | changes)


def failed(arm: str, seed: int) -> TrainingRecord:
    return final(arm, seed, status="failed", reason="the loss is no number")


def lengths(draw: np.random.Generator, *shape: int) -> np.ndarray:
    """Tokens of documents: lognormal, the longest of 27 about seven times the median."""
    return np.ceil(np.exp(draw.normal(5.0, 1.0, shape)))


def evaluated(arm: str, losses: np.ndarray, n_tokens: np.ndarray) -> list[TrainingRecord]:
    """Trainings of seeds 0, 1, ... with these losses per token, [seeds, documents]."""
    nats = losses * n_tokens
    tokens = [int(n) for n in n_tokens]
    return [
        final(
            arm,
            seed,
            float(mine.sum() / n_tokens.sum()),
            test_loss=float(mine.sum() / n_tokens.sum()) + 0.1,
            documents=tuple(map(DocumentLoss, mine.tolist(), tokens)),
        )
        for seed, mine in enumerate(nats)
    ]


def shootout(
    draw: np.random.Generator,
    arms: Mapping[str, float] | Sequence[str],
    *,
    n_seeds: int = 5,
    n_documents: int = 27,
    over_seeds: float = 0.02,
    over_documents: float = 0.02,
) -> dict[str, list[TrainingRecord]]:
    """Arms with true losses, if none are given all 3.

    What a seed and a document are like is shared by all arms, and far larger than the noise.

    Args:
        draw: Of all noise.
        arms: True losses by name, or names.
        n_seeds: Trainings of each arm.
        n_documents: Documents of the split.
        over_seeds: Deviation of one training of an arm from the arm.
        over_documents: Deviation of an arm on one document from the arm.
    """
    true = arms if isinstance(arms, Mapping) else dict.fromkeys(arms, 3.0)
    n_tokens = lengths(draw, n_documents)
    shared = draw.normal(0.0, 0.2, (n_seeds, 1)) + draw.normal(0.0, 0.5, n_documents)
    return {
        arm: evaluated(
            arm,
            loss
            + shared
            + draw.normal(0.0, over_seeds, (n_seeds, 1))
            + draw.normal(0.0, over_documents, n_documents),
            n_tokens,
        )
        for arm, loss in true.items()
    }
