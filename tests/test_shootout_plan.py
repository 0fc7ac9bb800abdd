"""Every arm is tuned alike, what follows is paired by seed, and no training is made twice."""

from collections import Counter
from typing import Any

import pytest

from psannlm.pages.shootout import plan
from psannlm.pages.shootout.arms import all_arms, arms_of
from psannlm.pages.shootout.measure import record_of
from psannlm.pages.shootout.plan import Cell, key_of, training_of
from psannlm.pages.shootout.records import Setting, ShootoutConfig, TrainingRecord
from tests.synthetic_shootout import shootout_config

CONFIG = shootout_config()
ARMS = all_arms()
RESPSANN = ARMS["respsann"]
SETTING = Setting(0.003, 1.0, 0.02, ("amplitude", "frequency", "decay"))
KEPT: list[dict[str, Any]] = [
    {"preset": "gpu"}, {"device": "auto"}, {"compile": True}, {"timeout_seconds": 9.0},
    {"cells_at_once": 3}, {"scheduler": "tcp://there:1"}, {"checkpoint_steps": 5},
    {"pass_tokens": 512}, {"loss_chunk_tokens": 64}, {"grad_checkpoint": True},
    {"seeds": (0, 1, 2, 3)}, {"scales": (7.0,)}, {"learning_rates": (0.1, 0.2)},
    {"with_lm_eval": True}, {"base": ("respsann", "gelu", "gelu_scaled")},
]  # fmt: skip
"""What does not decide a training."""

DECIDING: list[dict[str, Any]] = [
    {"d_model": 32}, {"n_layers": 3}, {"d_mlp": 48}, {"context_length": 32},
    {"corpus": "another.txt"}, {"train_megabytes": 0.1}, {"validation_megabytes": 0.1},
    {"vocab_size": 128}, {"epochs": 2.0}, {"batch_tokens": 2048}, {"optimizer": "muon"},
    {"schedule": "wsd"}, {"weight_decay": 0.0}, {"precision": "bf16"}, {"match": "width"},
    {"decay_mode": "relu"}, {"clip_norm": 2.0}, {"positions": "alibi"},
]  # fmt: skip


def record(cell: Cell, val_loss: float | None) -> TrainingRecord:
    """What is left of a cell."""
    found = {"status": "ok", "reason": "", "val_loss": val_loss}
    return record_of(key_of(cell, CONFIG), cell, CONFIG, found)


def chosen_of(config: ShootoutConfig) -> dict[str, Setting]:
    """The last setting of each arm's grid."""
    return {arm.name: plan.grid(arm, config)[-1] for arm in arms_of(config)}


def compared(config: ShootoutConfig) -> dict[str, Cell]:
    return plan.distinct(plan.finals(config, chosen_of(config)), config)


def test_every_arm_is_tuned_with_as_many_settings_on_a_seed_of_its_own() -> None:
    rates, scaled = (0.001, 0.002, 0.003, 0.004), (0.001, 0.003)
    config = shootout_config(learning_rates=rates, scaled_learning_rates=scaled)

    cells = plan.tunings(config)

    assert set(Counter(cell.arm.name for cell in cells).values()) == {4}
    assert {(cell.seed, cell.final) for cell in cells} == {(config.tuning_seed, False)}
    assert len(plan.distinct(cells, config)) == len(cells) == 4 * len(arms_of(config))


def test_arms_without_a_frequency_are_tuned_over_learning_rates_alone() -> None:
    grids = {
        name: [(s.learning_rate, s.sine_frequency) for s in plan.grid(ARMS[name], CONFIG)]
        for name in ("gelu", "respsann")
    }

    assert grids == {
        "gelu": [(0.001, CONFIG.sine_frequency), (0.003, CONFIG.sine_frequency)],
        "respsann": [(0.003, 1.0), (0.003, 2.25)],
    }


def test_the_lowest_loss_is_chosen_and_failures_are_passed_over() -> None:
    losses = {"respsann": (3.0, 2.9), "gelu": (2.8, 3.1), "swiglu": (None, 3.5)}
    records = [
        record(cell, losses[cell.arm.name][n % 2])
        for n, cell in enumerate(plan.tunings(CONFIG))
        if cell.arm.name in losses
    ]
    elsewhere = record(Cell(RESPSANN, SETTING, 7), 0.1)

    chosen = plan.choose(CONFIG, [elsewhere, *reversed(records)])

    places = {"respsann": 1, "gelu": 0, "swiglu": 1}
    assert chosen == {name: plan.grid(ARMS[name], CONFIG)[at] for name, at in places.items()}


