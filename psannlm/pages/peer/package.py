"""The published package as a peer: installed apart, and its kept bytes counted by the same file."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from psannlm import CACHE
from psannlm.bench.environment import utc_now
from psannlm.bench.processes import refuse_what_cannot_fit, run_task
from psannlm.bench.upkeep import reason_of
from psannlm.config.schema import ConfigError
from psannlm.device import select_device
from psannlm.files import write_atomically
from psannlm.pages.memory.config import MemoryConfig
from psannlm.pages.memory.records import PeerRecord

BASE = "respsann"
"""The base of the package that is measured."""

STAMP = "peer.json"
INSTALL_SECONDS = 600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeerTask:
    """What one process of the other interpreter measures."""

    python: str
    """The interpreter of the environment that has the package."""

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    d_mlp: int
    batch: int
    tokens: int
    precision: str
    device: str
    seed: int
    modes: tuple[str, ...] = ("saved",)

    @property
    def worker(self) -> tuple[str, ...]:
        """Isolated (-I): neither this project's folder nor PYTHONPATH is searched for modules."""
        return (self.python, "-I", str(Path(__file__).with_name("saved_worker.py")))


def measure_peer(config: MemoryConfig, *, cache: Path = CACHE / "peers") -> Iterator[PeerRecord]:
    """Count what a step of the package that `config.peer` names keeps for backward.

    In the shape of the run's main cells, one record a precision; none if no peer is named. What
    goes wrong is a record with its reason.

    Args:
        config: The run's.
        cache: Folder of the environments of packages, each kept for the next run.
    """
    if not config.peer:
        return
    python, reason = "", ""
    try:
        _refuse_what_cannot_fit(config)
        python = str(environment(config.peer, cache))
    except (ConfigError, MemoryError, OSError, subprocess.SubprocessError) as error:
        reason = str(error) if isinstance(error, ConfigError) else reason_of(error)
    for precision in config.precision:
        yield _record(config, precision, python, reason)


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


def _refuse_what_cannot_fit(config: MemoryConfig) -> None:
    # A lower bound: cross-entropy keeps float32 log-chances of the whole batch.
    kept = 4 * config.batch_tokens[0] * config.vocab_size
    refuse_what_cannot_fit(kept, "what its loss keeps alone", select_device(config.device))


def _record(config: MemoryConfig, precision: str, python: str, reason: str) -> PeerRecord:
    package, _, version = config.peer.partition("==")
    shape = {name: getattr(config, name) for name in ("vocab_size", "d_model", "n_layers")}
    shape |= {name: getattr(config, name) for name in ("n_heads", "d_mlp")}
    found: dict[str, Any] = {"version": version, "status": "failed", "reason": reason}
    found |= {"n_parameters": None, "saved_bytes": None, "saved_kinds": {}}
    started_at = utc_now().isoformat()
    if not reason:
        task = PeerTask(
            python=python,
            **shape,
            batch=config.batch_tokens[0] // config.context_length,
            tokens=config.context_length,
            precision=precision,
            device=select_device(config.device).type,
            seed=config.seed,
        )
        cache = Path(os.devnull)  # nothing is compiled
        [row] = run_task(task, cache=cache, timeout_seconds=config.timeout_seconds)
        found |= {name: value for name, value in row.items() if name != "mode"}
    return PeerRecord(
        package=package,
        base=BASE,
        **shape,
        context_length=config.context_length,
        batch_tokens=config.batch_tokens[0],
        precision=precision,
        started_at=started_at,
        **found,
    )
