"""What an arm must pass before it is ranked: it sees no future, and it is no other arm.

Shape letters: T tokens, V vocabulary.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from psannlm.checks import networks
from psannlm.checks.findings import Measure
from psannlm.checks.networks import leak
from psannlm.pages.shootout.arms import arms_of, network_of
from psannlm.pages.shootout.comparison import by_seed
from psannlm.pages.shootout.plan import Cell, Chosen, grid, training_of
from psannlm.pages.shootout.records import Gate, ShootoutConfig, TrainingRecord

LENGTH = 256  # most tokens of the sequence on which networks are compared
SAME_WITHIN = 1e-9  # relative norm: logits of one network, added up in another order, are nearer
FEWEST_SEEDS = 2  # trainings that end in one loss to the last bit before it is no coincidence

NOISY_BOUND = 1e-9
"""Of the network with noisy parameters. In float64 a rounding moves a number by 1e-16 of it, and
layer after layer the logits by 1e-13; what leaks through any part of a network leaves 1e-3."""

TRAINED_BOUND = 1e-6
"""Of a finished training, in float64 on its own device. Wider, as training may make weights large,
which multiply a rounding; a future that helps to predict moves logits by 1e-2."""

Output = tuple[Mapping[str, torch.Size], Tensor]
"""Of an arm at the setting that all have in common, all parameters noisy: the shapes of its
parameters by name, and its logits (1, T, V) in float64."""


def gates(config: ShootoutConfig, chosen: Chosen, records: Sequence[TrainingRecord]) -> list[Gate]:
    """What the gates find of every arm, in the order of arms; networks are noisy, and in float64.

    A leak is looked for at the setting that the tuning has chosen, else the first of the grid. Arms
    are told apart at one setting for all, that of the configuration: two that are one network may
    have been tuned to different settings. Trainings that are compared and finished tell of leaks,
    too.
    """
    cpu, seed = torch.device("cpu"), config.tuning_seed
    size = (1, min(config.context_length, LENGTH))
    tokens = torch.randint(config.vocab_size, size, generator=torch.Generator().manual_seed(seed))
    leaks, outputs = {}, {}
    for arm in arms_of(config):
        setting = chosen.get(arm.name, grid(arm, config)[0])
        tuned = training_of(Cell(arm, setting, seed), config).network
        noisy = networks.perturbed(tuned, cpu, seed).double().eval()
        leaks[arm.name] = _worst_leak(arm.name, leak(noisy, tokens), records)
        model = networks.perturbed(network_of(arm, config), cpu, seed).double().eval()
        shapes = {name: p.shape for name, p in model.named_parameters(remove_duplicate=False)}
        with torch.no_grad():
            outputs[arm.name] = (shapes, model(tokens))
    first = _firsts(outputs, records)
    return [_gate(name, leaks[name], outputs, first[name]) for name in outputs]


def _worst_leak(name: str, noisy: float, records: Sequence[TrainingRecord]) -> Measure:
    """Of an arm, the leak that comes nearest to its bound, or goes farthest beyond."""
    why = "rounding moves less"
    measures = [Measure(name="with noisy parameters", value=noisy, bound=NOISY_BOUND, why=why)]
    measures += [
        Measure(name=f"as trained with seed {r.seed}", value=r.leak, bound=TRAINED_BOUND, why=why)
        for r in records
        if r.arm == name and r.final and r.leak is not None
    ]
    return max(measures, key=lambda measure: measure.bound_ratio)


def end_alike(one: str, other: str, records: Sequence[TrainingRecord]) -> bool:
    """Whether compared trainings of two arms have the same losses with every seed that both have.

    To the last bit, and with FEWEST_SEEDS at least.
    """
    mine, theirs = (
        by_seed(record for record in records if record.arm == name and record.final)
        for name in (one, other)
    )
    shared = mine.keys() & theirs.keys()
    return len(shared) >= FEWEST_SEEDS and all(mine[seed] == theirs[seed] for seed in shared)


def _firsts(outputs: Mapping[str, Output], records: Sequence[TrainingRecord]) -> dict[str, str]:
    """Of each arm, the first one that is the same network: itself, if there is none before it.

    Two arms are one network if their parameters and logits are equal, or all their trainings end in
    equal losses. What is the same as a copy is the same as its original.
    """
    first, order = {name: name for name in outputs}, list(outputs)
    for one, other in itertools.combinations(outputs, 2):
        (shapes, logits), (others, theirs) = outputs[one], outputs[other]
        is_one = shapes == others and networks.difference(logits, theirs) <= SAME_WITHIN
        if is_one or end_alike(one, other, records):
            kept, copied = sorted((first[one], first[other]), key=order.index)
            first = {name: kept if found == copied else found for name, found in first.items()}
    return first


def _gate(name: str, worst: Measure, outputs: Mapping[str, Output], first: str) -> Gate:
    gaps = {
        other: gap
        for other, (_, logits) in outputs.items()
        if other != name and math.isfinite(gap := networks.difference(logits, outputs[name][1]))
    }
    nearest = min(gaps, key=gaps.__getitem__, default="")
    is_finite = math.isfinite(worst.value)
    reason = (
        f"sees the future: a changed token moves logits before it by {worst.value:.1e} of the "
        f"largest, which must be at most {worst.bound:.0e}; {worst.why}"
    )
    if not is_finite:
        reason = "gives logits that are no finite numbers"
    return Gate(
        arm=name,
        leak=worst.value if is_finite else math.inf,
        bound=worst.bound,
        nearest=nearest,
        distance=gaps.get(nearest, 0.0),
        same_as=first if first != name else "",
        refused="" if worst.passed else f"{name} {worst.name} {reason}",
    )