def test_an_arm_all_of_whose_tunings_failed_is_not_compared() -> None:
    chosen = chosen_of(CONFIG)
    del chosen["respsann"]

    cells = plan.after_tuning(CONFIG, chosen)

    assert "respsann" not in {cell.arm.name for cell in cells}
    assert len(plan.finals(CONFIG, chosen)) == 3 * (len(arms_of(CONFIG)) - 1)


def test_all_arms_are_trained_with_the_same_seeds_and_an_early_end_leaves_whole_ones() -> None:
    config = shootout_config(seeds=(2, 0, 1))
    chosen = chosen_of(config)

    cells = plan.after_tuning(config, chosen)

    for arm in arms_of(config):
        assert [c.seed for c in plan.finals(config, chosen) if c.arm == arm] == [2, 0, 1]
    order = [config.seeds.index(cell.seed) for cell in cells]
    assert order == sorted(order)
    assert {cell.seed for cell in plan.sides(config, chosen)} == {2, 0}


@pytest.mark.parametrize(
    "learnable", [("amplitude", "frequency", "decay"), ("decay", "amplitude", "frequency")]
)
def test_the_ablation_with_all_learned_is_the_compared_training_itself(
    learnable: tuple[str, ...],
) -> None:
    config = shootout_config(learnable=learnable, scale_arms=())
    finals, sides = compared(config), plan.sides(config, chosen_of(config))

    ablation = plan.distinct(sides, config)

    assert (plan.subsets()[0], plan.subsets()[-1]) == ((), ("amplitude", "frequency", "decay"))
    assert len(ablation) == 8 * config.side_seeds
    assert len(ablation.keys() & finals.keys()) == config.side_seeds
    both = plan.distinct([*sides, *finals.values()], config)
    assert all(both[key].final for key in finals)


def test_the_scale_that_was_chosen_is_the_compared_training_itself() -> None:
    config = shootout_config(ablation=())
    finals = compared(config)

    shared = plan.distinct(plan.sides(config, chosen_of(config)), config).keys() & finals.keys()

    arms = Counter(finals[key].arm.name for key in shared)
    assert arms == {"respsann": 2, "gelu_scaled": 2, "gelu": 2}


def test_a_scale_is_the_frequency_where_there_is_one_else_a_factor_of_init_std() -> None:
    config = shootout_config(init_std=0.02)

    sine, plain = (plan.scaled(ARMS[name], config, SETTING, 5.0) for name in ("respsann", "gelu"))

    assert sine == SETTING._replace(sine_frequency=5.0)
    assert plain == SETTING._replace(init_std=0.1)


def test_what_decides_a_training_decides_its_key_and_nothing_else_does() -> None:
    cell = Cell(ARMS["waveresnet"], SETTING, 0)
    key = key_of(cell, CONFIG)

    changing = [c for c in (*KEPT, *DECIDING) if key_of(cell, shootout_config(**c)) != key]

    assert changing == DECIDING


def test_cells_that_differ_in_what_they_do_have_keys_of_their_own() -> None:
    changes = {"learning_rate": 0.001, "sine_frequency": 2.0, "init_std": 0.03, "learnable": ()}
    settings = [SETTING, *(SETTING._replace(**{name: new}) for name, new in changes.items())]

    keys = [
        key_of(Cell(arm, setting, seed), CONFIG)
        for arm in (RESPSANN, ARMS["gelu"])
        for setting in settings
        for seed in (0, 1)
    ]

    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {16}


def test_a_cell_is_the_training_that_its_arm_and_setting_say() -> None:
    config = shootout_config(match="width")
    setting = Setting(0.5, 1.5, 0.04, ("decay",))

    sine, plain = (
        training_of(Cell(ARMS[name], setting, 4), config) for name in ("respsann", "swiglu")
    )

    assert (sine.base, sine.learning_rate, sine.seed) == (("respsann",), 0.5, 4)
    assert (sine.sine_frequency, sine.init_std, sine.learnable) == (1.5, 0.04, ("decay",))
    assert (plain.base, plain.mlp) == (("transformer",), "swiglu")
    assert sine.network.d_mlp == config.d_mlp
