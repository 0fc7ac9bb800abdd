"""Device, precision and compiler are chosen in one place, and refused with the way out."""

import subprocess
import sys

import pytest
import torch

from psannlm import device
from psannlm.config.schema import ConfigError

CPU = torch.device("cpu")


def test_without_a_gpu_cuda_is_refused_with_the_way_out_and_auto_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert device.select_device("auto") == CPU
    with pytest.raises(ConfigError, match="use device: cpu or auto"):
        device.select_device("cuda")


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(device.shutil, "which", lambda name: None)

    assert device.missing_compiler(CPU) == ("no C++ compiler found (looked for g++, clang++, c++)")


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


def test_the_peak_of_memory_is_of_this_process_and_not_of_the_one_that_started_it():
    ballast = bytearray(b"x" * 2**28)
    script = "from psannlm import device; print(device.peak_resident_bytes())"
    before = device.resident_bytes()

    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert len(ballast) < before <= device.peak_resident_bytes()
    # The process that imports this much and no ballast is the smaller one.
    assert int(told.stdout) < before - len(ballast) // 2
