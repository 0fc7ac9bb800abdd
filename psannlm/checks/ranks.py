"""GPU-05 and GPU-06: two ranks with batches of their own learn what one process learns from both.

Shape letters: B batch, T tokens.
"""

import functools
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from psannlm.bench.processes import last_words
from psannlm.checks import networks
from psannlm.checks.findings import Case, Measure, Result, ValidationConfig
from psannlm.checks.networks import EPSILON, Learned, Named, difference, joined, learn, start
from psannlm.config.training import Parallel
from psannlm.train.distributed import Ranks, share

CONTROL_FACTOR = 100  # a mistake must be so many times its bound, that no rounding hides it
N_STEPS = 3
N_PASSES = 2  # of each rank in a step: gradients must stay local until the last
WORLD = 2
ResultT = TypeVar("ResultT")
JUDGED = {
    "gradients": (
        "difference of the gradients from those of one process, relative, worst parameter",
        "A sum of n float32 terms of either sign, taken in another order, moves by about sqrt(n) "
        "rounding errors; n counts the tokens and the features they are summed over.",
    ),
    "update": (
        f"difference of what {N_STEPS} AdamW steps changed, relative",
        "AdamW's first steps follow the sign of a gradient: at a relative error e of the gradients "
        "a share e of the signs is open, each an error of 2, so 2 sqrt(e) in norm.",
    ),
    "losses": (
        "difference of the losses, relative, worst step",
        "The loss of all batches is the mean of the losses of the ranks, summed in another order.",
    ),
    "unlike": (
        "parameters that differ between the ranks, elements",
        "Both ranks take the same step from the same average, so nothing may differ.",
    ),
    "control": (
        "control: difference of one rank's own gradients from those of both, relative",
        f"Ranks that kept their own gradients must be {CONTROL_FACTOR} times further off than is "
        "allowed; with equal batches they would not be off at all.",
    ),
}
"""What is judged: its name, and why its bound is where it is; of the control it is the least."""


def check(case: Case, kind: Parallel) -> Result:
    """Hold what two ranks learn, sharing the network in a way, to what one process learns."""
    device, words = _place(case)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="psannlm-ranks-") as folder:
        # The ranks find each other in a file: no port to be taken by somebody else.
        store = Path(folder, "store").as_uri()
        calls = [functools.partial(work, case, kind, device, rank, store) for rank in range(WORLD)]
        found, other = in_processes(calls, case.config.timeout_seconds)
    waited = time.perf_counter() - began
    before, alone, own = _alone(case, device)
    gradient, worst = networks.largest_difference(found.gradients, alone.gradients, own)
    update, expected = (joined(learned.parameters) - joined(before) for learned in (found, alone))
    losses = (found.losses + other.losses) / WORLD
    n_tokens = WORLD * N_PASSES * case.config.batch * case.config.context_length
    # Of gradients summed in another order. The longest sums have a term for each token and each
    # feature of the MLP, as those of one number that weighs a whole layer; signs are as good as
    # random in a fresh network.
    bound = float(EPSILON * (n_tokens * case.network.d_mlp) ** 0.5)
    judged = {
        "gradients": (gradient, bound),
        "update": (difference(update, expected), 2 * bound**0.5),
        "losses": (float(((losses - alone.losses) / alone.losses).abs().max()), bound),
        "unlike": (networks.n_different(found.parameters, other.parameters), 0),
        "control": (difference(joined(own), joined(alone.gradients)), CONTROL_FACTOR * bound),
    }
    measures = [
        Measure(name=name, value=value, bound=limit, upper=part != "control", why=why)
        for part, (value, limit) in judged.items()
        for name, why in [JUDGED[part]]
    ]
    facts = {
        "ranks": WORLD,
        "steps": N_STEPS,
        "passes_per_rank": N_PASSES,
        "tokens_per_step": n_tokens,
        "loss_of_ranks": losses.tolist(),
        "loss_of_one_process": alone.losses.tolist(),
        "worst_gradient": worst,
        "seconds_of_ranks": waited,
    }
    return Result(measures=measures, facts=facts, device=words)


