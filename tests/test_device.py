"""Device, precision and compiler are chosen in one place, and the machine is described."""

import json
import subprocess
import sys

import pytest
import torch

from psannlm import device
from psannlm.bench import environment
from psannlm.config.schema import ConfigError

CPU = torch.device("cpu")


def test_a_missing_gpu_or_compiler_is_named_and_auto_is_then_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(device.shutil, "which", lambda name: None)

    assert device.select_device("auto") == CPU
    with pytest.raises(ConfigError, match="use device: cpu or auto"):
        device.select_device("cuda")
    assert device.missing_compiler(CPU) == "no C++ compiler found (looked for g++, clang++, c++)"


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


def test_the_description_is_json_and_names_what_matters():
    described = json.loads(json.dumps(environment.describe_environment(CPU)))

    assert described["software"]["packages"]["torch"] == torch.__version__
    assert described["settings"]["threads"] == torch.get_num_threads()
    assert described["cpu"]["cores"] >= 1
    assert described["gpu"] is None
    assert environment.version_of("no-such-package-anywhere") is None
