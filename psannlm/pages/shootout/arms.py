"""The arms of a shootout: every base, and the baseline with each of its nonlinearities.

A base in the registry is an arm without another line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, get_args

import torch

from psannlm.config.network import ModelConfig, Nonlinearity
from psannlm.config.parse import nearest
from psannlm.config.schema import ConfigError
from psannlm.model.bases import BASES, Block, base_of, cost_of
from psannlm.model.cost import Shape
from psannlm.model.sine import DampedSine
from psannlm.model.transformer import GeluScaled
from psannlm.pages.shootout.config import ShootoutConfig

BASELINE = "transformer"
"""The base whose nonlinearities are arms of their own."""


@dataclass(frozen=True)
class Arm:
    """A network under the name by which it is compared."""

    name: str
    base: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    """What it changes in the shape that all arms share."""


def all_arms() -> dict[str, Arm]:
    """Every arm there is, by its name."""
    bases = [Arm(name, name) for name in BASES if name != BASELINE]
    plain = [Arm(mlp, BASELINE, {"mlp": mlp}) for mlp in get_args(Nonlinearity)]
    return {arm.name: arm for arm in [*bases, *plain]}


def arms_of(config: ShootoutConfig) -> list[Arm]:
    """The arms that a shootout compares, its baseline among them.

    Raises:
        ConfigError: A name that is no arm, in any parameter that names arms; or an arm that cannot
            be made as large as the baseline, if `match` says so.
    """
    known = all_arms()
    _refuse_unknown("base", config.base, known)
    _refuse_unknown("baseline", [config.baseline], known)
    asked = dict.fromkeys([*(config.base or known), config.baseline])
    chosen = [arm for name, arm in known.items() if name in asked]
    names = [arm.name for arm in chosen]
    _refuse_unknown("ablation", config.ablation, names)
    _refuse_unknown("scale_arms", config.scale_arms, names)
    for name in config.ablation:
        if not _holds(known[name], config, DampedSine):
            raise ConfigError(
                f"ablation must name arms with a damped sine, got {name!r}; leave it out"
            )
    for arm in chosen:
        network_of(arm, config)
    return chosen


def network_of(arm: Arm, config: ShootoutConfig, **changes: Any) -> ModelConfig:
    """The network of an arm, as many parameters wide as the baseline if `match` says so.

    Args:
        arm: Which network.
        config: Shape, and what arms have in common.
        changes: Of the architecture, by name, such as the frequency a tuning has chosen.

    Raises:
        ConfigError: No d_mlp makes the arm as large as the baseline.
    """
    mine = config.network_of(arm.base, **{**arm.changes, **changes})
    if config.match == "width" or arm.name == config.baseline:
        return mine
    baseline = all_arms()[config.baseline]
    target = n_parameters(config.network_of(baseline.base, **baseline.changes))
    block: Any = base_of(mine)  # a class is hashable, whatever its own instances are
    matched = _widened(mine, _matching_width(mine, block, target))
    step = n_parameters(_widened(matched, matched.d_mlp + 2)) - n_parameters(matched)
    if abs(n_parameters(matched) - target) > step:
        raise ConfigError(
            f"match: no d_mlp gives {arm.name} the {target:,} parameters of {config.baseline}, the "
            f"nearest is {n_parameters(matched):,} at {matched.d_mlp}; take a larger d_mlp, match "
            "by width, or leave the arm out"
        )
    return matched


def _widened(network: ModelConfig, d_mlp: int) -> ModelConfig:
    return network.model_copy(update={"d_mlp": d_mlp})


def n_parameters(network: ModelConfig) -> int:
    """Parameters of a network, by construction."""
    return cost_of(network, Shape(1, 1)).n_parameters


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
    low, high = 1, 4 * network.d_mlp
    while low < high:  # the narrowest network with at least as many
        middle = (low + high) // 2
        if n_parameters(_widened(network, middle)) < target:
            low = middle + 1
        else:
            high = middle

    def gap(width: int) -> int:
        return abs(n_parameters(_widened(network, width)) - target)

    return min(max(low - 1, 1), low, key=gap)


@cache
def _has(network: ModelConfig, block_type: type[Block], *kinds: type) -> bool:
    """Whether a block of the network holds a module of one of these kinds."""
    # Only its kinds of modules matter, and torch takes seconds to load what the device meta needs.
    small = network.model_copy(update={"d_mlp": 1, "context_length": 1})
    with torch.random.fork_rng(devices=[]):
        block = block_type(small, 0)
    return any(isinstance(module, kinds) for module in block.modules())


def _refuse_unknown(
    name: str, asked: Sequence[str], known: Sequence[str] | Mapping[str, Arm]
) -> None:
    for one in asked:
        if one not in known:
            raise ConfigError(
                f"{name}: unknown arm {one!r}{nearest(one, known)} There are: {', '.join(known)}"
            )
