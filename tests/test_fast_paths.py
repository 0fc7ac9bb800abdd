"""Fast paths are held to plain ones, in every base; broken ones are among the twins."""

from typing import Any

import pytest
import torch

from psannlm.checks import fast_paths
from psannlm.checks.fast_paths import check
from psannlm.checks.findings import Result
from tests.checked import BASES, case_of, failed

# Warnings about what torch's compiler itself does.
compiles = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script_method. is deprecated:DeprecationWarning",
    "ignore:.*Function'> should not be instantiated:DeprecationWarning",
)


def checked(base: str, **changes: Any) -> Result:
    return check(case_of(base, **changes))


def tried(result: Result) -> set[str]:
    return set(result.facts["errors"])


def test_a_base_is_tried_on_its_fast_paths_and_missing_kernels_have_a_reason() -> None:
    result = checked("transformer", context_length=8)
    names = {name.removesuffix(", fp32") for name in tried(result)}

    assert {"attention layer", "loss in chunks", "loss of each token"} <= names
    assert not any("sine" in name or "convolution" in name for name in names)
    for precision in ("fp32", "bf16"):
        for kernel in ("math", "flash", "efficient", "cudnn"):
            name = f"attention, {kernel} kernel, {precision}"
            assert (name in tried(result)) == (name not in result.facts["not tried"])
    assert "attention, math kernel, fp32" in tried(result)
    assert all(result.facts["not tried"].values())


def test_a_precision_that_the_device_refuses_is_a_fact_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    products = fast_paths._products

    def refuse(device: torch.device, precision: str) -> None:
        if precision == "bf16":
            raise RuntimeError("no such products here")
        products(device, precision)

    monkeypatch.setattr(fast_paths, "_products", refuse)

    result = checked("transformer", context_length=8)

    assert result.facts["not tried"]["bf16"] == "no such products here"
    assert {name.rpartition(", ")[2] for name in tried(result)} == {"fp32"}


def test_a_missing_compiler_is_a_fact_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_paths, "missing_compiler", lambda device: "no compiler found")

    result = checked("transformer", compile=True, context_length=8)

    assert result.facts["not tried"]["compiled network"] == "no compiler found"
    assert not any("compiled network" in name for name in tried(result))


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["rope", "alibi", "sinusoidal"])
@pytest.mark.parametrize("base", BASES)
def test_fast_paths_of_every_base_pass(base: str, positions: str) -> None:
    result = checked(base, positions=positions, precision=["bf16", "fp16"], d_model=32, seed=5)

    assert not failed(result)
    assert {name.rpartition(", ")[2] for name in tried(result)} == {"fp32", "bf16", "fp16"}


@pytest.mark.slow
@compiles
def test_the_compiled_network_is_held_to_the_eager_one() -> None:
    result = checked("respsann", compile=True, n_layers=1, n_seeds=1)

    assert {"compiled network, fp32", "compiled network, bf16"} <= tried(result)
    assert not failed(result)


def test_a_compiler_that_gets_a_sum_wrong_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda module: lambda *given: 1.05 * module(*given))

    result = checked("transformer", compile=True, n_layers=1, n_seeds=1, context_length=8)

    assert [name.partition(":")[0] for name in failed(result)] == [
        "compiled network, fp32",
        "compiled network, bf16",
    ]
