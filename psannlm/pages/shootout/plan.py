"""Which trainings a shootout consists of: tunings first, then what the tunings have chosen."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from psannlm.config.network import SinePart
from psannlm.config.training import TrainingConfig, TrainingSettings
from psannlm.pages.shootout.arms import Arm, arms_of, is_scaled, network_of
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.records import Setting, TrainingRecord
from psannlm.train.plan import course

KEY_DIGITS = 16


@dataclass(frozen=True)
class Cell:
    """One training: what a process of its own does."""

    arm: Arm
    setting: Setting
    seed: int
    final: bool = False
    """Whether it is compared: only then is the test split evaluated."""


Chosen = Mapping[str, Setting]
"""What the tuning of each arm has chosen; an arm all of whose tunings failed is not there."""


def tunings(config: ShootoutConfig) -> list[Cell]:
    """Every setting of every arm's grid, all grids of one size."""
    return [
        Cell(arm, setting, config.tuning_seed)
        for arm in arms_of(config)
        for setting in grid(arm, config)
    ]


def grid(arm: Arm, config: ShootoutConfig) -> list[Setting]:
    """The settings that an arm is tuned over."""
    learnable = tuple(part for part in get_args(SinePart) if part in config.learnable)
    usual = Setting(0.0, config.sine_frequency, config.init_std, learnable)
    if not is_scaled(arm, config):
        return [usual._replace(learning_rate=rate) for rate in config.learning_rates]
    return [
        usual._replace(learning_rate=rate, sine_frequency=frequency)
        for rate, frequency in itertools.product(
            config.scaled_learning_rates, config.scaled_frequencies
        )
    ]


def choose(config: ShootoutConfig, records: Iterable[TrainingRecord]) -> dict[str, Setting]:
    """The setting of each arm with the lowest validation loss among its tunings."""
    found = {record.key: record for record in records}
    chosen: dict[str, Setting] = {}
    lowest: dict[str, float] = {}
    for cell in tunings(config):
        record, name = found.get(key_of(cell, config)), cell.arm.name
        if record is None or record.val_loss is None:
            continue
        if name not in lowest or record.val_loss < lowest[name]:
            chosen[name], lowest[name] = cell.setting, record.val_loss
    return chosen


def finals(config: ShootoutConfig, chosen: Chosen) -> list[Cell]:
    """The trainings that are compared: every arm at its chosen setting, with every seed."""
    return [
        Cell(arm, chosen[arm.name], seed, final=True)
        for seed in config.seeds
        for arm in arms_of(config)
        if arm.name in chosen
    ]


def ablations(config: ShootoutConfig, chosen: Chosen) -> list[Cell]:
    """Every subset of the sine's parameters learned, the others frozen at their start."""
    named = {arm.name: arm for arm in arms_of(config)}
    return [
        Cell(named[name], chosen[name]._replace(learnable=subset), seed)
        for seed in config.seeds[: config.side_seeds]
        for name in config.ablation
        if name in chosen
        for subset in subsets()
    ]


def subsets() -> list[tuple[str, ...]]:
    """All subsets of the sine's parameters, the empty one first."""
    parts = get_args(SinePart)
    return [s for n in range(len(parts) + 1) for s in itertools.combinations(parts, n)]


def scales(config: ShootoutConfig, chosen: Chosen) -> list[Cell]:
    """The chosen setting with other initial scales."""
    named = {arm.name: arm for arm in arms_of(config)}
    return [
        Cell(named[name], scaled(named[name], config, chosen[name], scale), seed)
        for seed in config.seeds[: config.side_seeds]
        for name in config.scale_arms
        if name in chosen
        for scale in config.scales
    ]


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
    cells = [*finals(config, chosen), *ablations(config, chosen), *scales(config, chosen)]
    return sorted(cells, key=lambda cell: config.seeds.index(cell.seed))


def training_of(cell: Cell, config: ShootoutConfig) -> TrainingConfig:
    """The training that a cell is."""
    shared = {name: getattr(config, name) for name in TrainingSettings.model_fields}
    network = network_of(cell.arm, config, **_changes(cell.setting))
    mine = {name: getattr(network, name) for name in shared if hasattr(network, name)}
    return TrainingConfig(
        **shared | mine,
        base=(cell.arm.base,),
        learning_rate=cell.setting.learning_rate,
        parallel="ddp",
        keep_checkpoints=1,
        target_perplexity=1.0,
        ngram_order=1,
        prompts=(),
        sample_tokens=1,
        temperature=0.0,
        top_p=1.0,
        seed=cell.seed,
    )


def key_of(cell: Cell, config: ShootoutConfig) -> str:
    """Hash of all that decides what the training comes to, and of the arm it stands for."""
    said = {"arm": cell.arm.name, "corpus": config.corpus, **course(training_of(cell, config))}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    return digest[:KEY_DIGITS]


def _changes(setting: Setting) -> dict[str, object]:
    return {
        "sine_frequency": setting.sine_frequency,
        "init_std": setting.init_std,
        "learnable": setting.learnable,
    }
