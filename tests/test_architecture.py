"""The shape of the project, as ARCHITECTURE.md and README.md draw it."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from psannlm import ROOT
from psannlm.pages.peer.worker import SHARED
from psannlm.pages.peer.worker import __file__ as script
from psannlm.pages.registry import pages

PACKAGE = ROOT / "psannlm"
SOURCES = {
    path.relative_to(PACKAGE).as_posix(): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}
ORDER = [
    "config", "files.py", "places.py", "device.py", "model", "corpora", "train", "bench",
    "checks", "evidence", "rerun", "pages", "run", "publish", "__main__.py",
]  # fmt: skip
"""A folder imports only from those before it."""


def imports_of_ours(name: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(SOURCES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "psannlm":
            module = node.module.split(".")[1:]
            for alias in node.names:
                whole = "/".join([*module, alias.name]) + ".py"
                found.add(whole if whole in SOURCES else "/".join(module) + ".py")
    return found & set(SOURCES)


def packages_of(name: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(SOURCES[name].read_text())))
    names = {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    names |= {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module}
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("name", SOURCES)
def test_a_module_imports_only_from_folders_before_it_and_opens_with_one_sentence(name):
    def place(module: str) -> int:
        return ORDER.index(module.split("/")[0])

    opening = (ast.get_docstring(ast.parse(SOURCES[name].read_text())) or "").splitlines()[0]

    assert all(place(other) <= place(name) for other in imports_of_ours(name))
    assert opening.endswith(".")


def test_figures_alone_draw_configurations_need_no_torch_and_the_clock_knows_no_model():
    packages = {name: packages_of(name) for name in SOURCES}
    drawing = {Path(name).name for name in SOURCES if packages[name] & {"matplotlib", "seaborn"}}
    settings = [n for n in SOURCES if n.startswith("config/")]
    clock = imports_of_ours("bench/timing.py") | imports_of_ours("bench/statistics.py")

    assert drawing == {"figures.py"}
    assert not any("torch" in packages[name] for name in settings)
    assert not any(name.startswith("model/") for name in clock)


@pytest.mark.parametrize("path", [*SHARED, Path(script)], ids=lambda path: path.stem)
def test_what_the_interpreter_of_another_package_loads_needs_torch_alone(path):
    packages = packages_of(path.relative_to(PACKAGE).as_posix())

    assert packages - sys.stdlib_module_names == {"torch"}


@pytest.mark.parametrize("folder", ["bench", "evidence", "rerun", "run", "publish"])
def test_what_serves_every_page_names_none(folder):
    names = "|".join(pages())
    named = re.compile(rf"""["'](?:{names})["']|pages[./](?:{names})\b""")

    found = {
        f"{path.name}: {match.group()}"
        for path in (ROOT / "psannlm" / folder).rglob("*.py")
        for match in named.finditer(path.read_text())
    }

    assert found == set()


def tree() -> set[str]:
    """Paths in README's tree."""
    text = (ROOT / "README.md").read_text()
    block = text.split("## Where things are")[1].split("```")[1]
    paths, stack = set(), []
    for line in block.strip("\n").splitlines():
        indent = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        stack[indent:] = [name.rstrip("/")]
        paths.add("/".join(stack) + ("/" if name.endswith("/") else ""))
    return paths


def tracked() -> list[str]:
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return listing.stdout.splitlines()


def test_the_readmes_tree_names_what_there_is_and_every_file_or_its_folder():
    drawn = tree()
    assert [path for path in sorted(drawn) if not (ROOT / path).exists()] == []
    rolled_up = {
        p for p in drawn if p.endswith("/") and not any(o != p and o.startswith(p) for o in drawn)
    }
    rolled_up |= {"book/"}  # its written pages are listed in book/_toc.yml
    absent = [
        path
        for path in tracked()
        if path not in drawn
        and not any(path.startswith(folder) for folder in rolled_up)
        and Path(path).name not in {"__init__.py", ".gitignore", ".gitattributes"}
    ]

    assert absent == []
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_nothing_tracked_names_a_folder_of_a_machine():
    pattern = re.compile(r"(/home/\w+|/root/|/Users/\w+|/tmp/\w)")
    text_files = (".py", ".md", ".yml", ".yaml", ".toml", ".json", ".ipynb", ".csv", ".txt")
    read = {
        path: (ROOT / path).read_text("utf-8") for path in tracked() if path.endswith(text_files)
    }
    del read["tests/test_architecture.py"]

    assert [path for path, text in read.items() if pattern.search(text)] == []
