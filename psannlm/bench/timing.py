"""What a step takes: its time, by the one timing loop of the project, and its memory.

The loop knows nothing of models: it times a callable. Samples are kept as they fell; none is
dropped. Of memory, bytes that autograd saves for backward are counted storage by storage, exact on
any device, and the peak is that of torch's CPU allocator. Needs torch alone, so that the
interpreter of another package uses this same file. Shape letters: B batch, T tokens.
"""

import contextlib
import itertools
import json
import math
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

WINDOW = 3  # steps of one warm-up window
MAX_WINDOWS = 10
FEW = 2  # timed steps in a precision that the device emulates
STEADY = 0.05  # two windows are steady whose medians differ by less than this fraction

MARK = "the step whose peak is asked for"

Step = Callable[[], object]
Loss = Callable[[Tensor, Tensor], Tensor]  # tokens and targets, each (B, T), to nats per token


@dataclass(frozen=True)
class HostStopwatch:
    """For work that is done when the call returns."""

    clock: Callable[[], float] = time.perf_counter

    def lap(self, step: Step, n_steps: int) -> list[float]:
        """Seconds of each of n_steps runs of `step`, back to back, in order."""
        samples = []
        for _ in range(n_steps):
            start = self.clock()
            step()
            samples.append(self.clock() - start)
        return samples


class CudaStopwatch:
    """For work that a GPU does behind the call: events around each step, one wait at the end."""

    def lap(self, step: Step, n_steps: int) -> list[float]:
        event: Callable[..., torch.cuda.Event] = torch.cuda.Event
        marks = [event(enable_timing=True) for _ in range(n_steps + 1)]
        torch.cuda.synchronize()
        marks[0].record()
        for mark in marks[1:]:
            step()
            mark.record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) / 1000 for a, b in itertools.pairwise(marks)]  # of milliseconds


Stopwatch = HostStopwatch | CudaStopwatch


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What one measurement saw."""

    first_seconds: float  # the first call, with whatever it had to compile or allocate
    n_warmup: int  # untimed steps after the first and before the samples
    steady: bool  # whether the last two warm-up windows agreed
    seconds: tuple[float, ...]  # each timed step, in order


def stopwatch_for(device: torch.device) -> Stopwatch:
    """The stopwatch that sees all work of `device`."""
    return CudaStopwatch() if device.type == "cuda" else HostStopwatch()


def time_steps(
    step: Step, *, stopwatch: Stopwatch, min_seconds: float, min_steps: int, emulated: bool = False
) -> Timing:
    """Time `step` once it runs steadily, for `min_seconds` together and `min_steps` at least.

    What is `emulated` takes long and is not compared: FEW steps are timed, however unsteady.
    """
    [first] = stopwatch.lap(step, 1)
    if emulated:
        seconds = tuple(stopwatch.lap(step, FEW))
        return Timing(first_seconds=first, n_warmup=0, steady=False, seconds=seconds)
    medians = [statistics.median(stopwatch.lap(step, WINDOW))]
    steady = False
    while not steady and len(medians) < MAX_WINDOWS:
        medians.append(statistics.median(stopwatch.lap(step, WINDOW)))
        steady = abs(medians[-1] - medians[-2]) <= STEADY * medians[-1]
    n_steps = max(min_steps, math.ceil(min_seconds / max(medians[-1], 1e-9)))
    seconds = tuple(stopwatch.lap(step, n_steps))
    n_warmup = WINDOW * len(medians)
    return Timing(first_seconds=first, n_warmup=n_warmup, steady=steady, seconds=seconds)


def training_step(
    model: nn.Module,
    loss_of: Loss,
    tokens: Tensor,
    targets: Tensor,
    *,
    precision: str,
    learning_rate: float,
) -> tuple[Callable[[], object], Callable[[], Tensor]]:
    """Forward, backward and AdamW on one batch; also a function that tells the latest loss."""
    model.train()
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=learning_rate, fused=True)
    scaler = torch.amp.GradScaler(tokens.device.type, enabled=precision == "fp16")
    latest: list[Tensor] = []

    def step() -> object:
        loss = loss_of(tokens, targets)
        backward: Any = scaler.scale(loss).backward
        backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        latest[:] = [loss.detach()]
        return loss

    return step, lambda: latest[0]


@dataclass
class Saved:
    """Storages that autograd saves, each once however many tensors view it."""

    # By address, the largest tensor saved of it; kept alive, so that no address comes twice.
    storages: dict[int, Tensor] = field(default_factory=dict)

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
    saved, excluded = Saved(), {p.untyped_storage().data_ptr() for p in parameters}

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        known = saved.storages.get(address)
        if address not in excluded and (known is None or tensor.numel() > known.numel()):
            saved.storages[address] = tensor
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
