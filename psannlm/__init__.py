"""The compact core of the PSANN-LM benchmark report: networks, measurements, evidence, pages.

ARCHITECTURE.md draws its folders and the direction of their imports.
"""

import os
from pathlib import Path

__version__ = "0.1.0"

ROOT = Path(__file__).parents[1]  # of the project: notebooks, parameters and the book lie below
REPORTS = Path(os.environ.get("PSANNLM_REPORTS", ROOT / "reports"))  # where run folders live
CACHE = Path(os.environ.get("PSANNLM_CACHE", ROOT / "datasets" / "cache"))
"""What can be made or fetched again: downloads, tokenizers, tokens."""

CHECKPOINTS = Path(os.environ.get("PSANNLM_CHECKPOINTS", ROOT / "checkpoints"))  # of trainings
