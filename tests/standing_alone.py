"""Files that another package's interpreter loads: which imports they must do without."""

import ast
import sys
from pathlib import Path
from types import ModuleType


def foreign_imports(module: ModuleType) -> set[str]:
    """Packages that the file imports, wherever in it, besides Python's own and torch."""
    found = set()
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found - set(sys.stdlib_module_names) - {"torch"}
