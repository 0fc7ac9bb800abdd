"""Whether the fast tests notice one-line mistakes in the code: mutations.yaml, one at a time.

`python tests/mutate.py` fails if a mutation goes unnoticed, `--write` stores how many tests notice
each, and words after it choose those mutations whose part or file has one of them. A mutation
changes a piece of one line, which must stand in its file exactly once. It is made in a copy of the
tracked files, so the tree stays as it is; the named tests must all pass there without it.
"""

import argparse
import multiprocessing
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot  # noqa: F401  # what takes long to load is loaded once, before the forks
import pandas  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import torch  # noqa: F401
import yaml

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_name("mutations.yaml")
PYTEST = ["-q", "--tb=no", "--no-header", "-p", "no:cacheprovider"]
FORK = multiprocessing.get_context("fork")
SECONDS = 180
"""After which tests count as failed: a mistake may never end."""


def copied(folder: Path) -> None:
    """Copy the tracked files, as they are now."""
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for name in filter(lambda n: (ROOT / n).is_file(), names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)


def problems(mutations: list[dict[str, Any]]) -> list[str]:
    """What must be mended in the list because the code or the tests have moved."""
    found = []
    for one in mutations:
        path, name = ROOT / one["file"], f"{one['file']}: {one['before']!r}"
        count = path.read_text(encoding="utf-8").count(one["before"]) if path.is_file() else 0
        if count != 1:
            said = f"must stand there once, is there {count} times"
            found.append(f"{name} {said}; update {LIST.name}")
        for test in files(one):
            if not (ROOT / test).is_file():
                found.append(f"{name}: there is no {test}; update {LIST.name}")
    return found


def files(mutation: dict[str, Any]) -> list[str]:
    """Test files of a mutation."""
    words = shlex.split(mutation["tests"])
    return [word.partition("::")[0] for word in words if word.startswith("tests/")]


class Failures:
    """Plugin of pytest: counts the tests that ran, and those that failed."""

    def __init__(self) -> None:
        self.ran, self.failed = FORK.Value("i"), FORK.Value("i")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.failed.value += report.failed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.ran.value += report.when == "call"
        self.failed.value += report.failed


def failing(folder: Path, tests: list[str]) -> int:
    """How many of the fast tests fail in the copy.

    Raises:
        SystemExit: None was run.
    """
    found = Failures()
    child = FORK.Process(target=run, args=(folder, tests, found))
    child.start()
    child.join(SECONDS)
    if child.is_alive():
        child.kill()
        return max(found.failed.value, 1)
    if not found.ran.value and not found.failed.value:
        raise SystemExit(f"{shlex.join(tests)}: no test ran")
    return int(found.failed.value)


def run(folder: Path, tests: list[str], found: Failures) -> None:
    """Run tests in the copy; in a process that has loaded all but the package itself."""
    os.chdir(folder)
    os.environ["PYTHONPATH"] = sys.path[0] = str(folder)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    pytest.main([*PYTEST, "-m", "not slow and not browser", *tests], plugins=[found])


def noticed(folder: Path, mutation: dict[str, Any]) -> int:
    """How many fast tests notice a mutation."""
    path, original = folder / mutation["file"], ROOT / mutation["file"]
    text = original.read_text(encoding="utf-8")
    path.write_text(text.replace(mutation["before"], mutation["after"]), encoding="utf-8")
    try:
        return failing(folder, shlex.split(mutation["tests"]))
    finally:
        shutil.copy2(original, path)  # with its time, so that what was compiled of it stays valid


def main() -> int:
    """Check or store."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="*", help="of the part or the file of those to try")
    parser.add_argument("--write", action="store_true", help="store how many tests notice each")
    asked = parser.parse_args()
    mutations = yaml.safe_load(LIST.read_text(encoding="utf-8"))
    words = asked.words or [""]
    chosen = [m for m in mutations if any(word in f"{m['part']} {m['file']}" for word in words)]
    if wrong := problems(chosen):
        print("\n".join(wrong))
        return 2
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied(folder)
        if broken := failing(folder, sorted({test for one in chosen for test in files(one)})):
            print(f"{broken} of the named tests fail without any mutation; mend them first")
            return 2
        for one in chosen:
            before, began = one.get("noticed", "-"), time.monotonic()
            one["noticed"] = noticed(folder, one)
            name, spent = f"{one['file']}: {one['before']}", time.monotonic() - began
            print(f"{one['noticed']:4} (was {before}) {spent:5.1f} s  {name}")
    if asked.write:
        text = yaml.safe_dump(mutations, sort_keys=False, width=1000, allow_unicode=True)
        LIST.write_text(text, encoding="utf-8")
    missed = [one for one in chosen if not one["noticed"]]
    print(f"{len(chosen)} mutations, {len(missed)} unnoticed, {time.monotonic() - start:.0f} s")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
