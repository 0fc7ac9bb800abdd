"""The peak of torch's CPU allocator over one step, from its own record of every allocation."""

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

Step = Callable[[], object]
MARK = "the step whose peak is asked for"


def peak_of_second_step(make: Callable[[], Step]) -> int:
    """Most bytes that the allocator held at one time in the second call of what `make` returns.

    What `make` and the first call have left is part of it, as they are on record too; what was
    there before is not, nor is memory that libraries take past torch.

    Args:
        make: Builds all that the step needs, and returns the step.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step = make()
        step()
        with record_function(MARK):
            step()
    with tempfile.TemporaryDirectory(prefix="psannlm-trace-") as folder:
        trace = Path(folder, "trace.json")
        record.export_chrome_trace(str(trace))
        return _peak(json.loads(trace.read_text(encoding="utf-8"))["traceEvents"])


def _peak(events: Iterable[Mapping[str, Any]]) -> int:
    """Largest sum of what is held while the mark lasts."""
    named = sorted((e for e in events if "ts" in e), key=lambda e: float(e["ts"]))
    [mark] = [e for e in named if e.get("name") == MARK and e.get("cat") == "user_annotation"]
    start, end = mark["ts"], mark["ts"] + mark["dur"]
    held: dict[int, int] = {}
    level = peak = 0
    for event in named:
        if event.get("name") != "[memory]":
            continue
        address, change = event["args"]["Addr"], event["args"]["Bytes"]
        if change > 0:
            held[address] = change
            level += change
        else:
            level -= held.pop(address, 0)  # what was there before is not counted as freed either
        if event["ts"] <= start:
            peak = level
        elif event["ts"] <= end:
            peak = max(peak, level)
    return peak
