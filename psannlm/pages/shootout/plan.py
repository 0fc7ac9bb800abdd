"""Which trainings a shootout consists of: tunings first, then what the tunings have chosen."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from psannlm.config.network import SinePart
from psannlm.config.training import TrainingConfig, TrainingSettings
from psannlm.pages.shootout.arms import Arm, all_arms, arms_of, is_scaled, network_of
from psannlm.pages.shootout.records import Setting, ShootoutConfig, TrainingRecord
from psannlm.train.plan import course


@dataclass(frozen=True)
class Cell:
    """One training: what a process of its own does."""

    arm: Arm
    setting: Setting
    seed: int
    final: bool = False  # whether it is compared: only then is the test split evaluated


IDLE: dict[str, Any] = {
    "parallel": "ddp", "keep_checkpoints": 1, "target_perplexity": 1.0, "ngram_order": 1,
    "prompts": (), "sample_tokens": 1, "temperature": 0.0, "top_p": 1.0,
}  # fmt: skip
"""Settings of a training that make no difference to what is compared."""

Chosen = Mapping[str, Setting]  # by arm; one all of whose tunings failed is not there


def tunings(config: ShootoutConfig) -> list[Cell]:
    """Every setting of every arm's grid, all grids of one size."""
    seed = config.tuning_seed
    return [Cell(arm, setting, seed) for arm in arms_of(config) for setting in grid(arm, config)]


def grid(arm: Arm, config: ShootoutConfig) -> list[Setting]:
    """The settings that an arm is tuned over."""
    learnable = tuple(part for part in get_args(SinePart) if part in config.learnable)
    rates, frequencies = config.scaled_learning_rates, config.scaled_frequencies
    if not is_scaled(arm, config):
        rates, frequencies = config.learning_rates, (config.sine_frequency,)
    pairs = itertools.product(rates, frequencies)
    return [Setting(rate, frequency, config.init_std, learnable) for rate, frequency in pairs]


def choose(config: ShootoutConfig, records: Iterable[TrainingRecord]) -> dict[str, Setting]:
    """The setting of each arm with the lowest validation loss among its tunings."""
    losses = {record.key: record.val_loss for record in records}
    chosen: dict[str, Setting] = {}
    lowest: dict[str, float] = {}
    for cell in tunings(config):
        loss, name = losses.get(key_of(cell, config)), cell.arm.name
        if loss is not None and (name not in lowest or loss < lowest[name]):
            chosen[name], lowest[name] = cell.setting, loss
    return chosen


def finals(config: ShootoutConfig, chosen: Chosen) -> list[Cell]:
    """The trainings that are compared: every arm at its chosen setting, with every seed."""
    arms = [arm for arm in arms_of(config) if arm.name in chosen]
    return [Cell(arm, chosen[arm.name], seed, final=True) for seed in config.seeds for arm in arms]


def sides(config: ShootoutConfig, chosen: Chosen) -> list[Cell]:
    """Every subset of the sine's parameters learned, the others frozen; other initial scales."""
    arms, seeds = all_arms(), config.seeds[: config.side_seeds]
    settings = [
        (name, chosen[name]._replace(learnable=subset))
        for name, subset in itertools.product(config.ablation, subsets())
        if name in chosen
    ]
    settings += [
        (name, scaled(arms[name], config, chosen[name], scale))
        for name, scale in itertools.product(config.scale_arms, config.scales)
        if name in chosen
    ]
    return [Cell(arms[name], setting, seed) for seed in seeds for name, setting in settings]


def subsets() -> list[tuple[str, ...]]:
    """All subsets of the sine's parameters, the empty one first."""
    parts = get_args(SinePart)
    return [s for n in range(len(parts) + 1) for s in itertools.combinations(parts, n)]


def scaled(arm: Arm, config: ShootoutConfig, setting: Setting, scale: float) -> Setting:
    """The setting with that scale: as initial f where there is one, else as factor of init_std."""
    if is_scaled(arm, config):
        return setting._replace(sine_frequency=scale)
    return setting._replace(init_std=config.init_std * scale)


def distinct(cells: Iterable[Cell], config: ShootoutConfig) -> dict[str, Cell]:
    """Cells by their key; of equal ones, the one that is compared, else the first."""
    kept: dict[str, Cell] = {}
    for cell in cells:
        key = key_of(cell, config)
        if key not in kept or (cell.final and not kept[key].final):
            kept[key] = cell
    return kept


def after_tuning(config: ShootoutConfig, chosen: Chosen) -> list[Cell]:
    """All trainings that follow the tunings, seed by seed: an early end leaves whole seeds."""
    cells = [*finals(config, chosen), *sides(config, chosen)]
    return sorted(cells, key=lambda cell: config.seeds.index(cell.seed))


def training_of(cell: Cell, config: ShootoutConfig) -> TrainingConfig:
    """The training that a cell is."""
    changes = cell.setting._asdict()
    rate = changes.pop("learning_rate")
    shared = set(TrainingSettings.model_fields)
    network = network_of(cell.arm, config, **changes).model_dump(include=shared)
    own = {"base": (cell.arm.base,), "learning_rate": rate, "seed": cell.seed}
    return TrainingConfig(**config.model_dump(include=shared) | network | IDLE | own)


def key_of(cell: Cell, config: ShootoutConfig) -> str:
    """Hash of all that decides what the training comes to, and of the arm it stands for."""
    said = {"arm": cell.arm.name, "corpus": config.corpus, **course(training_of(cell, config))}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
