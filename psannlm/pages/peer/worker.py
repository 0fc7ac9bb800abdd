"""One side of the comparison in a process of its own: a script for either package's interpreter.

Both packages have one name, and an interpreter sees one of them. What both sides share is loaded
from its file: it needs torch alone.
"""

import importlib
import importlib.util
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parents[1]
TOOLS = {
    "timing": PACKAGE / "bench",
    "memory": PACKAGE / "bench",
    "worker": PACKAGE / "bench",
    "works": HERE,
    "protocol": HERE,
}
"""Modules that both sides share, and the folder of each."""


def load(stem: str) -> ModuleType:
    """A module by its file, without the package around it."""
    spec = importlib.util.spec_from_file_location(stem, TOOLS.get(stem, HERE) / f"{stem}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{stem} is no module")
    module = sys.modules[stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def side_of(task: dict[str, Any], tools: SimpleNamespace) -> Any:
    """The side of the task, after making sure that it is the package that was meant.

    Raises:
        ImportError: The package that was found is another.
    """
    package = importlib.import_module("psannlm")
    found = Path(str(package.__file__)).resolve()
    if not task["python"]:
        if found.parent != PACKAGE:
            raise ImportError("the package that was imported is not ours")
        return importlib.import_module("psannlm.pages.peer.ours").Ours(task)
    if not found.is_relative_to(Path(sys.prefix).resolve()):
        raise ImportError("the package that was imported is not the one that was installed")
    return load("published").Published(task, package, tools.works)


def main(arguments: Sequence[str]) -> None:
    """Measure every work of the task, a failed one too, and write a line of each at once."""
    warnings.simplefilter("ignore")
    task_path, result_path = map(Path, arguments)
    task = json.loads(task_path.read_text(encoding="utf-8"))
    tools = SimpleNamespace(**{stem: load(stem) for stem in TOOLS})
    measures = tools.works.MODES | tools.protocol.MODES

    def measure(mode: str) -> dict[str, Any]:
        found: dict[str, Any] = measures[mode](side_of(task, tools), task, tools)
        return found

    tools.worker.measure_modes(task["modes"], measure, result_path)


if __name__ == "__main__":
    main(sys.argv[1:])
