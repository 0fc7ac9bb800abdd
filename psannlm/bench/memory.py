"""Memory of a step: bytes that autograd saves for backward, and the peak of torch's CPU allocator.

Saved bytes are counted storage by storage, exact on any device. Needs torch alone, so that other
packages' networks are counted by this same file.
"""

import contextlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

MARK = "the step whose peak is asked for"


@dataclass
class Saved:
    """Storages that autograd saves, each once however many tensors view it."""

    excluded: frozenset[int] = frozenset()  # addresses of storages that are there anyway

    # By address, the largest tensor saved of it; kept alive, so that no address comes twice.
    storages: dict[int, Tensor] = field(default_factory=dict)

    def add(self, tensor: Tensor) -> None:
        """Note a tensor that backward will need."""
        address = tensor.untyped_storage().data_ptr()
        known = self.storages.get(address)
        if address not in self.excluded and (known is None or tensor.numel() > known.numel()):
            self.storages[address] = tensor

    @property
    def kinds(self) -> Mapping[str, int]:
        """Bytes of the storages by what lies in them, such as `float32 1x512x2048`."""
        found: Counter[str] = Counter()
        for tensor in self.storages.values():
            shape = "x".join(map(str, tensor.shape)) or "scalar"
            kind = f"{str(tensor.dtype).removeprefix('torch.')} {shape}"
            found[kind] += tensor.untyped_storage().nbytes()
        return dict(found.most_common())

    @property
    def total(self) -> int:
        """Bytes of all of them."""
        return sum(self.kinds.values())


@contextlib.contextmanager
def saved_for_backward(parameters: Iterable[Tensor]) -> Iterator[Saved]:
    """Count what the forward pass within saves for its backward pass, but for the parameters.

    Of what is checkpointed, torch saves the inputs alone, and these alone are counted. What a
    function saves otherwise than by `save_for_backward` is not seen.
    """
    saved = Saved(frozenset(p.untyped_storage().data_ptr() for p in parameters))

    def pack(tensor: Tensor) -> Tensor:
        saved.add(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def peak_of_second_step(make: Callable[[], Callable[[], object]]) -> int:
    """Most bytes that the allocator held at one time in the second call of the step that is made.

    What making it and the first call have left is part of it, as they are on record too; what was
    there before is not, nor is memory that libraries take past torch.
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
        if event["ts"] <= end:
            peak = level if event["ts"] <= start else max(peak, level)
    return peak
