"""All checks by name, and what becomes of each: one finding a check and base, whatever happens."""

import functools
import gc
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from psannlm.bench.environment import device_name
from psannlm.bench.rates import COMPILING, PROCESS_SECONDS, Pace
from psannlm.checks import (
    checkpointing,
    decoding,
    fast_paths,
    findings,
    forward_backward,
    precision,
    ranks,
    saving,
    speed,
)
from psannlm.checks.findings import Case, Finding, Measure, Result, ValidationConfig
from psannlm.places import public


class Entry(NamedTuple):
    """A check of the suite."""

    title: str
    question: str  # what it asks, in a sentence
    run: Callable[[Case], Result]


CHECKS: Mapping[str, Entry] = {
    "GPU-01": Entry(
        "forward and backward",
        "Does a network compute its formulas, see no future, give every parameter a gradient, "
        "and learn the next token of a short text?",
        forward_backward.check,
    ),
    "GPU-02": Entry(
        "half precision",
        "Are loss, gradients and a short course of training in half precision those of fp32, but "
        "for rounding?",
        precision.check,
    ),
    "GPU-03": Entry(
        "speed",
        "Are the speeds of forward pass and training step below what the device can do, and timed "
        "to the end of the work?",
        speed.check,
    ),
    "GPU-04": Entry(
        "gradient checkpointing",
        "Are gradients the same when activations are computed again in the backward pass, with "
        "less kept for it?",
        checkpointing.check,
    ),
    "GPU-05": Entry(
        "data-parallel ranks (DDP)",
        "Do two ranks with batches of their own learn what one process learns from both?",
        functools.partial(ranks.check, kind="ddp"),
    ),
    "GPU-06": Entry(
        "sharded ranks (FSDP)",
        "Do two ranks learn the same when parameters, gradients and the optimizer's state are "
        "shared out between them?",
        functools.partial(ranks.check, kind="fsdp"),
    ),
    "GPU-07": Entry(
        "generation",
        "Is what a network generates what its full forward pass says, from memory too, and a text "
        "that it has learned by heart that text?",
        decoding.check,
    ),
    "GPU-08": Entry(
        "checkpoint",
        "Is a network that a new process loads the same bit by bit, in what it generates too, and "
        "a flipped bit refused?",
        saving.check,
    ),
    "FAST": Entry(
        "fast paths",
        "Does each fast path, such as the fused sine, a kernel of attention or the loss by chunks, "
        "err at most twice as much as the plain one of its precision?",
        fast_paths.check,
    ),
}
"""Every check by its name, in the order in which they are made."""
STEPS, PROCESSES = 100, 8  # of a whole batch, of each base; of ranks and what is loaded again


def plan(config: ValidationConfig) -> list[tuple[str, str]]:
    """Each check that is asked for with each base, in the order in which they are made."""
    chosen = [name for name in CHECKS if not config.only or name in config.only]
    return [(check, base) for check in chosen for base in config.base]


def expected_seconds(config: ValidationConfig, pace: Pace) -> float:
    """What all checks should take, or as many of them as are asked for; see `Page`."""
    n_courses = config.n_seeds * (1 + len(config.precision))
    n_short = config.fit_steps + precision.STEPS * n_courses  # on texts of 64 tokens at most
    length = config.context_length
    tokens = config.batch * (STEPS * length + n_short * min(64, length))
    seconds = PROCESSES * PROCESS_SECONDS
    for network in map(config.network_of, config.base):
        seconds += pace.step(network, tokens, "fp32", updates=STEPS + n_short)
        seconds += 2 * config.min_seconds + config.compile * COMPILING[True] / 2
    return seconds * len(config.only or CHECKS) / len(CHECKS)


def validate(
    config: ValidationConfig, device: torch.device, done: Collection[tuple[str, str]] = ()
) -> Iterator[Finding]:
    """Make check after check, each for every base, but for those that are done.

    Yields a finding as soon as it is made; an error within a check is one too.
    """
    for check, base in plan(config):
        if (check, base) not in done:
            # Each check finds the same state, whichever were made before it.
            torch.manual_seed(config.seed)
            if device.type == "cuda":
                gc.collect()  # what an earlier check left would count as memory of this one
            yield find(check, Case(base=base, config=config, device=device))


def find(check: str, case: Case) -> Finding:
    """What becomes of one check of one base: passed, failed or skipped, with its reason."""
    result, skipped = Result(measures=()), False
    start = time.perf_counter()
    try:
        result = CHECKS[check].run(case)
        reason = complaint(result.measures)
    except findings.UncheckableError as error:
        reason, skipped = first_line(error), True
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
    return Finding(
        check=check,
        base=case.base,
        status="skipped" if skipped else "failed" if reason else "passed",
        device=result.device or device_name(case.device),
        seconds=time.perf_counter() - start,
        reason=reason,
        measures=tuple(result.measures),
        facts=result.facts,
    )


def complaint(measures: Sequence[Measure]) -> str:
    """Why a check with these measures has failed; empty if it passed."""
    if not measures:
        return "the check judged nothing"
    broken = [m for m in measures if not m.passed]
    if not broken:
        return ""
    more = f", and {len(broken) - 1} more out of bounds" if len(broken) > 1 else ""
    return stated(max(broken, key=lambda m: m.bound_ratio)) + more


def stated(measure: Measure) -> str:
    """A measure beside its bound, in words."""
    rule = "at most" if measure.upper else "at least"
    return f"{measure.name} is {measure.value:.4g}, must be {rule} {measure.bound:.4g}"


def first_line(error: Exception) -> str:
    """What an error says first, without the folders of this machine."""
    return public((str(error).strip() or type(error).__name__).splitlines()[0])
