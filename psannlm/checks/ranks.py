"""GPU-05 and GPU-06: two ranks with batches of their own learn what one process learns from both.

The ranks are started once for all bases and both ways of sharing; a check takes its part of what
they left. `python -m psannlm.checks.ranks FOLDER` is one of them.
Shape letters: B batch, T tokens.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from psannlm.checks.config import Check, ValidationConfig
from psannlm.checks.findings import Case, Measure, Result
from psannlm.checks.launcher import Outcome, Results, Task, read_task, run_jobs
from psannlm.checks.networks import EPSILON, Named, difference, joined, passages
from psannlm.checks.training_runs import (
    Tensors,
    largest_difference,
    learn,
    n_different,
    of_prefix,
    parameters_of,
    start,
    trainer_adamw,
    with_prefix,
)
from psannlm.config.network import ModelConfig
from psannlm.config.training import Parallel
from psannlm.train.distributed import Ranks, share

WORKER = ("psannlm.checks.ranks",)
"""Module that a rank runs, and its first arguments."""

KINDS: Mapping[Check, Parallel] = {"GPU-05": "ddp", "GPU-06": "fsdp"}
CONTROL_FACTOR = 100
"""How many times its bound a mistake has to be larger than, so that no rounding hides it."""

N_STEPS = 3
N_PASSES = 2
"""Of each rank in a step: gradients must stay local until the last."""

WORLD = 2
STORE = "store"
"""File in which the ranks find each other: no port to be taken by somebody else."""

_results = Results[Outcome]()


def ddp(case: Case) -> Result:
    """GPU-05: gradients, steps and losses of two ranks under DDP against one process."""
    return _compare(case, "ddp")


def fsdp(case: Case) -> Result:
    """GPU-06: the same under FSDP2, where each rank has a piece of every parameter."""
    return _compare(case, "fsdp")


def _compare(case: Case, kind: Parallel) -> Result:
    device, words = _place(case)
    began = time.perf_counter()
    outcome = _outcome(case, kind, device)
    waited = time.perf_counter() - began
    found, other = outcome.of(0), outcome.of(1)
    alone = _alone(case, device)
    gradient, worst = largest_difference(
        *(of_prefix(found, "gradient."), of_prefix(alone, "gradient."), of_prefix(alone, "own."))
    )
    losses = (found["losses"] + other["losses"]) / WORLD
    bound = gradient_bound(case.network, case.config)
    measures = (
        *_differences(found, alone, gradient, losses, bound),
        *_controls(found, other, alone, bound),
    )
    facts = {
        "ranks": WORLD,
        "steps": N_STEPS,
        "passes_per_rank": N_PASSES,
        "tokens_per_step": WORLD * N_PASSES * case.config.batch * case.config.context_length,
        "loss_of_ranks": losses.tolist(),
        "loss_of_one_process": alone["losses"].tolist(),
        "worst_gradient": worst,
        "seconds_of_ranks": waited,
    }
    return Result(measures=measures, facts=facts, device=words)


def _differences(
    found: Named, alone: Tensors, gradient: float, losses: Tensor, bound: float
) -> tuple[Measure, ...]:
    """Gradients, updates and losses of the ranks beside those of one process."""
    first, last = joined(of_prefix(alone, "start.")), joined(of_prefix(alone, "parameter."))
    update = joined(of_prefix(found, "parameter.")) - first
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
            value=difference(update, last - first),
            bound=2 * bound**0.5,
            why="AdamW's first steps follow the sign of a gradient: at a relative error e of the "
            "gradients a share e of the signs is open, each an error of 2, so 2 sqrt(e) in norm.",
        ),
        Measure(
            name="difference of the losses, relative, worst step",
            value=float(((losses - alone["losses"]) / alone["losses"]).abs().max()),
            bound=bound,
            why="The loss of all batches is the mean of the losses of the ranks, summed in another "
            "order.",
        ),
    )


def _controls(found: Named, other: Named, alone: Tensors, bound: float) -> tuple[Measure, ...]:
    """Whether the ranks agree, and whether their batches were as unlike as the check needs."""
    own, right = joined(of_prefix(alone, "own.")), joined(of_prefix(alone, "gradient."))
    return (
        Measure(
            name="parameters that differ between the ranks, elements",
            value=n_different(of_prefix(found, "parameter."), of_prefix(other, "parameter.")),
            bound=0,
            why="Both ranks take the same step from the same average, so nothing may differ.",
        ),
        Measure(
            name="control: difference of one rank's own gradients from those of both, relative",
            value=difference(own, right),
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
    n_tokens = WORLD * N_PASSES * config.batch * config.context_length
    return float(EPSILON * (n_tokens * network.d_mlp) ** 0.5)


def _alone(case: Case, device: str) -> Tensors:
    """What one process learns from the batches of all ranks, and the gradients of rank 0's own."""
    place, config = torch.device(device), case.config
    shares = [steps_of(config, rank) for rank in range(WORLD)]
    steps = [
        [torch.cat([t for passes in step for t in passes])] for step in zip(*shares, strict=True)
    ]
    objective, optimizer = start(case.network, config, place, config.seed)
    before = parameters_of(objective)
    learned = learn(objective, optimizer, steps, place)
    own = learn(*start(case.network, config, place, config.seed), shares[0][:1], place)
    return {
        "losses": learned.losses,
        **with_prefix("gradient.", learned.gradients),
        **with_prefix("own.", own.gradients),
        **with_prefix("start.", before),
        **with_prefix("parameter.", parameters_of(objective)),
    }


