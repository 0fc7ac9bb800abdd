"""Device, precision and compiler are chosen in one place, and the machine is described."""

import functools
import json
import re
import subprocess
import sys
import types

import pytest
import torch

from psannlm import device
from psannlm.bench import environment
from psannlm.config.schema import ConfigError

CPU = torch.device("cpu")


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(device.shutil, "which", lambda name: None)

    assert device.missing_compiler(CPU) == "no C++ compiler found (looked for g++, clang++, c++)"


NVML = {
    "nvmlInit": None,
    "nvmlDeviceGetCount": 1,
    "nvmlDeviceGetHandleByIndex": 0,
    "nvmlDeviceGetName": "NVIDIA T4",
    "nvmlSystemGetDriverVersion": "535.54.03",
    "nvmlSystemGetCudaDriverVersion": 12020,
}


@pytest.fixture
def driver(monkeypatch):
    """Lets a stand-in for NVML tell of a driver where torch finds no CUDA, but for what changes."""

    def tell(**changes):
        def ask(name, *_):
            if isinstance(answer := (NVML | changes)[name], Exception):
                raise answer
            return answer

        nvml = types.SimpleNamespace(**{name: functools.partial(ask, name) for name in NVML})
        monkeypatch.setitem(sys.modules, "pynvml", nvml)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "__version__", "2.13.0+mine")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tell


@pytest.mark.parametrize(
    ("built", "visible", "newest", "message"),
    [
        (None, None, 12020, "2.13.0+mine is built for no CUDA; run `make setup TORCH=cu126`"),
        (None, "0", 13010, "2.13.0+mine is built for no CUDA; run `make setup TORCH=cu130`"),
        (None, None, 11040, "is built for no CUDA; install a newer driver"),
        ("13.0", None, 12020, "2.13.0+mine is built for CUDA 13.0; run `make setup TORCH=cu126`"),
        ("12.6", "", 12020, "is built for CUDA 12.6; CUDA_VISIBLE_DEVICES='' hides it: unset it"),
        ("12.6", None, 12020, "is built for CUDA 12.6; restart the machine if the driver was"),
    ],
)
@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_gpu_that_the_driver_shows_and_torch_does_not_is_never_passed_over(
    driver, monkeypatch, built, visible, newest, message, asked
):
    driver(nvmlSystemGetCudaDriverVersion=newest)
    monkeypatch.setattr(torch.version, "cuda", built)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    with pytest.raises(ConfigError, match=re.escape(message)) as refused:
        device.select_device(asked)

    cuda = f"{newest // 1000}.{newest % 1000 // 10}"
    shown = f"the driver 535.54.03 for CUDA {cuda} shows 1 x NVIDIA T4"
    start = f"device: {asked} means the GPU that is here, which torch cannot use: {shown}, torch "
    assert str(refused.value).startswith(start)
    assert str(refused.value).endswith("; or ask for device: cpu")
    assert device.select_device("cpu") == CPU


def test_a_driver_that_is_broken_is_told_and_never_passed_over(driver):
    for name in ("nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetName"):
        driver(**{name: OSError("Driver/library version mismatch")})
        with pytest.raises(ConfigError, match="says: Driver/library version mismatch, torch"):
            device.select_device("auto")


@pytest.mark.parametrize("absent", ["NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded", ""])
def test_a_machine_without_a_gpu_computes_on_its_cpu(driver, absent):
    driver(nvmlInit=type(absent, (Exception,), {})()) if absent else driver(nvmlDeviceGetCount=0)

    assert device.select_device("auto") == CPU
    with pytest.raises(ConfigError, match="use device: cpu or auto"):
        device.select_device("cuda")


@pytest.mark.parametrize("precision", device.DTYPES)
def test_autocast_multiplies_in_the_precision_asked_for(precision):
    with device.autocast(CPU, precision):
        product = torch.ones(2, 2) @ torch.ones(2, 2)

    assert product.dtype == device.DTYPES[precision]


def test_a_cpu_sums_in_a_fixed_order_for_as_long_as_it_is_asked_to_and_a_gpu_never():
    with device.repeatable(CPU):
        assert torch.are_deterministic_algorithms_enabled()

    assert not torch.are_deterministic_algorithms_enabled()
    with device.repeatable(torch.device("cuda")):
        assert not torch.are_deterministic_algorithms_enabled()


WITHOUT_TORCH = """
import sys, unittest.mock
sys.modules["torch"] = unittest.mock.MagicMock()
from psannlm import device
print(device.peak_resident_bytes())
"""


def test_the_peak_of_memory_is_of_this_process_and_not_of_the_one_that_started_it():
    told = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True)

    # Without torch the new process is much the smaller one.
    assert 0 < int(told.stdout) < device.resident_bytes() // 2
    assert device.resident_bytes() <= device.peak_resident_bytes()


@pytest.mark.parametrize("build", ["2.13.0+cu130", "2.13.0+cpu"])
def test_the_description_is_json_and_names_what_matters(build, monkeypatch):
    monkeypatch.setattr(torch, "__version__", build)
    monkeypatch.setattr(environment, "distributions", lambda: {"numpy": "2", "torch": "2.13.0"})

    described = json.loads(json.dumps(environment.describe_environment(CPU)))

    packages = described["software"]["packages"]
    assert (packages["torch"], packages["numpy"], packages["pandas"]) == (build, "2", None)
    assert described["settings"]["threads"] == torch.get_num_threads()
    assert described["cpu"]["cores"] >= 1
    assert described["gpu"] is None


def test_of_two_installed_versions_the_one_in_use_is_told(monkeypatch):
    named = [("A_b", "2"), ("a-b", "1"), (None, "3")]
    found = [types.SimpleNamespace(metadata={"Name": n}, version=v) for n, v in named]
    monkeypatch.setattr(environment.importlib.metadata, "distributions", lambda: found)

    assert environment.distributions() == {"a-b": "2"}
