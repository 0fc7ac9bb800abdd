"""Stated peaks are found by the names that GPUs call themselves, and never guessed."""

import pytest

from psannlm.bench.ceiling import stated_peak


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
    ],
)
def test_a_known_gpu_has_its_dense_peak(name, expected):
    assert stated_peak(name, "bf16") == expected


@pytest.mark.parametrize("name", ["AMD EPYC, 2 cores", "NVIDIA H200 NVL", "NVIDIA L40"])
def test_an_unknown_device_has_none(name):
    assert stated_peak(name, "bf16") is None
