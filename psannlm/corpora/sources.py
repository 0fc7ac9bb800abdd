"""What the text of a corpus comes from, and whether it can be had here: nothing is fetched."""

import contextlib
import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path

from psannlm import CACHE, ROOT
from psannlm.config import packages
from psannlm.config.schema import ConfigError
from psannlm.corpora.corpus import CORPORA
from psannlm.corpora.recipe import (
    FilesSource,
    HubSource,
    PackageSource,
    Recipe,
    Source,
    load_recipe,
    names,
)

VARIABLE = "npm_config_registry"  # by which npm itself is told its registry


def recipe_to_build(path: Path) -> Recipe | None:
    """The recipe that makes the corpus at `path`; None if it is there, or none makes it."""
    made = path == CORPORA / f"{path.stem}.txt" and path.stem in names()
    return load_recipe(path.stem) if made and not path.exists() else None


def refuse_out_of_reach(source: Source, cache: Path = CACHE) -> None:
    """Raise ConfigError where a source is not here, and nothing here could fetch it."""
    if isinstance(source, FilesSource):
        if missing := [path for path in source.paths if not (ROOT / path).exists()]:
            raise ConfigError(f"{source.name}: {missing[0]} does not exist; put it there")
    elif isinstance(source, PackageSource):
        if not any(cache.glob(f"{source.sha256[:12]}-*")):
            refuse_without_client(source)
    elif isinstance(source, HubSource):
        for requirement, version in packages.unfit("hub"):
            here = f"{version} is installed" if version else "it is not installed"
            way_out = f"run: {packages.installing('hub')}"
            raise ConfigError(f"{source.dataset} needs {requirement}, {here}; {way_out}")


def refuse_without_client(source: PackageSource) -> None:
    """Raise ConfigError where neither its client nor a setting tells how to fetch a package."""
    problem = f"{source.package} {source.version} cannot be fetched: {source.kind} is missing"
    if source.kind == "pip" and importlib.util.find_spec("pip") is None:  # uv leaves it out
        raise ConfigError(f"{problem}; run: {sys.executable} -m ensurepip")
    if source.kind == "npm" and not shutil.which("npm") and not npm_registry():
        raise ConfigError(
            f"{problem}, and no registry is named; install npm, or set {VARIABLE} to the address "
            "of a registry, from which the file is then fetched without npm"
        )


def file_without_npm(source: PackageSource) -> tuple[str, str] | None:
    """Address and name of a package's file for a machine without npm; None where npm is there."""
    if source.kind != "npm" or shutil.which("npm"):
        return None
    scope, _, name = source.package.removeprefix("@").rpartition("/")
    file = f"{name}-{source.version}.tgz"
    address = f"{npm_registry().rstrip('/')}/{source.package}/-/{file}"
    return address, f"{scope}-{file}" if scope else file  # as npm names what it packs


def npm_registry() -> str:
    """The address that npm's settings name: the environment, or an .npmrc; empty if none does."""
    found = [os.environ.get(VARIABLE), os.environ.get(VARIABLE.upper())]
    for folder in (ROOT, Path.home()):
        with contextlib.suppress(OSError, ValueError):
            text = (folder / ".npmrc").read_text(encoding="utf-8")
            found += re.findall(r"""^\s*registry\s*=\s*["']?([^\s"']+)""", text, re.MULTILINE)
    return os.path.expandvars(next(filter(None, found), ""))
