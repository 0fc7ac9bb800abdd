"""GPU-05 and GPU-06: two ranks with batches of their own learn what one process learns from both.

The ranks are started once for all bases and both ways of sharing; a check takes its part of what
they left.
Shape letters: B batch, T tokens.
"""

import functools
import time
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from psannlm.checks import networks
from psannlm.checks.config import Check, ValidationConfig
from psannlm.checks.findings import Case, Measure, Result
from psannlm.checks.launcher import Task, run_jobs, take
from psannlm.checks.networks import EPSILON, Learned, Named, difference, joined, learn, start
from psannlm.config.network import ModelConfig
from psannlm.config.training import Parallel
from psannlm.train.distributed import Ranks, share

KINDS: Mapping[Check, Parallel] = {"GPU-05": "ddp", "GPU-06": "fsdp"}
CONTROL_FACTOR = 100  # a mistake must be so many times its bound, that no rounding hides it
N_STEPS = 3
N_PASSES = 2  # of each rank in a step: gradients must stay local until the last
WORLD = 2


def check(case: Case, kind: Parallel) -> Result:
    """Hold what two ranks learn, sharing the network in a way, to what one process learns."""
    device, words = _place(case)
    began = time.perf_counter()
    job = f"{kind}.{case.base}"
    found, other = take(case.config, job, functools.partial(_learned, case, job, device))
    waited = time.perf_counter() - began
    before, alone, own = _alone(case, device)
    gradient, worst = networks.largest_difference(found.gradients, alone.gradients, own)
    losses = (found.losses + other.losses) / WORLD
    bound = gradient_bound(case.network, case.config)
    first = joined(before)
    update, expected = (joined(learned.parameters) - first for learned in (found, alone))
    gap = float(((losses - alone.losses) / alone.losses).abs().max())
    n_unlike = networks.n_different(found.parameters, other.parameters)
    control = difference(joined(own), joined(alone.gradients))
    measures = (
        *_differences(gradient, difference(update, expected), gap, bound),
        *_controls(n_unlike, control, bound),
    )
    facts = {
        "ranks": WORLD,
        "steps": N_STEPS,
        "passes_per_rank": N_PASSES,
        "tokens_per_step": tokens_per_step(case.config),
        "loss_of_ranks": losses.tolist(),
        "loss_of_one_process": alone.losses.tolist(),
        "worst_gradient": worst,
        "seconds_of_ranks": waited,
    }
    return Result(measures=measures, facts=facts, device=words)


def _differences(gradient: float, update: float, loss: float, bound: float) -> tuple[Measure, ...]:
    """Gradients, updates and losses of the ranks beside those of one process."""
    return (
        Measure(
            name="difference of the gradients from those of one process, relative, worst parameter",
            value=gradient,
            bound=bound,
            why="A sum of n float32 terms of either sign, taken in another order, moves by about "
            "sqrt(n) rounding errors; n counts the tokens and the features they are summed over.",
        ),
        Measure(
            name=f"difference of what {N_STEPS} AdamW steps changed, relative",
            value=update,
            bound=2 * bound**0.5,
            why="AdamW's first steps follow the sign of a gradient: at a relative error e of the "
            "gradients a share e of the signs is open, each an error of 2, so 2 sqrt(e) in norm.",
        ),
        Measure(
            name="difference of the losses, relative, worst step",
            value=loss,
            bound=bound,
            why="The loss of all batches is the mean of the losses of the ranks, summed in another "
            "order.",
        ),
    )


def _controls(n_unlike: int, own: float, bound: float) -> tuple[Measure, ...]:
    """Whether the ranks agree, and whether their batches were as unlike as the check needs."""
    return (
        Measure(
            name="parameters that differ between the ranks, elements",
            value=n_unlike,
            bound=0,
            why="Both ranks take the same step from the same average, so nothing may differ.",
        ),
        Measure(
            name="control: difference of one rank's own gradients from those of both, relative",
            value=own,
            bound=CONTROL_FACTOR * bound,
            upper=False,
            why=f"Ranks that kept their own gradients must be {CONTROL_FACTOR} times further off "
            "than is allowed; with equal batches they would not be off at all.",
        ),
    )


def gradient_bound(network: ModelConfig, config: ValidationConfig) -> float:
    """Relative error of a gradient summed in another order: sqrt(n) rounding errors.

    The longest sums have a term for each token and each feature of the MLP, as those of one
    number that weighs a whole layer; signs are as good as random in a fresh network.
    """
    return float(EPSILON * (tokens_per_step(config) * network.d_mlp) ** 0.5)


def tokens_per_step(config: ValidationConfig) -> int:
    """Of all ranks together."""
    return WORLD * N_PASSES * config.batch * config.context_length


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


def _learned(case: Case, job: str, device: torch.device) -> dict[str, Any]:
    """What ranks learn in every job that the configuration asks for, named KIND.BASE."""
    config = case.config
    kinds = [kind for check, kind in KINDS.items() if check in (config.only or KINDS)]
    jobs = dict.fromkeys([job, *(f"{kind}.{base}" for kind in kinds for base in config.base)])
    threads = max(1, torch.get_num_threads() // WORLD)
    return run_jobs(work, Task(config, tuple(jobs), device, threads, WORLD))


def work(task: Task) -> Iterator[Learned]:
    """What this process learns in each job as one of the ranks.

    They find each other in a file of their folder: no port to be taken by somebody else.
    """
    cuda = task.device.type == "cuda"
    device = torch.device("cuda", task.rank) if cuda else task.device
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=(task.folder / "store").as_uri(),
        rank=task.rank,
        world_size=task.world,
    )
    for job in task.jobs:
        yield train(task.config, job, Ranks(task.rank, task.world, device))
    dist.destroy_process_group()


def train(config: ValidationConfig, job: str, ranks: Ranks) -> Learned:
    """Train the network of a job, named KIND.BASE, on the batches of this rank."""
    kind, base = job.split(".", 1)
    objective, _ = start(config.network_of(base), config, ranks.device, config.seed)
    shared = share(objective, list(objective.model.blocks), ranks, cast("Parallel", kind))
    return learn(shared, networks.trainer_adamw(shared, config), steps_of(config, ranks.rank))


def steps_of(config: ValidationConfig, rank: int) -> list[list[Tensor]]:
    """What a rank is trained on: for each step its passes, (B, T + 1), other ones for each rank."""
    count = N_STEPS * WORLD * N_PASSES * config.batch
    text = networks.passages(config, count, config.context_length + 1)
    shares = text.view(N_STEPS, WORLD, N_PASSES, config.batch, -1)
    return [list(shares[step, rank]) for step in range(N_STEPS)]
