"""GPU-08: a network saved and loaded by a new process is the same bit by bit, and so goes on."""

import functools
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.optim import AdamW

from psannlm.checks import networks
from psannlm.checks.findings import Case, Measure, Result, ValidationConfig
from psannlm.checks.networks import EPSILON, Learned, Named, difference, joined, learn, start
from psannlm.checks.ranks import in_processes
from psannlm.config.schema import ConfigError
from psannlm.model.generate import generate
from psannlm.model.sampling import GREEDY, Sampling
from psannlm.train import checkpoint
from psannlm.train.distributed import gather, scatter
from psannlm.train.objective import NextToken

N_STEPS = 3  # before the checkpoint, and after it again
N_PROMPT, N_NEW = 8, 24
FLIPPED_AT = (0.0, 0.001, 0.25, 0.5, 0.999999)  # places of flipped bits, as shares of a file
FILES = (checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.ABOUT)
SAME = {
    "weights": (
        "weights that differ after loading, elements",
        "A checkpoint holds every bit of every weight; the new process started from other ones.",
    ),
    "optimizer": (
        "tensors of the optimizer that differ after loading, elements",
        "The steps after a checkpoint depend on the optimizer's averages and its count of steps.",
    ),
    "generated": (
        "generated tokens that differ, greedy and sampled",
        "The same weights, prompts and seeds give the same tokens in any process.",
    ),
}

Account = Mapping[str, Named]  # what must be the same after loading: SAME, and `continued` steps


def check(case: Case) -> Result:
    """What a new process loads, generates and learns on, against what was saved."""
    objective, optimizer = start(case.network, case.config, case.device, case.config.seed)
    advance(objective, optimizer, case.config, 0)
    with tempfile.TemporaryDirectory(prefix="psannlm-saved-") as folder:
        weights, tensors = gather(objective, [optimizer])
        about = {"step": N_STEPS, "network": case.network.model_dump(mode="json")}
        written = checkpoint.save(Path(folder), weights, tensors, about)
        n_bytes = sum(path.stat().st_size for path in written.iterdir())
        accepted = flips_accepted(written)
        began = time.perf_counter()
        call = functools.partial(work, case, Path(folder))
        [found] = in_processes([call], case.config.timeout_seconds)
        seconds = time.perf_counter() - began
    right = account(objective, optimizer, case.config)
    same = [
        Measure(name=name, value=networks.n_different(found[part], right[part]), bound=0, why=why)
        for part, (name, why) in SAME.items()
    ]
    refusals = Measure(
        name="flipped bits that were not refused by the name of their file",
        value=len(accepted),
        bound=0,
        why="A hash sees any change; a file with one wrong bit must not be trained on.",
    )
    facts = {
        "tensors": len(right["weights"]) + len(right["optimizer"]),
        "checkpoint_bytes": n_bytes,
        "steps_before_and_after": [N_STEPS, N_STEPS],
        "bits_flipped": len(FLIPPED_AT) * len(FILES),
        "flips_accepted": accepted,
        "seconds_of_new_process": seconds,
    }
    continued = _continued(case, found["continued"], right["continued"])
    return Result(measures=(*same, continued, refusals), facts=facts)


def _continued(case: Case, found: Named, right: Named) -> Measure:
    """Parameters and losses of the steps after the checkpoint."""
    if case.device.type == "cpu":
        return Measure(
            name=f"parameters and losses that differ after {N_STEPS} more steps, elements",
            value=networks.n_different(found, right),
            bound=0,
            why="On a CPU the same steps from the same state give the same digits.",
        )
    terms = case.config.batch * case.config.context_length * case.network.d_mlp
    return Measure(
        name=f"difference of parameters and losses after {N_STEPS} more steps, relative",
        value=difference(joined(found), joined(right)),
        bound=float(2 * (EPSILON * terms**0.5) ** 0.5),
        why="A GPU adds up an embedding's gradient in any order: sqrt(n) rounding errors, of which "
        "AdamW, which follows signs, makes up to 2 sqrt(e).",
    )


def flips_accepted(folder: Path) -> list[str]:
    """Flip single bits of a checkpoint's files, one at a time; those that loading lets pass."""
    passed = []
    for path in (folder / name for name in FILES):
        content = path.read_bytes()
        for bit, share in enumerate(FLIPPED_AT):
            at = min(len(content) - 1, int(share * len(content)))
            flipped = bytes([content[at] ^ 1 << bit])
            path.write_bytes(content[:at] + flipped + content[at + 1 :])
            try:
                checkpoint.load(folder)
                said = "loaded"
            except ConfigError as error:
                said = "" if path.name in str(error) else str(error)
            except Exception as error:
                said = type(error).__name__
            passed += [f"{path.name}, byte {at}: {said}"] if said else []
        path.write_bytes(content)
    return passed


def advance(objective: NextToken, optimizer: AdamW, config: ValidationConfig, part: int) -> Learned:
    """Train on the batches of a part of the run, 0 or 1."""
    text = networks.passages(config, 2 * N_STEPS * config.batch, config.context_length + 1)
    steps = text.view(2, N_STEPS, 1, config.batch, -1)[part]
    return learn(objective, optimizer, [list(step) for step in steps])


def account(objective: NextToken, optimizer: AdamW, config: ValidationConfig) -> Account:
    """All that must be the same after loading: tensors, generated tokens, and the next steps."""
    weights, tensors = (
        {name: t.clone() for name, t in part.items()} for part in gather(objective, [optimizer])
    )
    objective.eval()
    prompts = networks.passages(config, 2, N_PROMPT)
    n_new = min(N_NEW, config.context_length - N_PROMPT)
    write = functools.partial(generate, objective.model, prompts, n_tokens=n_new, seed=config.seed)
    ways = {"greedy": GREEDY, "sampled": Sampling(temperature=0.9, top_k=50, top_p=0.95)}
    generated = {n: torch.stack(write(sampling=way)).cpu() for n, way in ways.items()}
    learned = advance(objective, optimizer, config, 1)
    told = {"weights": weights, "optimizer": tensors, "generated": generated}
    return told | {"continued": {**learned.parameters, "losses": learned.losses}}


def work(case: Case, folder: Path) -> Account:
    """The account of a network made of the checkpoint in a folder, and of nothing else."""
    read = checkpoint.load(checkpoint.checkpoints(folder)[-1])
    other_seed = (case.config.seed + 1) % 2**32
    objective, optimizer = start(case.network, case.config, case.device, other_seed)
    scatter(objective, [optimizer], read.weights, read.optimizer)
    return account(objective, optimizer, case.config)
