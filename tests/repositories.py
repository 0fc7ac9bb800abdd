"""Git repositories made up for tests, with the code, parameters and evidence of a project."""

import subprocess
from pathlib import Path

CODE = ("psannlm/model/sine.py", "notebooks/throughput.ipynb", "params/cpu/throughput.yaml")


def git(folder: Path, *arguments: str) -> str:
    """What git says in `folder`, under a name of its own."""
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def write(path: Path, content: str = "changed\n") -> Path:
    """A file of that content, in folders that are made if they are missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def unpacked(folder: Path) -> Path:
    """A project without a repository; each of its files has two lines."""
    for name in (*CODE, "reports/gpu/a/run.json", "README.md"):
        write(folder / name, f"{name}\nline\n")
    return folder


def committed(folder: Path) -> Path:
    """A repository of all that lies in a folder, or of such a project; no other has its commit."""
    if not folder.exists():
        unpacked(folder)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", folder.name)
    return folder
