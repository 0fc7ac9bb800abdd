"""GPU-05 and GPU-06: two ranks with batches of their own learn what one process learns from both.

The ranks are started once for all bases and both ways of sharing; a check takes its part of what
they left.
"""

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from psannlm.checks.config import Check, ValidationConfig
from psannlm.checks.courses import (
    EPSILON,
    Tensors,
    distance,
    furthest,
    joined,
    learn,
    n_different,
    objective_of,
    optimizer_of,
    parameters_of,
)
from psannlm.checks.findings import Case, Measure, Result
from psannlm.checks.launcher import Outcome, run_jobs
from psannlm.checks.rank_worker import N_PASSES, N_STEPS, WORLD, steps_of
from psannlm.config.network import ModelConfig
from psannlm.config.training import Parallel

WORKER = ("psannlm.checks.rank_worker",)
"""Module that a rank runs, and its first arguments."""

KINDS: Mapping[Check, Parallel] = {"GPU-05": "ddp", "GPU-06": "fsdp"}
CLEARLY = 100
"""How many times its bound a mistake has to be larger than, so that no rounding hides it."""

_waiting: dict[tuple[ValidationConfig, str], Outcome] = {}
"""What the ranks left and no check has asked for yet; each is handed out once."""


def ddp(case: Case) -> Result:
    """GPU-05: gradients, steps and losses of two ranks under DDP against one process."""
    return _compare(case, "ddp")


def fsdp(case: Case) -> Result:
    """GPU-06: the same under FSDP2, where each rank has a piece of every parameter."""
    return _compare(case, "fsdp")


def _compare(case: Case, kind: Parallel) -> Result:
    device, words = _place(case)
    start = time.perf_counter()
    outcome = _outcome(case, kind, device)
    waited = time.perf_counter() - start
    found, other = outcome.of(0), outcome.of(1)
    alone = _alone(case, device)
    facts = {
        "ranks": WORLD,
        "steps": N_STEPS,
        "passes_per_rank": N_PASSES,
        "tokens_per_step": WORLD * N_PASSES * case.config.batch * case.config.context_length,
        "loss_of_ranks": ((found["losses"] + other["losses"]) / WORLD).tolist(),
        "loss_of_one_process": alone["losses"].tolist(),
        "worst_gradient": _furthest_gradient(found, alone)[1],
        "seconds_of_ranks": waited,
    }
    return Result(measures=_measures(case, found, other, alone), facts=facts, device=words)


def _measures(
    case: Case, found: Mapping[str, Tensor], other: Mapping[str, Tensor], alone: Tensors
) -> tuple[Measure, ...]:
    bound = gradient_bound(case.network, case.config)
    start, end = joined(_part(alone, "start.")), joined(_part(alone, "parameter."))
    update = joined(_part(found, "parameter.")) - start
    losses = (found["losses"] + other["losses"]) / WORLD
    return (
        Measure(
            name="difference of the gradients from those of one process, relative, worst parameter",
            value=_furthest_gradient(found, alone)[0],
            bound=bound,
            why="A sum of n float32 terms of either sign, taken in another order, moves by about "
            "sqrt(n) rounding errors; n counts the tokens and the features they are summed over.",
        ),
        Measure(
            name=f"difference of what {N_STEPS} AdamW steps changed, relative",
            value=distance(update, end - start),
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
        *_controls(found, other, alone, bound),
    )


def _controls(
    found: Mapping[str, Tensor], other: Mapping[str, Tensor], alone: Tensors, bound: float
) -> tuple[Measure, ...]:
    """Whether the ranks agree, and whether their batches were as unlike as the check needs."""
    own, right = joined(_part(alone, "own.")), joined(_part(alone, "gradient."))
    return (
        Measure(
            name="parameters that differ between the ranks, elements",
            value=n_different(_part(found, "parameter."), _part(other, "parameter.")),
            bound=0,
            why="Both ranks take the same step from the same average, so nothing may differ.",
        ),
        Measure(
            name="control: difference of one rank's own gradients from those of both, relative",
            value=distance(own, right),
            bound=CLEARLY * bound,
            upper=False,
            why=f"Ranks that kept their own gradients must be {CLEARLY} times further off than "
            "is allowed; with equal batches they would not be off at all.",
        ),
    )


def _furthest_gradient(found: Mapping[str, Tensor], alone: Tensors) -> tuple[float, str]:
    """The parameter whose gradient is furthest off, beside the larger of both ranks' and one's."""
    parts = _part(found, "gradient."), _part(alone, "gradient."), _part(alone, "own.")
    return furthest(*parts)


def gradient_bound(network: ModelConfig, config: ValidationConfig) -> float:
    """Relative error of a gradient summed in another order: sqrt(n) rounding errors.

    The longest sums have a term for each token and each feature of the MLP, as those of one
    number that weighs a whole layer; signs are as good as random in a fresh network.
    """
    n_tokens = WORLD * N_PASSES * config.batch * config.context_length
    return float(EPSILON * (n_tokens * network.d_mlp) ** 0.5)


def _alone(case: Case, device: str) -> Tensors:
    """What one process learns from the batches of all ranks, and the gradients of rank 0's own."""
    place = torch.device(device)
    shares = [steps_of(case.config, rank) for rank in range(WORLD)]
    steps = [
        [torch.cat([t for passes in step for t in passes])] for step in zip(*shares, strict=True)
    ]
    objective = objective_of(case.network, case.config.seed, place)
    start = parameters_of(objective)
    learned = learn(objective, optimizer_of(objective, case.config), steps, place)
    fresh = objective_of(case.network, case.config.seed, place)
    own = learn(fresh, optimizer_of(fresh, case.config), shares[0][:1], place)
    return {
        "losses": learned.losses,
        **_named("gradient.", learned.gradients),
        **_named("own.", own.gradients),
        **_named("start.", start),
        **_named("parameter.", parameters_of(objective)),
    }


def _outcome(case: Case, kind: Parallel, device: str) -> Outcome:
    """The part of a base; all parts that the configuration asks for are made at one time."""
    key = (case.config, f"{kind}.{case.base}")
    if key not in _waiting:
        asked = [k for check, k in KINDS.items() if check in (case.config.only or KINDS)]
        bases = case.config.base
        jobs = dict.fromkeys([key[1], *(f"{k}.{base}" for k in asked for base in bases)])
        found = run_jobs(
            WORKER,
            list(jobs),
            case.config,
            device=device,
            world=WORLD,
            threads=max(1, torch.get_num_threads() // WORLD),
        )
        _waiting.clear()
        _waiting.update({(case.config, job): outcome for job, outcome in found.items()})
    return _waiting.pop(key)


def _place(case: Case) -> tuple[str, str]:
    """Where the ranks run, and the words that say so."""
    n_gpus = torch.cuda.device_count() if case.device.type == "cuda" else 0
    if n_gpus >= WORLD:
        return "cuda", f"cuda, {WORLD} processes over nccl, a GPU each"
    why = "there is one GPU" if n_gpus else "no GPU is used"
    return "cpu", f"cpu, {WORLD} processes over gloo, as {why}"


def _part(tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    return {prefix + name: t for name, t in tensors.items()}
