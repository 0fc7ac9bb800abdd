"""What an arm must pass before it is ranked: it sees no future, and it is no other arm.

Shape letters: T tokens, V vocabulary.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from psannlm.checks import networks
from psannlm.checks.findings import Measure
from psannlm.checks.formulas import leak
from psannlm.config.network import ModelConfig
from psannlm.model.transformer import Transformer
from psannlm.pages.shootout.arms import Arm, arms_of, network_of
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.plan import Cell, Chosen, grid, training_of
from psannlm.pages.shootout.records import Gate, TrainingRecord

LENGTH = 256
"""Tokens of the sequence on which networks are compared, at most."""

NOISY_BOUND = 1e-9
"""Of the network with noisy parameters. In float64 a rounding moves a number by 1e-16 of it, and
layer after layer the logits by 1e-13; what leaks through any part of a network leaves 1e-3."""

TRAINED_BOUND = 1e-6
"""Of a finished training, in float64 on its own device. Wider, as training may make weights large,
which multiply a rounding; a future that helps to predict moves logits by 1e-2."""

SAME_WITHIN = 1e-9
"""Relative norm: logits of one network in float64, added up in another order, are nearer."""

FEWEST_SEEDS = 2
"""Trainings that have to end in one loss to the last bit before it is no coincidence."""


@dataclass(frozen=True)
class Output:
    """What an arm computes at the setting that all arms have in common, all parameters noisy."""

    shapes: Mapping[str, torch.Size]
    """Of its parameters, by name."""

    logits: Tensor
    """(1, T, V), float64."""


def gates(config: ShootoutConfig, chosen: Chosen, records: Sequence[TrainingRecord]) -> list[Gate]:
    """What the gates find of every arm, in the order of arms.

    A leak is looked for at the setting that the tuning has chosen, else the first of the grid. Arms
    are told apart at one setting for all, that of the configuration: two that are one network may
    have been tuned to different settings.

    Args:
        config: The arms, and the shape of their networks.
        chosen: By the tunings.
        records: Of the trainings so far; those that are compared and finished tell of leaks, too.
    """
    arms = arms_of(config)
    length = min(config.context_length, LENGTH)
    generator = torch.Generator().manual_seed(config.tuning_seed)
    tokens = torch.randint(config.vocab_size, (1, length), generator=generator)
    leaks = {arm.name: _worst_leak(arm, config, chosen, records, tokens) for arm in arms}
    outputs = {arm.name: _output(network_of(arm, config), config, tokens) for arm in arms}
    first = _firsts(outputs, lambda one, other: _one_network(one, other, outputs, records))
    return [_gate(arm.name, leaks[arm.name], outputs, first) for arm in arms]


def _noisy(network: ModelConfig, config: ShootoutConfig) -> Transformer:
    """The network in float64, all parameters away from where they start."""
    cpu = torch.device("cpu")
    return networks.perturbed(network, cpu, config.tuning_seed).double().eval()


def _worst_leak(
    arm: Arm,
    config: ShootoutConfig,
    chosen: Chosen,
    records: Sequence[TrainingRecord],
    tokens: Tensor,
) -> Measure:
    """The leak that comes nearest to its bound, or goes farthest beyond."""
    setting = chosen.get(arm.name, grid(arm, config)[0])
    network = training_of(Cell(arm, setting, config.tuning_seed), config).network
    found = [
        Measure(
            name="with noisy parameters",
            value=leak(_noisy(network, config), tokens),
            bound=NOISY_BOUND,
            why="rounding moves less",
        )
    ]
    found += [
        Measure(
            name=f"as trained with seed {record.seed}",
            value=record.leak,
            bound=TRAINED_BOUND,
            why="rounding moves less",
        )
        for record in records
        if record.arm == arm.name and record.final and record.leak is not None
    ]
    return max(found, key=lambda measure: measure.bound_ratio)


def _output(network: ModelConfig, config: ShootoutConfig, tokens: Tensor) -> Output:
    model = _noisy(network, config)
    shapes = {name: p.shape for name, p in model.named_parameters(remove_duplicate=False)}
    with torch.no_grad():
        return Output(shapes, model(tokens))


def _one_network(
    one: str, other: str, outputs: Mapping[str, Output], records: Sequence[TrainingRecord]
) -> bool:
    """Whether two arms have equal parameters and logits, or all their trainings equal losses."""
    a, b = outputs[one], outputs[other]
    if a.shapes == b.shapes and networks.difference(a.logits, b.logits) <= SAME_WITHIN:
        return True
    losses, others = (
        {
            r.seed: r.val_loss
            for r in records
            if r.arm == name and r.final and r.val_loss is not None
        }
        for name in (one, other)
    )
    shared = losses.keys() & others.keys()
    return len(shared) >= FEWEST_SEEDS and all(losses[seed] == others[seed] for seed in shared)


def _firsts(arms: Mapping[str, Output], is_one: Callable[[str, str], bool]) -> dict[str, str]:
    """Of each arm, the first one that is the same network: itself, if there is none before it.

    What is the same as a copy is the same as its original.
    """
    first, order = {name: name for name in arms}, list(arms)
    for one, other in itertools.combinations(arms, 2):
        if first[one] != first[other] and is_one(one, other):
            kept, copied = sorted((first[one], first[other]), key=order.index)
            first = {name: kept if found == copied else found for name, found in first.items()}
    return first


def _gate(
    name: str, measure: Measure, outputs: Mapping[str, Output], first: Mapping[str, str]
) -> Gate:
    logits = outputs[name].logits
    gaps = {
        other: networks.difference(output.logits, logits)
        for other, output in outputs.items()
        if other != name and output.logits.isfinite().all() and logits.isfinite().all()
    }
    nearest = min(gaps, key=lambda other: gaps[other], default="")
    return Gate(
        arm=name,
        leak=measure.value if math.isfinite(measure.value) else math.inf,
        bound=measure.bound,
        nearest=nearest,
        distance=gaps.get(nearest, 0.0),
        same_as=first[name] if first[name] != name else "",
        refused=_reason(name, measure),
    )


def _reason(name: str, measure: Measure) -> str:
    if measure.passed:
        return ""
    if not math.isfinite(measure.value):
        return f"{name} {measure.name} gives logits that are no finite numbers"
    return (
        f"{name} {measure.name} sees the future: a changed token moves logits before it by "
        f"{measure.value:.1e} of the largest, which must be at most {measure.bound:.0e}; "
        f"{measure.why}"
    )
