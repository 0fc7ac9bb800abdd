"""Where the files lie that a configuration names, and the names by which they are published."""

import contextlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TypeVar

from psannlm import CACHE, CHECKPOINTS, REPORTS, ROOT
from psannlm.config.schema import FILE, ConfigError, Strict
from psannlm.files import write_atomically

VARIABLE = "PSANNLM_PLACES"  # tells all processes of a run where files lie: name to path, as JSON
MEMORY = CACHE / "places"  # the same of each run, for when it goes on or is measured again
ConfigT = TypeVar("ConfigT", bound=Strict)


def as_published(config: ConfigT) -> ConfigT:
    """The configuration with files outside the project by their names; see `published`."""
    files = [name for name, f in type(config).model_fields.items() if FILE in f.metadata]
    return config.model_copy(update={name: published(getattr(config, name)) for name in files})


def published(path: str) -> str:
    """The path from the project's folder, or of what lies outside it the last part alone.

    Where that lies is known to `located` in this process and in those that it starts. ConfigError
    if another file is known by that name.
    """
    place = Path(os.path.normpath(ROOT / path))
    if place.is_relative_to(ROOT):
        return _shortened(place) if Path(path).is_absolute() else path
    known = places()
    if known.setdefault(place.name, str(place)) != str(place):
        raise ConfigError(f"files must have names of their own, got {place.name} twice; rename one")
    os.environ[VARIABLE] = json.dumps(known)
    return place.name


def located(name: str) -> Path:
    """Where a file lies, by its published name or its path."""
    return ROOT / places().get(name, name)


def places() -> dict[str, str]:
    """Where the files outside the project lie, by their names."""
    return dict(json.loads(os.environ.get(VARIABLE) or "{}"))


def remember(run: str) -> None:
    """Keep where the files of a run lie, outside its folder, for `recall`."""
    if places():
        with contextlib.suppress(OSError):  # it must then be told again
            MEMORY.mkdir(parents=True, exist_ok=True)
            write_atomically(MEMORY / f"{run}.json", os.environ[VARIABLE])


def recall(run: str) -> None:
    """Know again where the files of a run lie, if it was made here."""
    with contextlib.suppress(OSError):
        os.environ[VARIABLE] = (MEMORY / f"{run}.json").read_text(encoding="utf-8")


def public(text: str) -> str:
    """The text without folders of this machine, as it or JSON or Python writes them.

    Of a path below the project's folder, the part from there stays; of others, the last part.
    """
    for name, path in places().items():
        for form in (os.path.relpath(path, ROOT), path):
            escaped = form.encode("unicode_escape").decode()
            for written in (form, json.dumps(form)[1:-1], escaped, json.dumps(escaped)[1:-1]):
                text = text.replace(written, name)
    python = {sys.prefix} - {sys.base_prefix}  # the system's own says nothing of its user
    folders = [ROOT, REPORTS, CACHE, CHECKPOINTS, Path.cwd(), Path(os.environ.get("HOME", "/"))]
    folders += map(Path, (tempfile.gettempdir(), *python, *map(os.path.dirname, places().values())))
    known = sorted((str(path) for path in folders if len(path.parts) > 1), reverse=True)
    begins = "|".join([*map(re.escape, known), r"/(?:home|Users)/[\w.-]+"])
    before = r"(?:(?<![\w./~-])|(?<=\\[nrt])|(?<=\dm))"  # ends of lines in JSON, and colours
    paths = rf"{before}(?:{begins})(?![\w.-])(?:/[^\s\"'<>:;,)\]}}`\\]*)?"
    return re.sub(paths, lambda found: _shortened(Path(found[0])), text)


def _shortened(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