def _alone(case: Case, device: torch.device) -> tuple[Named, Learned, Named]:
    """One process on the batches of all ranks: parameters before it, and what it learns.

    The last are gradients of rank 0's batches alone.
    """
    config = case.config
    shares = [steps_of(config, rank) for rank in range(WORLD)]
    steps = [[torch.cat([*one, *other])] for one, other in zip(*shares, strict=True)]
    objective, optimizer = start(case.network, config, device, config.seed)
    before = networks.parameters_of(objective)
    own = learn(*start(case.network, config, device, config.seed), shares[0][:1])
    return before, learn(objective, optimizer, steps), own.gradients


def _place(case: Case) -> tuple[torch.device, str]:
    """Where the ranks run, and the words that say so."""
    n_gpus = torch.cuda.device_count() if case.device.type == "cuda" else 0
    if n_gpus >= WORLD:
        return torch.device("cuda"), f"cuda, {WORLD} processes over nccl, a GPU each"
    why = "there is one GPU" if n_gpus else "no GPU is used"
    return torch.device("cpu"), f"cpu, {WORLD} processes over gloo, as {why}"


def work(case: Case, kind: Parallel, device: torch.device, rank: int, store: str) -> Learned:
    """What a rank learns from its batches, in a process of its own."""
    is_cuda = device.type == "cuda"
    if is_cuda:
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    backend = "nccl" if is_cuda else "gloo"
    dist.init_process_group(backend, init_method=store, rank=rank, world_size=WORLD)
    learned = train(case, kind, Ranks(rank, WORLD, device))
    dist.destroy_process_group()
    return learned


def train(case: Case, kind: Parallel, ranks: Ranks) -> Learned:
    """Train the network of a case, shared in a way, on the batches of this rank."""
    objective, _ = start(case.network, case.config, ranks.device, case.config.seed)
    shared = share(objective, list(objective.model.blocks), ranks, kind)
    optimizer = networks.optimizer_of(shared, case.config, **networks.TRAINER)
    return learn(shared, optimizer, steps_of(case.config, ranks.rank))


def steps_of(config: ValidationConfig, rank: int) -> list[list[Tensor]]:
    """What a rank is trained on: for each step its passes, (B, T + 1), other ones for each rank."""
    count = N_STEPS * WORLD * N_PASSES * config.batch
    text = networks.passages(config, count, config.context_length + 1)
    shares = text.view(N_STEPS, WORLD, N_PASSES, config.batch, -1)
    return [list(shares[step, rank]) for step in range(N_STEPS)]


class ProcessError(Exception):
    """A process that left no result; its text says what became of it."""


def in_processes(calls: Sequence[Callable[[], ResultT]], timeout_seconds: float) -> list[ResultT]:
    """What each call returns in a new process of its own.

    Calls are found by their names there; tensors that they return must be on the CPU. ProcessError
    if a process failed, or they took too long: then all of them are stopped.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "psannlm.checks.suite"])
    n_threads = max(1, torch.get_num_threads() // len(calls))
    processes: list[BaseProcess] = []
    with tempfile.TemporaryDirectory(prefix="psannlm-check-") as name:
        files = [Path(name, f"{i}.pt") for i in range(len(calls))]
        try:
            for call, file in zip(calls, files, strict=True):
                process = context.Process(target=_begin, args=(call, file, n_threads))
                process.start()
                processes.append(process)
            if ending := _watch(processes, timeout_seconds):
                logs = (file.with_suffix(".txt") for file in files)
                words = "; ".join(filter(None, map(last_words, logs)))
                said = f"last words: {words}" if words else "it said nothing"
                raise ProcessError(f"{ending}; {said}")
        finally:
            for started in processes:
                started.kill()
                started.join()
        return [torch.load(file, weights_only=False) for file in files]


def _begin(call: Callable[[], object], file: Path, n_threads: int) -> None:
    """Make the call, in a new process, which ends when the one that started it does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with file.with_suffix(".txt").open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    torch.set_num_threads(n_threads)
    torch.backends.cudnn.allow_tf32 = False  # as in the process that started this one
    torch.save(call(), file)


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _watch(processes: Sequence[BaseProcess], seconds: float) -> str:
    """Until all have ended, one has failed, or time is over: the others would wait for it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        codes = [process.exitcode for process in processes]
        for i, code in enumerate(codes):
            if code:
                how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
                return f"process {i} of {len(processes)} {how}"
        if all(code == 0 for code in codes):
            return ""
        time.sleep(0.02)
    return f"timed out after {seconds:g} s"