def _outcome(case: Case, kind: Parallel, device: str) -> Outcome:
    """The part of a base; all parts that the configuration asks for are made at one time."""
    job, config = f"{kind}.{case.base}", case.config

    def run() -> Mapping[str, Outcome]:
        asked = [k for check, k in KINDS.items() if check in (config.only or KINDS)]
        jobs = dict.fromkeys([job, *(f"{k}.{base}" for k in asked for base in config.base)])
        threads = max(1, torch.get_num_threads() // WORLD)
        return run_jobs(WORKER, list(jobs), config, device=device, world=WORLD, threads=threads)

    return _results.take(config, job, run)


def _place(case: Case) -> tuple[str, str]:
    """Where the ranks run, and the words that say so."""
    n_gpus = torch.cuda.device_count() if case.device.type == "cuda" else 0
    if n_gpus >= WORLD:
        return "cuda", f"cuda, {WORLD} processes over nccl, a GPU each"
    why = "there is one GPU" if n_gpus else "no GPU is used"
    return "cpu", f"cpu, {WORLD} processes over gloo, as {why}"


def steps_of(config: ValidationConfig, rank: int) -> list[list[Tensor]]:
    """What a rank is trained on: for each step its passes, (B, T + 1), other ones for each rank."""
    count = N_STEPS * WORLD * N_PASSES * config.batch
    text = passages(config, count, config.context_length + 1)
    shares = text.view(N_STEPS, WORLD, N_PASSES, config.batch, -1)
    return [list(shares[step, rank]) for step in range(N_STEPS)]


def train(config: ValidationConfig, job: str, ranks: Ranks) -> Tensors:
    """Losses, first gradients and last parameters of a job, named KIND.BASE."""
    kind, base = job.split(".", 1)
    if kind not in get_args(Parallel):
        raise ValueError(f"no way to share a network is called {kind}")
    objective, _ = start(config.network_of(base), config, ranks.device, config.seed)
    blocks = list(objective.model.blocks)
    shared = share(objective, blocks, ranks, cast("Parallel", kind))
    learned = learn(
        shared, trainer_adamw(shared, config), steps_of(config, ranks.rank), ranks.device
    )
    return {
        "losses": learned.losses,
        **with_prefix("gradient.", learned.gradients),
        **with_prefix("parameter.", parameters_of(shared)),
    }


def join_group(task: Task) -> Ranks:
    """This process among the ranks, in a process group."""
    cuda = task.device == "cuda"
    device = torch.device("cuda", task.rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=(task.folder / STORE).as_uri(),
        rank=task.rank,
        world_size=task.world,
    )
    return Ranks(task.rank, task.world, device)


def main(folder: Path) -> None:
    """Do all jobs of the task, each with the other rank."""
    task = read_task(folder)
    ranks = join_group(task)
    for job in task.jobs:
        task.leave(job, train(task.config, job, ranks))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
