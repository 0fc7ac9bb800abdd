"""Which half precision a device has is measured, and `auto` means what that says."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from psannlm import ROOT
from psannlm.bench import machine, rates
from psannlm.bench.rates import HalfPrecision, agreed, resolve, stated
from psannlm.evidence import session, text
from psannlm.evidence.notebook import committed, default_parameters
from psannlm.evidence.runs import load
from psannlm.files import unlock
from psannlm.pages.throughput.page import PAGE
from psannlm.train.distributed import Ranks
from tests.kernels import Kernel
from tests.synthetic import start_manifest, throughput_config
from tests.tiny_trainings import ALONE, training_config
from tests.toy.page import ToyConfig

CPU = torch.device("cpu")
WITHOUT_BF16 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
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
        monkeypatch.setattr(rates, "half_precision", lambda device: HalfPrecision(flop_per_s))

    return set_rates


@pytest.mark.parametrize("name", MACHINES)
def test_native_is_what_is_faster_than_fp32_and_auto_is_bf16_or_fp32(name):
    flop_per_s, native = MACHINES[name]
    found = HalfPrecision(flop_per_s)

    assert [one for one in flop_per_s if found.native(one)] == native.split()
    assert found.auto == ("bf16" if "bf16" in native else "fp32")


def measured_with(variables: dict[str, str]) -> tuple[HalfPrecision, float, list[int]]:
    code = (
        "import json, time, torch; from psannlm.bench.rates import half_precision as measure\n"
        "before, start = torch.get_num_threads(), time.monotonic(); device = torch.device('cpu')\n"
        "found, spent = measure(device), time.monotonic() - start\n"
        "assert measure(device) is found\n"
        "print(json.dumps([dict(found.rates), spent, [before, torch.get_num_threads()]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | variables, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    flop_per_s, spent, threads = json.loads(done.stdout)
    return HalfPrecision(flop_per_s), spent, threads


def test_a_processor_without_bf16_is_found_out_within_a_second_and_keeps_its_threads():
    found, spent, threads = measured_with(WITHOUT_BF16)

    assert not found.native("bf16")
    assert found.auto == "fp32"
    assert spent < 1
    assert threads[0] == threads[1]


@pytest.mark.skipif(
    "avx512_bf16" not in machine.describe_cpu()["instructions"],
    reason="this processor has no instructions for bf16",
)
def test_a_processor_with_instructions_for_bf16_has_it():
    assert rates.half_precision(CPU).native("bf16")


def test_a_type_that_torch_cannot_multiply_has_no_rate_and_full_memory_is_no_such_type(monkeypatch):
    def refuse(error):
        def lap(self, step, n_steps):
            raise error

        monkeypatch.setattr(
            rates, "stopwatch_for", lambda device: type("Watch", (), {"lap": lap})()
        )

    refuse(RuntimeError("no kernel image is available"))
    assert rates._rate(CPU, torch.float16) == 0
    refuse(torch.OutOfMemoryError("full"))
    with pytest.raises(torch.OutOfMemoryError):
        rates._rate(CPU, torch.float16)


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
        assert resolve(throughput_config(precision=asked), CPU).precision == expected
        assert resolve(throughput_config(precision=asked), CPU, ["bf16"]).precision == (
            ("bf16",) if "auto" in asked else asked
        ), "what a run that goes on holds counts"


def test_a_training_takes_the_precision_of_its_first_rank_or_of_its_folder(on):
    asked, second = training_config(precision="auto"), Ranks(1, 2, CPU)
    of_first = replace(second, rank=0)
    machines = iter(("AVX2", "H200", "H200"))

    class Together(Ranks):
        """Two ranks whose sum is what the first has given."""

        def sum(self, values):
            told.append(int(values))
            return torch.tensor(sum(told))

    for held, expected in ((None, "fp32"), ("fp32", "fp32"), (None, "bf16")):
        on(MACHINES[next(machines)][0])
        assert agreed(asked, ALONE, held).precision == expected
        told: list[int] = []
        ranks = [Together(r.rank, 2, CPU) for r in (of_first, second)]
        assert [agreed(asked, r, held).precision for r in ranks] == [expected] * 2
    assert agreed(training_config(precision="fp16"), ALONE, "bf16").precision == "fp16"


class Shell(Kernel):
    """What a notebook's kernel has of IPython, with the parameters of a run."""

    def __init__(self, **values):
        cells = committed("throughput").cells
        super().__init__(*[cell.source for cell in cells if cell.cell_type == "code"][:2])
        self.user_ns = default_parameters("throughput") | values
        self.events = self

    def register(self, *_):
        pass


def started(monkeypatch, **values):
    monkeypatch.setattr(session, "running_notebook", lambda name: Shell(**values))
    return session.start(PAGE)


def test_a_run_holds_what_auto_was_and_why_and_goes_on_with_that(on, monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_OUT", str(tmp_path))
    on(T4)

    begun = started(monkeypatch, precision=["auto", "fp16"], device="cpu")
    begun.run.seal("failed", "interrupted")
    unlock(begun.run.held)  # as the end of its process does
    on(MACHINES["H200"][0])
    monkeypatch.setenv(session.RESUME, str(begun.run.folder))
    again = started(monkeypatch, precision=["auto", "fp16"], device="cpu")

    assert begun.config.precision == again.config.precision == ("fp32", "fp16")
    manifest = load(Path(begun.run.folder)).manifest
    assert manifest["parameters"]["precision"] == ["fp32", "fp16"]
    told = {"asked": ["auto", "fp16"], "flop_per_s": T4, "emulated": ["bf16"]}
    assert manifest["precision"] == told
    said = "auto, fp16 asked, fp32, fp16 used; products of one thread: "
    assert f"{said}fp32 8 TFLOP/s, bf16 3 TFLOP/s emulated, fp16 40 TFLOP/s<" in text.machine(
        manifest
    )


def test_a_run_that_asks_for_no_precision_measures_and_states_none(monkeypatch):
    monkeypatch.setattr(rates, "half_precision", lambda device: pytest.fail("measured"))
    asked = ToyConfig(preset="smoke", base=("respsann",), device="cpu", seed=0)

    assert stated(asked, CPU) == {}
    assert resolve(asked, CPU) is asked
    assert "products" not in text.machine(start_manifest("toy", asked) | {"run": "x"})
