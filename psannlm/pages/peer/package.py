"""The published package, installed into an environment of its own."""

import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import torch

from psannlm.config.schema import ConfigError
from psannlm.files import write_atomically

STAMP = "peer.json"
INSTALL_SECONDS = 600.0


def environment(requirement: str, cache: Path) -> Path:
    """The interpreter of a virtual environment that has the required package and our torch.

    It is made once: under a temporary name, and renamed when it is complete.

    Args:
        requirement: As `NAME==VERSION`.
        cache: Folder of all such environments.

    Raises:
        ConfigError: The requirement is of another form, or it cannot be installed.
    """
    name, equals, version = requirement.partition("==")
    if not (equals and _is_word(name) and _is_word(version)):
        raise ConfigError(f"peer must be NAME==VERSION, got {requirement!r}; name one version")
    folder = cache / f"{name}-{version}"
    stamp = json.dumps(
        {"requirement": requirement, "python": sys.version, "torch": torch.__version__}
        | {"packages": str(_packages_of_torch())}
    )
    known = folder / STAMP
    if not (known.exists() and known.read_text(encoding="utf-8") == stamp):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=cache) as temporary:
            made = Path(temporary, folder.name)
            _install(requirement, made)
            write_atomically(made / STAMP, stamp)
            shutil.rmtree(folder, ignore_errors=True)
            made.replace(folder)
    return _python_of(folder)


def _install(requirement: str, folder: Path) -> None:
    """Make the environment; torch, pip and all else that is here is seen, not fetched again."""
    _run("make an environment", sys.executable, "-I", "-m", "venv", "--without-pip", str(folder))
    own = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    # Its own packages come first, ours behind them.
    (own / "zz_shared.pth").write_text(f"{_packages_of_torch()}\n", encoding="utf-8")
    fixed = folder / "constraints.txt"
    fixed.write_text(f"torch=={torch.__version__}\n", encoding="utf-8")
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--retries", "1"]
    install = [str(_python_of(folder)), "-I", "-m", "pip", "install", *options]
    _run(f"install {requirement}", *install, "--constraint", str(fixed), requirement)


def _run(what: str, *command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("ERROR")] or said or ["it said nothing"]
        raise ConfigError(f"cannot {what}: {errors[-1][:300]}")


def _python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def _packages_of_torch() -> Path:
    return Path(torch.__file__).parents[1]


def _is_word(text: str) -> bool:
    return bool(text) and all(c.isalnum() or c in "._-+" for c in text) and text[0].isalnum()
