"""Peak rates that makers state for their GPUs, in FLOP/s of dense matrix products.

A GPU is known by the whole name that CUDA gives it: a variant may be called almost the same and be
a fifth slower. Where a datasheet states a rate with sparsity, half of it stands here. fp32 is the
rate without tensor cores, as torch multiplies float32 by default.
"""

_A100 = {"bf16": 312e12, "fp16": 312e12, "fp32": 19.5e12}  # NVIDIA A100 datasheet
_HOPPER_SXM = {"bf16": 989e12, "fp16": 989e12, "fp32": 67e12}  # NVIDIA H100 and H200 datasheets

PEAKS: dict[str, dict[str, float]] = {
    "NVIDIA H200": _HOPPER_SXM,
    "NVIDIA H100 80GB HBM3": _HOPPER_SXM,
    "NVIDIA H100 PCIe": {"bf16": 756e12, "fp16": 756e12, "fp32": 51e12},  # NVIDIA H100 datasheet
    "NVIDIA A100-SXM4-40GB": _A100,
    "NVIDIA A100-SXM4-80GB": _A100,
    "NVIDIA A100-PCIE-40GB": _A100,
    "NVIDIA A100 80GB PCIe": _A100,
    "NVIDIA L40S": {"bf16": 362e12, "fp16": 362e12, "fp32": 91.6e12},  # NVIDIA L40S datasheet
    "NVIDIA L4": {"bf16": 121e12, "fp16": 121e12, "fp32": 30.3e12},  # NVIDIA L4 datasheet
}


def stated_peak(device_name: str, precision: str) -> float | None:
    """Peak of the device in FLOP/s, or None where no datasheet is known."""
    return PEAKS.get(device_name, {}).get(precision)
