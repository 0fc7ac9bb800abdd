"""Peak rates that makers state for their GPUs, in FLOP/s of dense matrix products.

Only what a maker's datasheet says, sparsity left out; a GPU that is not here has no stated peak.
fp32 is the rate without tensor cores, as torch multiplies float32 by default.
"""

PEAKS: dict[str, dict[str, float]] = {
    # NVIDIA H200 and H100 datasheets, SXM
    "H200": {"bf16": 989e12, "fp16": 989e12, "fp32": 67e12},
    "H100 80GB HBM3": {"bf16": 989e12, "fp16": 989e12, "fp32": 67e12},
    # NVIDIA H100 datasheet, PCIe
    "H100 PCIe": {"bf16": 756e12, "fp16": 756e12, "fp32": 51e12},
    # NVIDIA A100 datasheet
    "A100": {"bf16": 312e12, "fp16": 312e12, "fp32": 19.5e12},
    # NVIDIA L40S and L4 datasheets, half of the rates stated with sparsity
    "L40S": {"bf16": 362e12, "fp16": 362e12, "fp32": 91.6e12},
    "L4": {"bf16": 121e12, "fp16": 121e12, "fp32": 30.3e12},
}


def stated_peak(device_name: str, precision: str) -> float | None:
    """Peak of the device in FLOP/s, or None where no datasheet is known."""
    words = device_name.split()
    for name, peaks in PEAKS.items():
        if all(word in words or f"NVIDIA-{word}" in words for word in name.split()):
            return peaks.get(precision)
    # Names such as "NVIDIA A100-SXM4-80GB" carry the form factor behind a dash.
    for name, peaks in PEAKS.items():
        if any(word.split("-")[0] == name for word in words):
            return peaks.get(precision)
    return None
