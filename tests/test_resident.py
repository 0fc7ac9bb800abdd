"""The memory of this process is told apart from that of the one that started it."""

import subprocess
import sys

from psannlm.device import peak_resident_bytes, resident_bytes


def test_the_peak_of_memory_is_of_this_process_and_not_of_the_one_that_started_it():
    ballast = bytearray(b"x" * 2**28)
    script = "from psannlm import device; print(device.peak_resident_bytes())"
    before = resident_bytes()

    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert len(ballast) < before <= peak_resident_bytes()
    # The process that imports this much and no ballast is the smaller one.
    assert int(told.stdout) < before - len(ballast) // 2
