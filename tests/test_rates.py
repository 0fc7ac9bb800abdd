"""Which half precision a device has is measured, and `auto` means what that says."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from psannlm import ROOT
from psannlm.bench import machine, rates
from psannlm.bench.rates import Pace, agreed, resolve, stated
from psannlm.evidence import session, text
from psannlm.evidence.notebook import committed, default_parameters
from psannlm.evidence.runs import load
from psannlm.files import unlock
from psannlm.pages.throughput.page import PAGE
from tests.kernels import Kernel
from tests.synthetic import start_manifest, throughput_config
from tests.tiny_trainings import training_config
from tests.toy.page import ToyConfig

CPU = torch.device("cpu")
T4 = {"fp32": 8e12, "bf16": 3e12, "fp16": 40e12}
MACHINES = {  # rates in FLOP/s, and what is native
    "AVX2": ({"fp32": 112e9, "bf16": 1.6e9, "fp16": 2.1e9}, "fp32"),
    "AVX-512 that converts": ({"fp32": 112e9, "bf16": 85e9, "fp16": 1.9e9}, "fp32"),
    "AVX-512 bf16": ({"fp32": 112e9, "bf16": 433e9, "fp16": 1.5e9}, "fp32 bf16"),
    "T4": (T4, "fp32 fp16"),
    "H200": ({"fp32": 50e12, "bf16": 700e12, "fp16": 700e12}, "fp32 bf16 fp16"),
    "no kernel": ({"fp32": 1e12, "bf16": 0.0, "fp16": 0.0}, "fp32"),
}


@pytest.fixture
def on(monkeypatch):
    """Make this machine multiply at other rates."""

    def set_rates(flop_per_s: dict[str, float]) -> None:
        monkeypatch.setattr(rates, "half_precision", lambda device: Pace(flop_per_s))

    return set_rates


@pytest.mark.parametrize("name", MACHINES)
def test_native_is_what_is_faster_than_fp32_and_auto_is_bf16_or_fp32(name):
    flop_per_s, native = MACHINES[name]
    found = Pace(flop_per_s)

    assert [one for one in flop_per_s if found.native(one)] == native.split()
    assert found.auto == ("bf16" if "bf16" in native else "fp32")


MEASURE = """
import time, torch
from psannlm.bench.rates import half_precision
device, n_threads, start = torch.device("cpu"), torch.get_num_threads(), time.monotonic()
found = half_precision(device)
assert time.monotonic() - start < 1
assert half_precision(device) is found
assert torch.get_num_threads() == n_threads
print(found.auto)
"""


@pytest.mark.parametrize(
    ("variables", "auto"),
    [
        ({"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}, "fp32"),
        pytest.param(
            {},
            "bf16",
            marks=pytest.mark.skipif(
                "avx512_bf16" not in machine.describe_cpu()["instructions"],
                reason="this processor has no instructions for bf16",
            ),
        ),
    ],
)
def test_what_a_processor_has_is_measured_within_a_second_and_keeps_its_threads(variables, auto):
    found = subprocess.check_output(
        [sys.executable, "-c", MEASURE], cwd=ROOT, env=os.environ | variables, text=True
    )

    assert found.strip() == auto


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (RuntimeError("no kernel image"), contextlib.nullcontext()),
        (torch.OutOfMemoryError("full"), pytest.raises(torch.OutOfMemoryError)),
    ],
)
def test_a_type_that_torch_cannot_multiply_has_no_rate(monkeypatch, error, found):
    watch = Mock(**{"lap.side_effect": error})
    monkeypatch.setattr(rates, "stopwatch_for", lambda device: watch)

    with found:
        assert rates.product_rate(CPU, "fp16", 16, 1.0) == 0


@pytest.mark.parametrize(
    ("asked", "emulated", "native"),
    [
        (("auto",), ("fp32",), ("bf16",)),
        (("auto", "bf16"), ("fp32", "bf16"), ("bf16",)),
        (("fp32", "auto"), ("fp32",), ("fp32", "bf16")),
        (("bf16", "fp16"), ("bf16", "fp16"), ("bf16", "fp16")),
    ],
)
def test_auto_is_replaced_before_anything_is_measured_and_nothing_is_named_twice(
    on, asked, emulated, native
):
    for name, expected in (("AVX2", emulated), ("AVX-512 bf16", native)):
        on(MACHINES[name][0])
        config, held = throughput_config(precision=asked), ("bf16",)
        assert resolve(config, CPU).precision == expected
        assert resolve(config, CPU, held).precision == (held if "auto" in asked else asked)


@pytest.mark.parametrize(
    ("machine_name", "asked", "held", "expected"),
    [
        ("AVX2", "auto", None, "fp32"),
        ("H200", "auto", "fp32", "fp32"),
        ("H200", "auto", None, "bf16"),
        ("H200", "fp16", "bf16", "fp16"),
    ],
)
def test_a_training_takes_the_precision_of_its_first_rank_or_of_its_folder(
    on, machine_name, asked, held, expected
):
    given = []

    def total(value):
        given.append(int(value))
        return torch.tensor(sum(given))

    on(MACHINES[machine_name][0])
    ranks = [SimpleNamespace(is_first=first, device=CPU, sum=total) for first in (True, False)]
    config = training_config(precision=asked)

    assert [agreed(config, rank, held).precision for rank in ranks] == [expected, expected]


def started(monkeypatch, **values):
    """A run of the throughput notebook with these parameters."""
    sources = [cell.source for cell in committed("throughput").cells if cell.cell_type == "code"]
    kernel = Kernel(*sources[:2])
    kernel.user_ns, kernel.events = default_parameters("throughput") | values, Mock()
    monkeypatch.setattr(session, "running_notebook", lambda name: kernel)
    return session.start(PAGE)


def test_a_run_holds_what_auto_was_and_why_and_goes_on_with_that(on, monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_OUT", str(tmp_path))
    asked = {"precision": ["auto", "fp16"], "device": "cpu"}
    on(T4)

    begun = started(monkeypatch, **asked)
    begun.run.seal("failed", "interrupted")
    unlock(begun.run.lock)  # as the end of its process does
    on(MACHINES["H200"][0])
    monkeypatch.setenv(session.RESUME, str(begun.run.folder))
    again = started(monkeypatch, **asked)

    assert begun.config.precision == again.config.precision == ("fp32", "fp16")
    manifest = load(Path(begun.run.folder)).manifest
    assert manifest["parameters"]["precision"] == ["fp32", "fp16"]
    assert manifest["precision"] == {
        "asked": ["auto", "fp16"], "flop_per_s": T4, "emulated": ["bf16"],
    }  # fmt: skip
    assert (
        "auto, fp16 asked, fp32, fp16 used; products of one thread: fp32 8 TFLOP/s, "
        "bf16 3 TFLOP/s emulated, fp16 40 TFLOP/s<"
    ) in text.machine(manifest)


def test_a_run_that_asks_for_no_precision_measures_and_states_none(monkeypatch):
    monkeypatch.setattr(rates, "half_precision", lambda device: pytest.fail("measured"))
    asked = ToyConfig(preset="smoke", base=("respsann",), device="cpu", seed=0)

    assert stated(asked, CPU) == {}
    assert resolve(asked, CPU) is asked
    assert "products" not in text.machine(start_manifest("toy", asked) | {"run": "x"})
