"""Evidence changed by a careful liar: every hash agrees with the change."""

import json
from collections.abc import Callable
from pathlib import Path

from psannlm.evidence import runs


def with_more(column: str) -> Callable[[str], str]:
    """What makes a number in the first row of a CSV file a little larger."""

    def change(text: str) -> str:
        head, first, *rest = (line.split(",") for line in text.splitlines())
        at = head.index(column)
        first[at] = repr(float(first[at]) * 1.0001)
        return "\n".join(map(",".join, [head, first, *rest])) + "\n"

    return change


def writable(folder: Path) -> Path:
    """The folder of a sealed run, its files no longer read-only."""
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode | 0o200)
    return folder


def forge(folder: Path, name: str, change: Callable[[str], str]) -> None:
    """Change an artifact and make every hash agree with the change, as a careful liar would."""
    writable(folder)
    path = folder / name
    path.write_text(change(path.read_text()))
    manifest = json.loads((folder / "run.json").read_text())
    manifest["artifacts"][name] = runs.sha256_of(path)
    del manifest["sha256"]
    manifest["sha256"] = runs._fingerprint(manifest)
    (folder / "run.json").write_text(json.dumps(manifest))
