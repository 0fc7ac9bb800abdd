"""Evidence changed by a careful liar: every hash agrees with the change."""

import json
from collections.abc import Callable
from pathlib import Path

from psannlm.evidence import runs


def forge(folder: Path, name: str, change: Callable[[str], str]) -> None:
    """Change an artifact and make every hash agree with the change, as a careful liar would."""
    path = folder / name
    path.write_text(change(path.read_text()))
    manifest = json.loads((folder / "run.json").read_text())
    manifest["artifacts"][name] = runs.sha256_of(path)
    del manifest["sha256"]
    manifest["sha256"] = runs._fingerprint(manifest)
    (folder / "run.json").write_text(json.dumps(manifest))
