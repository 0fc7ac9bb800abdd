"""Where runs are made, and which file a training reads: as the environment says, or as usual."""

import os
from collections.abc import Mapping
from pathlib import Path

from psannlm import REPORTS, ROOT

VALIDATION_HOME, OTHER_HOME, TINY_CONFIG = "OUT_DIR", "BENCH_OUT", "TINY_CONFIG"
"""Environment variables of the pre-flight: the folder of validation runs, that of all others, and
the parameter file of the tiny corpus. The book and `check` read what lies under reports/."""


SUFFIXES = {"shootout": "_base_shootout"}
"""What the names of run folders end in, beyond the time of their start, by notebook."""


def home(notebook: str, environment: Mapping[str, str] = os.environ) -> Path:
    """The folder in which runs of a notebook are made."""
    is_validation = notebook == "validation"
    named = environment.get(VALIDATION_HOME if is_validation else OTHER_HOME)
    return Path(named) if named else REPORTS / ("gpu" if is_validation else "benchmarks")


def parameter_file(
    preset: str, notebook: str, *, root: Path = ROOT, environment: Mapping[str, str] = os.environ
) -> Path:
    """The file that holds a notebook's parameters."""
    named = environment.get(TINY_CONFIG) if notebook == "tiny_corpus" else None
    return Path(named).absolute() if named else root / "params" / preset / f"{notebook}.yaml"


def pinned(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The folders that the environment names, as they are meant here, for another folder's use."""
    names = (VALIDATION_HOME, OTHER_HOME)
    return {n: str(Path(environment[n]).absolute()) for n in names if environment.get(n)}
