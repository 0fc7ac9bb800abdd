"""One of two ranks that train together: `python -m psannlm.checks.rank_worker FOLDER`.

Shape letters: B batch, T tokens.
"""

import sys
from pathlib import Path
from typing import cast, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from psannlm.checks.config import ValidationConfig
from psannlm.checks.courses import Tensors, learn, objective_of, optimizer_of, parameters_of
from psannlm.checks.launcher import Task, read_task
from psannlm.checks.texts import passages
from psannlm.config.training import Parallel
from psannlm.train.distributed import Ranks, share

N_STEPS = 3
N_PASSES = 2
"""Of each rank in a step: gradients must stay local until the last."""

WORLD = 2
STORE = "store"
"""File in which the ranks find each other: no port to be taken by somebody else."""


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
    objective = objective_of(config.network_of(base), config.seed, ranks.device)
    blocks = list(objective.model.blocks)
    shared = share(objective, blocks, ranks, cast("Parallel", kind))
    optimizer = optimizer_of(shared, config)
    learned = learn(shared, optimizer, steps_of(config, ranks.rank), ranks.device)
    return {
        "losses": learned.losses,
        **{f"gradient.{name}": t for name, t in learned.gradients.items()},
        **{f"parameter.{name}": t for name, t in parameters_of(shared).items()},
    }


def joined(task: Task) -> Ranks:
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
    ranks = joined(task)
    for job in task.jobs:
        task.leave(job, train(task.config, job, ranks))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
