"""GPU-03: speeds are numbers, below what the device can do, and timed to the end of the work.

Shape letters: B batch, T tokens.
"""

import functools
import math
import statistics
import time
from typing import Any, NamedTuple

import torch

from psannlm.bench.rates import is_emulated
from psannlm.bench.steps import measure_ceiling
from psannlm.bench.timing import Step, Stopwatch, stopwatch_for, time_steps
from psannlm.checks.findings import Case, Measure, Result
from psannlm.checks.networks import batches_of, optimizer_of, train_step
from psannlm.device import autocast
from psannlm.model.bases import build, cost_of
from psannlm.model.cost import Shape

LAPS = 3  # times that a number of steps and twice that number are timed, one after the other
LAP_SECONDS = 0.05  # least time of a lap: what a clock and a call cost is then nothing beside it
PASSES = 3  # a training step needs the products of a forward pass three times
NOISE = 2.0  # by which a machine that others use too may change its speed between two laps


class Speed(NamedTuple):
    """Of one kind of step, by the median of its times."""

    tokens_per_second: float
    flops_per_second: float


def check(case: Case) -> Result:
    """Time forward passes and training steps of B x T tokens."""
    # What a training on the device would use.
    on_gpu = case.device.type == "cuda" and "bf16" in case.config.precision
    precision = "bf16" if on_gpu and not is_emulated("cuda", "bf16") else "fp32"
    steps, stopwatch = steps_of(case, precision), stopwatch_for(case.device)
    measures = []
    for mode, step in steps.items():
        _lap(step, stopwatch, 1, case.device)  # with whatever it had to load
        _, wall = _lap(step, stopwatch, 2, case.device)
        n_steps = max(2, math.ceil(2 * LAP_SECONDS / wall))
        measures += timing_measures(mode, step, stopwatch, n_steps, case.device)
    if not all(measure.passed for measure in measures):
        # As many steps as fill a time on a stopwatch that does not see them would take ages.
        return Result(measures=measures, facts={"speeds": "none, as the stopwatch is wrong"})
    speeds = {mode: speed_of(case, mode, step, stopwatch) for mode, step in steps.items()}
    highest = ceiling(case.device, precision)
    facts: dict[str, Any] = {
        "precision": precision,
        "tokens of a step": case.config.batch * case.config.context_length,
        "fastest matrix product, FLOP/s": highest,
    }
    for mode, speed in speeds.items():
        facts[f"{mode}, tokens/s"] = speed.tokens_per_second
        facts[f"{mode}, share of the fastest product"] = speed.flops_per_second / highest
    return Result(measures=[*measures, *speed_measures(speeds, highest)], facts=facts)


def steps_of(case: Case, precision: str) -> dict[str, Step]:
    """The two steps that are timed, each with a network of its own."""
    config = case.config
    batch = batches_of(config, config.batch, rows=config.batch).batch(0)
    tokens, targets = (part.to(case.device) for part in batch)
    models = [build(case.network, seed=config.seed, device=case.device) for _ in range(2)]
    optimizer = optimizer_of(models[1], config)

    def forward() -> object:
        with torch.no_grad(), autocast(case.device, precision):
            return models[0].eval()(tokens)

    train = functools.partial(train_step, models[1], optimizer, (tokens, targets), precision)
    return {"forward": forward, "train_step": train}


def speed_of(case: Case, mode: str, step: Step, stopwatch: Stopwatch) -> Speed:
    """The speed of a step once it runs steadily."""
    config = case.config
    timing = time_steps(
        step, stopwatch=stopwatch, min_seconds=config.min_seconds, min_steps=config.min_steps
    )
    shape = Shape(config.batch, config.context_length)
    flops = cost_of(case.network, shape).model_flops * (PASSES if mode == "train_step" else 1)
    seconds = statistics.median(timing.seconds)
    return Speed(shape.total / seconds, flops / seconds)


@functools.cache
def ceiling(device: torch.device, precision: str) -> float:
    """FLOP/s of the fastest of all timed matrix products; measured once for all bases."""
    flops, timing = measure_ceiling(device, precision, min_seconds=0.5, min_steps=2)
    return flops / min(timing.seconds)


def speed_measures(speeds: dict[str, Speed], highest: float) -> list[Measure]:
    """Whether speeds are possible by themselves, and beside each other."""
    measures = []
    for mode, speed in speeds.items():
        measures += [
            Measure(
                name=f"{mode}: tokens/s",
                value=speed.tokens_per_second,
                bound=1.0,
                upper=False,
                why="whatever runs at all makes a token a second",
            ),
            Measure(
                name=f"{mode}: FLOP/s of the products it needs over those of the fastest product",
                value=speed.flops_per_second / highest,
                bound=1.0,
                why="no step is faster than the fastest of all large matrix products timed on the "
                "same device in the same precision; what it does besides only takes time",
            ),
        ]
    both = Measure(
        name="tokens/s of training over those of a forward pass",
        value=speeds["train_step"].tokens_per_second / speeds["forward"].tokens_per_second,
        bound=1.0,
        why="a training step begins with a forward pass",
    )
    return [*measures, both]


def timing_measures(
    mode: str, step: Step, stopwatch: Stopwatch, n_steps: int, device: torch.device
) -> list[Measure]:
    """Whether the stopwatch sees all of the work: beside a clock on the wall, and twice the work.

    The step is taken (1 + 2) * n_steps * LAPS times.
    """
    sizes = (n_steps, 2 * n_steps)
    pairs = [[_lap(step, stopwatch, n, device) for n in sizes] for _ in range(LAPS)]
    missed = max(_factor(*lap) for pair in pairs for lap in pair)
    off = min(_factor(double, 2 * single) for (single, _), (double, _) in pairs)
    return [
        Measure(
            name=f"{mode}: factor between the time of the stopwatch and that on the wall",
            value=missed,
            bound=NOISE,
            why="between the steps of a lap there is nothing else to wait for: a stopwatch that "
            "sees half of the time, or twice as much, does not time the work to its end",
        ),
        Measure(
            name=f"{mode}: factor by which twice the steps do not take twice the time",
            value=off,
            bound=NOISE,
            why="twice the work takes twice the time; others on the machine may change its speed "
            "by a factor of two between two laps, but hardly between those of three pairs",
        ),
    ]


def _lap(
    step: Step, stopwatch: Stopwatch, n_steps: int, device: torch.device
) -> tuple[float, float]:
    """Seconds that the stopwatch saw of so many steps, and that passed on the wall."""
    start = _now(device)
    inside = sum(stopwatch.lap(step, n_steps))
    return inside, _now(device) - start


def _now(device: torch.device) -> float:
    """The time once all work of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _factor(a: float, b: float) -> float:
    """How many times the larger is the smaller; infinite if one is zero or no number."""
    return max(a, b) / min(a, b) if a > 0 and b > 0 else math.inf
