"""Whether a step ran compiled is read back from the compiler, whatever keeps it from compiling."""

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from psannlm.train import compilation
from psannlm.train.compilation import Compilation, compiled_or_eager

HEADER = "fatal error: Python.h: No such file or directory"
COMPLAINT = (
    f"C++ compile error\n\nCommand:\n/usr/bin/g++ a.cpp\n\nOutput:\n/var/a/b.hpp:1: {HEADER}\n"
)


DYNAMO: Any = torch._dynamo.config


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """What a test tells the compiler it tells no other test."""
    with DYNAMO.patch(suppress_errors=False):
        yield
    torch.compiler.set_stance("default")
    torch.compiler.reset()


def refuse(graph: Any, inputs: Any) -> Any:
    """A backend that does not compile."""
    raise ValueError(COMPLAINT)


def small(x: torch.Tensor) -> torch.Tensor:
    return (torch.sin(x) * x).sum()


def broken(x: torch.Tensor) -> torch.Tensor:
    y = torch.sin(x).sum().detach()
    torch._dynamo.graph_break()
    return (torch.sin(x) * x).sum() + 0 * y


def made_of(
    function: Callable[..., Any] = small, backend: Any = "eager", sizes: tuple[int, ...] = (3, 3)
) -> Compilation:
    """What is read back of a function that is called with as many numbers."""

    def run(compiled: bool) -> float:
        step = torch.compile(function, backend=backend, dynamic=False) if compiled else function
        for n in sizes:
            loss = step(torch.ones(n, requires_grad=True))
            loss.backward()
        return float(loss.detach())

    value, made = compiled_or_eager(run)
    assert value == pytest.approx(float(small(torch.ones(sizes[-1]))))
    return made


def test_frames_and_graph_breaks_are_those_of_what_ran_last():
    assert made_of(broken) == Compilation(frames=2, graph_breaks=1)
    assert made_of() == Compilation(frames=1), "nothing of the run before"
    assert made_of().words == "compiled (1 frames, 0 graph breaks)"
    assert made_of(sizes=(3, 4)).frames == 2


@pytest.mark.parametrize("name", compilation.SWITCHES)
def test_a_compiler_that_is_switched_off_is_named(name, monkeypatch):
    monkeypatch.setenv(name, "1")
    with DYNAMO.patch(disable=name == "TORCH_COMPILE_DISABLE"):  # read when it was loaded
        made = made_of()

    assert made == Compilation(eager=f"torch.compile compiled nothing, {name} is 1")


def test_code_that_is_kept_from_compiling_is_eager_whoever_keeps_it():
    hidden = made_of(lambda x: torch.compiler.disable(small)(x))
    torch.compiler.set_stance("force_eager")

    assert hidden.eager == made_of().eager == "torch.compile compiled nothing"


def test_code_that_is_compiled_too_often_is_eager_from_then_on():
    with DYNAMO.patch(recompile_limit=1):
        made = made_of(sizes=(3, 4, 5))

    assert made.frames == 1
    assert made.eager.startswith("Unsupported: Dynamo recompile limit exceeded, in 1 of ")


def test_a_failure_is_the_reason_without_folders_of_the_machine_suppressed_or_not():
    raised = made_of(backend=refuse)
    with DYNAMO.patch(suppress_errors=True):
        suppressed = made_of(backend=refuse)

    assert raised.eager.startswith("it does not compile, BackendCompilerFailed: ")
    assert suppressed.eager.startswith("BackendCompilerFailed: ")
    for made in (raised, suppressed):
        assert made.frames == 0
        assert HEADER in made.eager
        assert "/" not in made.eager
        assert made.words == f"eager ({made.eager})"


@pytest.mark.parametrize(
    ("error", "tried"),
    [(ArithmeticError("loss is nan"), [True, False]), (torch.OutOfMemoryError("full"), [True])],
)
def test_what_fails_eagerly_too_is_raised_and_so_is_full_memory(error, tried):
    run = Mock(side_effect=error)

    with pytest.raises(type(error)):
        compiled_or_eager(run)
    assert [call.args[0] for call in run.call_args_list] == tried


def test_what_is_known_to_be_missing_is_not_tried():
    found = compiled_or_eager(lambda compiled: compiled, "no compiler")

    assert found == (False, Compilation(eager="no compiler"))
