"""Fixtures of all tests: one thread, one seed, and networks small enough to run by the hundred."""

from collections.abc import Callable, Iterator

import pytest
import torch
from networks import tiny_config

from psannlm.config import ModelConfig

torch.set_num_threads(1)  # the tensors are tiny: a second thread only waits for the first


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
def tiny() -> Callable[..., ModelConfig]:
    """Makes the smallest network that has several heads and layers; keywords override."""
    return tiny_config
