"""Loads what another process saved: `python -m psannlm.checks.load_worker FOLDER`."""

import sys
from pathlib import Path

import torch
from torch.optim import AdamW

from psannlm.checks.config import ValidationConfig
from psannlm.checks.courses import (
    Tensors,
    learn,
    objective_of,
    optimizer_of,
    parameters_of,
)
from psannlm.checks.launcher import read_task
from psannlm.checks.texts import passages
from psannlm.config.schema import ConfigError
from psannlm.model.generate import generate
from psannlm.model.sampling import GREEDY, Sampling
from psannlm.train import checkpoint
from psannlm.train.distributed import gather, scatter
from psannlm.train.objective import NextToken

N_STEPS = 3
"""Before the checkpoint, and after it again."""

N_PROMPT, N_NEW = 8, 24
SAMPLED = Sampling(temperature=0.9, top_k=50, top_p=0.95)
SAVED = "saved"
"""Folder in which a folder of each base holds its checkpoint."""


def advance(objective: NextToken, optimizer: AdamW, config: ValidationConfig, part: int) -> Tensors:
    """Train on the batches of a part of the course, 0 or 1; its losses."""
    text = passages(config, 2 * N_STEPS * config.batch, config.context_length + 1)
    steps = text.view(2, N_STEPS, 1, config.batch, -1)[part]
    device = next(objective.parameters()).device
    return {"losses": learn(objective, optimizer, [list(step) for step in steps], device).losses}


def account(objective: NextToken, optimizer: AdamW, config: ValidationConfig) -> Tensors:
    """All that must be the same after loading: tensors, generated tokens, and the next steps."""
    weights, tensors = gather(objective, [optimizer])
    told = {f"weights.{name}": t.clone() for name, t in weights.items()}
    told |= {f"optimizer.{name}": t.clone() for name, t in tensors.items()}
    objective.eval()
    prompts = passages(config, 2, N_PROMPT)
    n_new = min(N_NEW, config.context_length - N_PROMPT)
    for name, sampling in (("greedy", GREEDY), ("sampled", SAMPLED)):
        new = generate(
            objective.model, prompts, n_tokens=n_new, sampling=sampling, seed=config.seed
        )
        told[f"generated.{name}"] = torch.stack(new)
    told["continued.losses"] = advance(objective, optimizer, config, 1)["losses"]
    return told | {f"continued.{name}": t for name, t in parameters_of(objective).items()}


def loaded(folder: Path, base: str, config: ValidationConfig, device: torch.device) -> Tensors:
    """The account of a network made of the checkpoint in `folder`, and of nothing else.

    Raises:
        ConfigError: There is no checkpoint, or it was altered.
    """
    found = checkpoint.checkpoints(folder)
    if not found:
        raise ConfigError(f"there must be a checkpoint below {folder}, and there is none")
    read = checkpoint.load(found[-1])
    other_seed = (config.seed + 1) % 2**32
    objective = objective_of(config.network_of(base), other_seed, device)
    optimizer = optimizer_of(objective, config)
    scatter(objective, [optimizer], read.weights, read.optimizer)
    return account(objective, optimizer, config)


def main(folder: Path) -> None:
    """Give the account of each base."""
    task = read_task(folder)
    for base in task.jobs:
        result = loaded(folder / SAVED / base, base, task.config, torch.device(task.device))
        task.leave(base, result)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
