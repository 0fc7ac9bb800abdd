"""Device, precision and compiler are chosen in one place, and refused with the way out."""

import pytest
import torch

from psannlm import device
from psannlm.config.schema import ConfigError

CPU = torch.device("cpu")


def test_cuda_without_a_device_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(ConfigError, match="use device: cpu or auto"):
        device.select_device("cuda")


def test_auto_takes_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert device.select_device("auto") == CPU


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(device.shutil, "which", lambda name: None)

    assert device.missing_compiler(CPU) == ("no C++ compiler found (looked for g++, clang++, c++)")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast_multiplies_in_the_precision_asked_for(precision, dtype):
    with device.autocast(CPU, precision):
        product = torch.ones(2, 2) @ torch.ones(2, 2)

    assert product.dtype == device.DTYPES[precision]


def test_fp32_is_left_alone():
    with device.autocast(CPU, "fp32"):
        product = torch.ones(2, 2) @ torch.ones(2, 2)

    assert product.dtype == torch.float32


def test_a_cpu_sums_in_a_fixed_order_for_as_long_as_it_is_asked_to():
    with device.repeatable(CPU):
        assert torch.are_deterministic_algorithms_enabled()

    assert not torch.are_deterministic_algorithms_enabled()


def test_a_gpu_is_left_alone():
    with device.repeatable(torch.device("cuda")):
        assert not torch.are_deterministic_algorithms_enabled()
