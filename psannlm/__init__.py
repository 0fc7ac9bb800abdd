"""The compact core of the PSANN-LM benchmark report: networks, measurements, evidence, pages.

config      what a run is asked to do
device      device, precision, compiler, memory of the process
model       the networks under test, what they cost by construction, how they decode
corpora     text: fetched, read, cleaned, split by documents
train       tokenizers, tokens, the trainer
bench       the machine, the clock, the cells of a measurement, what the samples mean
checks      whether the networks do what they say
evidence    run folders, tables, figures
rerun       a published row measured again
pages       a folder a page: what it measures, how it is stored, shown and checked
run         the notebooks of a preset, one after the other
publish     the book and what stands in it
"""

import os
from pathlib import Path

__version__ = "0.1.0"

ROOT = Path(__file__).parents[1]
"""The folder of the project: notebooks, parameters and the book are found from here."""

REPORTS = Path(os.environ.get("PSANNLM_REPORTS", ROOT / "reports"))
"""Where run folders live."""

CACHE = Path(os.environ.get("PSANNLM_CACHE", ROOT / "datasets" / "cache"))
"""What can be made or fetched again: downloads, tokenizers, tokens."""

CHECKPOINTS = Path(os.environ.get("PSANNLM_CHECKPOINTS", ROOT / "checkpoints"))
"""Where trainings keep their log and their checkpoints."""
