"""The packages that pyproject.toml asks for: which are missing here, and what installs them."""

import contextlib
import importlib.metadata
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from psannlm import ROOT


def installing(extra: str = "") -> str:
    """The command that installs the project for this Python, with what an extra adds."""
    python = Path(sys.executable)
    shown = python.relative_to(ROOT) if python.is_relative_to(ROOT) else python
    pip = f"{shown} -m pip install" if has_pip() else f"uv pip install --python {shown}"
    return f"{pip} -e '.{f'[{extra}]' if extra else ''}'"


def has_pip() -> bool:
    """Whether this Python has pip, which uv leaves out of its environments."""
    return any(importlib.metadata.distributions(name="pip"))


def unfit(extra: str = "") -> Iterator[tuple[str, str]]:
    """What the project, or an extra, requires and has not, with the version here; empty if none."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = project["optional-dependencies"][extra] if extra else project["dependencies"]
    for requirement in map(Requirement, asked):
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        if not version or not requirement.specifier.contains(version, prereleases=True):
            yield str(requirement), version


def missing(error: ModuleNotFoundError) -> str:
    """All packages that are missing, and the way out; an error of the project itself is raised."""
    if error.name is None or error.name.startswith("psannlm"):
        raise error
    names = []
    with contextlib.suppress(ModuleNotFoundError):  # packaging itself
        names = [requirement for requirement, version in unfit() if not version]
    listed = ", ".join(names or [error.name])
    return f"error: {sys.executable} lacks {listed}; run `make setup`, or {installing()}"
