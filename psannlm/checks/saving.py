"""GPU-08: a network saved and loaded by a new process is the same bit by bit, and so goes on.

One new process, `python -m psannlm.checks.saving FOLDER`, loads the networks of all bases; the
check of a base takes its part.
"""

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import AdamW

from psannlm.checks.config import ValidationConfig
from psannlm.checks.findings import Case, Measure, Result
from psannlm.checks.launcher import Outcome, Results, read_task, run_jobs
from psannlm.checks.networks import EPSILON, difference, joined, passages
from psannlm.checks.training_runs import (
    Tensors,
    learn,
    n_different,
    of_prefix,
    parameters_of,
    start,
    with_prefix,
)
from psannlm.config.schema import ConfigError
from psannlm.model.generate import generate
from psannlm.model.sampling import GREEDY, Sampling
from psannlm.train import checkpoint
from psannlm.train.distributed import gather, scatter
from psannlm.train.objective import NextToken

WORKER = ("psannlm.checks.saving",)
"""Module that the new process runs, and its first arguments."""

SAVED = "saved"
"""Folder in which a folder of each base holds its checkpoint."""

N_STEPS = 3
"""Before the checkpoint, and after it again."""

N_PROMPT, N_NEW = 8, 24
SAMPLED = Sampling(temperature=0.9, top_k=50, top_p=0.95)

FLIPPED_AT = (0.0, 0.001, 0.25, 0.5, 0.999999)
"""Places of flipped bits, as shares of a file."""

SAME = (
    (
        "weights.",
        "weights that differ after loading, elements",
        "A checkpoint holds every bit of every weight; the new process started from other ones.",
    ),
    (
        "optimizer.",
        "tensors of the optimizer that differ after loading, elements",
        "The steps after a checkpoint depend on the optimizer's averages and its count of steps.",
    ),
    (
        "generated.",
        "generated tokens that differ, greedy and sampled",
        "The same weights, prompts and seeds give the same tokens in any process.",
    ),
)
UNKNOWN = Outcome((), "no process has loaded it")
FILES = (checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.ABOUT)


@dataclass(frozen=True)
class Saved:
    """What one process saved, and what became of it in the other."""

    account: Mapping[str, Tensor] = field(default_factory=dict)
    """Of the process that saved."""

    n_bytes: int = 0
    accepted: tuple[str, ...] = ()
    """Flipped bits that were not refused by the name of their file: file, byte, and what was."""

    outcome: Outcome = UNKNOWN
    seconds: float = 0.0


_results = Results[Saved]()


def check(case: Case) -> Result:
    """GPU-08: what a new process loads, generates and learns on, against what was saved."""
    bases = tuple(dict.fromkeys((case.base, *case.config.base)))
    saved = _results.take(
        case.config, case.base, lambda: _save_and_load(case.config, bases, case.device)
    )
    found, right = saved.outcome.of(0), saved.account
    facts = {
        "tensors": sum(name.startswith(("weights.", "optimizer.")) for name in right),
        "checkpoint_bytes": saved.n_bytes,
        "steps_before_and_after": [N_STEPS, N_STEPS],
        "bits_flipped": len(FLIPPED_AT) * len(FILES),
        "flips_accepted": list(saved.accepted),
        "seconds_of_new_process": saved.seconds,
    }
    same = tuple(
        Measure(
            name=name,
            value=n_different(of_prefix(found, part), of_prefix(right, part)),
            bound=0,
            why=why,
        )
        for part, name, why in SAME
    )
    refusals = Measure(
        name="flipped bits that were not refused by the name of their file",
        value=len(saved.accepted),
        bound=0,
        why="A hash sees any change; a file with one wrong bit must not be trained on.",
    )
    return Result(measures=(*same, _continued(case, found, right), refusals), facts=facts)


