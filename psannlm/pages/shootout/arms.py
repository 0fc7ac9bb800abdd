"""The arms of a shootout: every base, and the baseline with each of its nonlinearities.

A base in the registry is an arm without another line.
"""

import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, get_args

import torch

from psannlm.config.network import ModelConfig, Nonlinearity
from psannlm.config.parse import nearest
from psannlm.config.schema import ConfigError
from psannlm.model.bases import BASES, Block, base_of, cost_of
from psannlm.model.cost import Shape
from psannlm.model.sine import DampedSine
from psannlm.model.transformer import GeluScaled
from psannlm.pages.shootout.records import ShootoutConfig

BASELINE = "transformer"  # the base whose nonlinearities are arms of their own


@dataclass(frozen=True)
class Arm:
    """A network under the name by which it is compared."""

    name: str
    base: str
    changes: Mapping[str, Any] = field(default_factory=dict)  # of the shape that all arms share


def all_arms() -> dict[str, Arm]:
    """Every arm there is, by its name."""
    bases = [Arm(name, name) for name in BASES if name != BASELINE]
    plain = [Arm(mlp, BASELINE, {"mlp": mlp}) for mlp in get_args(Nonlinearity)]
    return {arm.name: arm for arm in [*bases, *plain]}


def arms_of(config: ShootoutConfig) -> list[Arm]:
    """The arms that a shootout compares, its baseline among them.

    ConfigError for a name that is no arm, in any parameter that names arms; or for an arm that
    cannot be made as large as the baseline, if `match` says so.
    """
    known = all_arms()
    asked = {*(config.base or known), config.baseline}
    chosen = {name: arm for name, arm in known.items() if name in asked}
    for parameter, names, among in (
        ("base", config.base, known),
        ("baseline", (config.baseline,), known),
        ("ablation", config.ablation, chosen),
        ("scale_arms", config.scale_arms, chosen),
    ):
        for name in names:
            if name not in among:
                there = f"{nearest(name, among)} There are: {', '.join(among)}"
                raise ConfigError(f"{parameter}: unknown arm {name!r}{there}")
    for name in config.ablation:
        if not _holds(known[name], config, DampedSine):
            raise ConfigError(
                f"ablation must name arms with a damped sine, got {name!r}; leave it out"
            )
    for arm in chosen.values():
        network_of(arm, config)
    return list(chosen.values())


def network_of(arm: Arm, config: ShootoutConfig, **changes: Any) -> ModelConfig:
    """The network of an arm, with these changes, as large as the baseline if `match` says so.

    ConfigError if no d_mlp makes it as large.
    """
    mine = config.network_of(arm.base, **{**arm.changes, **changes})
    if config.match == "width" or arm.name == config.baseline:
        return mine
    target = n_parameters(network_of(all_arms()[config.baseline], config))
    block: Any = base_of(mine)  # a class is hashable, whatever its own instances are
    width = _matching_width(mine, block, target)
    size = n_parameters(mine, width)
    if abs(size - target) > n_parameters(mine, width + 2) - size:
        raise ConfigError(
            f"match: no d_mlp gives {arm.name} the {target:,} parameters of {config.baseline}, the "
            f"nearest is {size:,} at {width}; take a larger d_mlp, match by width, or leave the "
            "arm out"
        )
    return mine.model_copy(update={"d_mlp": width})


def n_parameters(network: ModelConfig, d_mlp: int | None = None) -> int:
    """Parameters of a network by construction, with its own `d_mlp` or with another one."""
    widened = network.model_copy(update={"d_mlp": d_mlp or network.d_mlp})
    return cost_of(widened, Shape(1, 1)).n_parameters


def is_scaled(arm: Arm, config: ShootoutConfig) -> bool:
    """Whether the nonlinearity of an arm has an initial frequency that a tuning can choose."""
    return _holds(arm, config, DampedSine, GeluScaled)


def _holds(arm: Arm, config: ShootoutConfig, *kinds: type) -> bool:
    network = config.network_of(arm.base, **arm.changes)
    block: Any = base_of(network)
    return _has(network, block, *kinds)


@cache
def _matching_width(network: ModelConfig, block_type: type[Block], target: int) -> int:
    """The d_mlp at which the parameters come nearest to `target`.

    The block is named so that another one registered under an old name is not mistaken for it.
    """
    size = partial(n_parameters, network)
    least = 1 + bisect.bisect_left(range(1, 4 * network.d_mlp), target, key=size)  # as large
    return min(max(least - 1, 1), least, key=lambda width: abs(size(width) - target))


@cache
def _has(network: ModelConfig, block_type: type[Block], *kinds: type) -> bool:
    """Whether a block of the network holds a module of one of these kinds."""
    # Only its kinds of modules matter, and torch takes seconds to load what the device meta needs.
    small = network.model_copy(update={"d_mlp": 1, "context_length": 1})
    with torch.random.fork_rng(devices=[]):
        block = block_type(small, 0)
    return any(isinstance(module, kinds) for module in block.modules())
