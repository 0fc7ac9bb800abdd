"""The compact core of the PSANN-LM benchmark report: networks, measurements, evidence, pages.

ARCHITECTURE.md draws its folders and the direction of their imports.
"""

import os
from pathlib import Path

__version__ = "0.1.0"

ROOT = Path(__file__).parents[1]  # of the project: notebooks, parameters and the book lie below


def _folder(variable: str, usual: Path) -> Path:
    """A folder as the caller names it; processes started in other folders find the same."""
    if named := os.environ.get(variable):
        os.environ[variable] = str(Path(named).absolute())
    return Path(os.environ.get(variable) or usual)


REPORTS = _folder("PSANNLM_REPORTS", ROOT / "reports")  # where run folders live
CACHE = _folder("PSANNLM_CACHE", ROOT / "datasets" / "cache")
"""What can be made or fetched again: downloads, tokenizers, tokens."""

CHECKPOINTS = _folder("PSANNLM_CHECKPOINTS", ROOT / "checkpoints")  # of trainings