def _continued(case: Case, found: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Measure:
    a, b = of_prefix(found, "continued."), of_prefix(right, "continued.")
    if case.device.type == "cpu":
        return Measure(
            name=f"parameters and losses that differ after {N_STEPS} more steps, elements",
            value=n_different(a, b),
            bound=0,
            why="On a CPU the same steps from the same state give the same digits.",
        )
    terms = case.config.batch * case.config.context_length * case.network.d_mlp
    return Measure(
        name=f"difference of parameters and losses after {N_STEPS} more steps, relative",
        value=difference(joined(a), joined(b)),
        bound=float(2 * (EPSILON * terms**0.5) ** 0.5),
        why="A GPU adds up an embedding's gradient in any order: sqrt(n) rounding errors, of which "
        "AdamW, which follows signs, makes up to 2 sqrt(e).",
    )


def _save_and_load(
    config: ValidationConfig, bases: Sequence[str], device: torch.device
) -> dict[str, Saved]:
    """Train and save each base here, load all in one new process."""
    made: dict[str, Saved] = {}
    with tempfile.TemporaryDirectory(prefix="psannlm-saved-") as name:
        place = Path(name, SAVED)
        for base in bases:
            try:
                made[base] = _saved(config, base, device, place / base)
            except Exception as error:  # of this base alone: the others are still asked for
                made[base] = Saved(outcome=Outcome((), f"{type(error).__name__}: {error}"))
        start = time.perf_counter()
        outcomes = run_jobs(
            WORKER,
            [base for base in bases if made[base].account],
            config,
            device=str(device),
            world=1,
            threads=torch.get_num_threads(),
            beside=place,
        )
        seconds = time.perf_counter() - start
    loaded = {b: replace(made[b], outcome=o, seconds=seconds) for b, o in outcomes.items()}
    return made | loaded


def _saved(config: ValidationConfig, base: str, device: torch.device, folder: Path) -> Saved:
    """A checkpoint after a few steps, and the account of the network that went on without it."""
    network = config.network_of(base)
    objective, optimizer = start(network, config, device, config.seed)
    advance(objective, optimizer, config, 0)
    weights, tensors = gather(objective, [optimizer])
    about = {"step": N_STEPS, "network": network.model_dump(mode="json")}
    written = checkpoint.save(folder, weights, tensors, about)
    return Saved(
        account=account(objective, optimizer, config),
        n_bytes=sum(path.stat().st_size for path in written.iterdir()),
        accepted=tuple(flips_accepted(written)),
    )


def flips_accepted(folder: Path) -> list[str]:
    """Flip single bits of a checkpoint's files, one at a time; those that loading lets pass."""
    passed = []
    for name in FILES:
        size = (folder / name).stat().st_size
        for i, share in enumerate(FLIPPED_AT):
            at = min(size - 1, int(share * size))
            _flip(folder / name, at, bit=i)
            try:
                checkpoint.load(folder)
                passed.append(f"{name}, byte {at}: loaded")
            except ConfigError as error:
                if name not in str(error):
                    passed.append(f"{name}, byte {at}: {error}")
            except Exception as error:
                passed.append(f"{name}, byte {at}: {type(error).__name__}")
            finally:
                _flip(folder / name, at, bit=i)
    return passed


def _flip(path: Path, at: int, *, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def advance(objective: NextToken, optimizer: AdamW, config: ValidationConfig, part: int) -> Tensor:
    """Train on the batches of a part of the run, 0 or 1; its losses."""
    text = passages(config, 2 * N_STEPS * config.batch, config.context_length + 1)
    steps = text.view(2, N_STEPS, 1, config.batch, -1)[part]
    device = next(objective.parameters()).device
    return learn(objective, optimizer, [list(step) for step in steps], device).losses


def account(objective: NextToken, optimizer: AdamW, config: ValidationConfig) -> Tensors:
    """All that must be the same after loading: tensors, generated tokens, and the next steps."""
    weights, tensors = gather(objective, [optimizer])
    told = with_prefix("weights.", {name: t.clone() for name, t in weights.items()})
    told |= with_prefix("optimizer.", {name: t.clone() for name, t in tensors.items()})
    objective.eval()
    prompts = passages(config, 2, N_PROMPT)
    n_new = min(N_NEW, config.context_length - N_PROMPT)
    for name, sampling in (("greedy", GREEDY), ("sampled", SAMPLED)):
        new = generate(
            objective.model, prompts, n_tokens=n_new, sampling=sampling, seed=config.seed
        )
        told[f"generated.{name}"] = torch.stack(new)
    told["continued.losses"] = advance(objective, optimizer, config, 1)
    return told | with_prefix("continued.", parameters_of(objective))


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
    objective, optimizer = start(config.network_of(base), config, device, other_seed)
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
