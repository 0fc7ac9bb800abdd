"""Fixtures of all tests: one thread, fixed seeds, and float64 on demand."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.machines import simulate

torch.set_num_threads(1)  # the tensors are tiny: a second thread only waits for the first


@pytest.fixture(scope="session", autouse=True)
def _own_kernels(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Kernels that another run compiled, perhaps for other instructions, are not loaded here."""
    folder = tmp_path_factory.getbasetemp().parent / "kernels"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def generator() -> torch.Generator:
    """A source of random numbers of the test's own."""
    return torch.Generator().manual_seed(1)


@pytest.fixture
def float64() -> Iterator[None]:
    """All that a test makes is float64: its tolerances then test formulas, not rounding."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def machine_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Lets this process run on a machine that `tests.machines.simulate` makes up."""
    return partial(simulate, monkeypatch, tmp_path / "machine")


@pytest.fixture
def uncompilable(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], None]:
    """Makes torch.compile raise an error when its code runs, or else run it eagerly."""

    def set_to(error: Exception | None) -> None:
        def compiled(function: Any) -> Any:
            def run(*given: Any) -> Any:
                if error:
                    raise error
                return function(*given)

            return run

        monkeypatch.setattr(torch, "compile", compiled)

    return set_to
