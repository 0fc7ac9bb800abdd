"""Leaks refuse an arm by name, and two arms that are one network are known as such."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from psannlm.config.network import ModelConfig
from psannlm.model.bases import BASES, Respsann, TransformerBlock
from psannlm.model.mixers import Rows
from psannlm.pages.shootout.arms import arms_of
from psannlm.pages.shootout.gates import NOISY_BOUND, TRAINED_BOUND, gates
from psannlm.pages.shootout.records import (
    Gate,
    Setting,
    ShootoutConfig,
    TrainingRecord,
    from_texts,
    to_texts,
)
from tests.synthetic_shootout import final, shootout_config
from tests.twins_network import gate_around_the_window, mask_missing, padded_on_both_sides


def trained(arm: str, *seeds: int, **changes: Any) -> list[TrainingRecord]:
    """Finished trainings of an arm that are compared."""
    return [final(arm, n, **{"val_loss": 3.0 + n, "leak": 0.0, **changes}) for n in seeds]


def changed(change: Any) -> type[Respsann]:
    """A base whose output is changed by a function of itself, its input and its output."""

    class Changed(Respsann):
        def forward(self, x: Tensor, past: Rows | None = None, position: int = 0) -> Tensor:
            return change(self, x, super().forward(x, past, position))

    return Changed


def refused(gates: Sequence[Gate]) -> dict[str, str]:
    return {gate.arm: gate.refused for gate in gates if gate.refused}


def same(gates: Sequence[Gate]) -> dict[str, str]:
    return {gate.arm: gate.same_as for gate in gates if gate.same_as}


def asked(*arms: str, **changes: Any) -> ShootoutConfig:
    """A shootout of these arms and the baseline, without controls."""
    return shootout_config(**{"base": arms, "ablation": (), "scale_arms": (), **changes})


def test_a_base_that_sees_the_future_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BASES, "peeping", changed(lambda own, x, y: y + 0.01 * y.roll(-1, 1)))

    found = refused(gates(asked("peeping", "respsann"), {}, []))

    assert set(found) == {"peeping"}
    assert found["peeping"].startswith("peeping with noisy parameters sees the future")
    assert f"at most {NOISY_BOUND:.0e}" in found["peeping"]


@pytest.mark.parametrize(
    ("damage", "arms"),
    [
        (padded_on_both_sides, {"waveresnet", "sgrpsann"}),
        (gate_around_the_window, {"sgrpsann"}),
        (mask_missing, {"waveresnet", "sgrpsann", "gelu"}),
    ],
)
def test_a_leak_in_a_part_refuses_the_arms_that_have_it(
    damage: Any, arms: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(monkeypatch)

    found = gates(asked("waveresnet", "sgrpsann"), {}, [])

    assert set(refused(found)) == arms
    assert all(gate.leak > 1e-3 for gate in found if gate.refused)


@pytest.mark.parametrize("positions", ["rope", "alibi", "sinusoidal"])
def test_sound_arms_pass_far_below_their_bounds(positions: str) -> None:
    config = shootout_config(positions=positions, gate_mix="full")

    found = gates(config, {}, [])

    assert [gate.arm for gate in found] == [arm.name for arm in arms_of(config)]
    assert max(gate.leak for gate in found) < NOISY_BOUND / 100
    assert refused(found) == same(found) == {}
    assert all(gate.nearest and gate.distance > 1e-3 for gate in found)


def test_a_leak_of_a_finished_training_refuses_its_arm() -> None:
    config = asked("respsann", "waveresnet")
    records = [
        *trained("respsann", 0, leak=TRAINED_BOUND / 2),
        *trained("waveresnet", 0, leak=2 * TRAINED_BOUND),
        *trained("waveresnet", 1, 2, leak=TRAINED_BOUND / 2),
        *trained("gelu", 0, leak=1.0, final=False),
        *trained("gelu", 1, leak=None, status="failed"),
    ]

    found = {gate.arm: gate for gate in gates(config, {}, records)}

    assert set(refused(list(found.values()))) == {"waveresnet"}
    assert "waveresnet as trained with seed 0 sees the future" in found["waveresnet"].refused
    assert (found["respsann"].leak, found["respsann"].bound) == (TRAINED_BOUND / 2, TRAINED_BOUND)
    assert found["gelu"].bound == NOISY_BOUND


def test_networks_are_judged_in_double_precision_on_a_text_of_bounded_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = set()

    def watch(_: Respsann, x: Tensor, y: Tensor) -> Tensor:
        seen.add((x.dtype, x.shape[1]))
        return y

    monkeypatch.setitem(BASES, "watched", changed(watch))
    monkeypatch.setattr("psannlm.pages.shootout.gates.LENGTH", 8)

    gates(asked("watched"), {}, [])

    assert seen == {(torch.float64, 8)}


def test_of_two_leaks_the_one_nearer_to_its_bound_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = NOISY_BOUND * 2
    monkeypatch.setattr("psannlm.pages.shootout.gates.leak", lambda model, tokens: noisy)

    [gate] = gates(asked("gelu"), {}, trained("gelu", 0, leak=TRAINED_BOUND / 2))

    assert (gate.leak, gate.bound) == (noisy, NOISY_BOUND)
    assert gate.refused.startswith("gelu with noisy parameters sees the future")


def test_logits_that_are_no_numbers_refuse_an_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BASES, "overflowing", changed(lambda own, x, y: y / 0))

    found = gates(asked("overflowing", "respsann"), {}, [])

    assert list(refused(found)) == ["overflowing"]
    assert "no finite numbers" in refused(found)["overflowing"]
    assert all(gate.nearest != "overflowing" for gate in found)


@pytest.mark.parametrize("match", ["parameters", "width"])
def test_a_wave_that_is_none_is_respsann_whatever_the_tunings_chose(match: str) -> None:
    config = asked("respsann", "waveresnet", wave="none", match=match)
    chosen = {
        "respsann": Setting(0.003, 1.0, 0.02, config.learnable),
        "waveresnet": Setting(0.001, 2.25, 0.02, config.learnable),
    }

    found = gates(config, chosen, [])

    assert same(found) == {"waveresnet": "respsann"}
    nearest = {gate.arm: (gate.nearest, gate.distance) for gate in found}
    assert nearest["respsann"] == ("waveresnet", 0.0)
    assert nearest["waveresnet"] == ("respsann", 0.0)
    assert refused(found) == {}


def test_the_leak_is_looked_for_at_the_chosen_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    class AtHighFrequency(changed(lambda own, x, y: y.flip(1) if own.high else y)):  # type: ignore[misc]
        def __init__(self, config: ModelConfig, layer: int) -> None:
            super().__init__(config, layer)
            self.high = config.sine_frequency > 2

    monkeypatch.setitem(BASES, "late", AtHighFrequency)
    config = asked("late")
    high = Setting(0.003, 2.25, 0.02, config.learnable)

    assert refused(gates(config, {}, [])) == {}
    assert set(refused(gates(config, {"late": high}, []))) == {"late"}


@pytest.mark.parametrize(
    ("records", "changes", "expected"),
    [
        (
            [
                *trained("respsann", 0, 1), *trained("swiglu", 0, 1),
                *trained("sgrpsann", 0), *trained("sgrpsann", 1, val_loss=4.0 + 1e-12),
            ],
            {}, {"swiglu": "respsann"},
        ),
        ([*trained("respsann", 0, 1), *trained("swiglu", 0)], {}, {}),
        (
            [
                *trained("respsann", 0, 1), *trained("sgrpsann", 2, 3),
                *trained("swiglu", 0, 1, 2, 3),
            ],
            {}, {"sgrpsann": "respsann", "swiglu": "respsann"},
        ),
        (
            [*trained("waveresnet", 0, 1), *trained("swiglu", 0, 1)],
            {"wave": "none"}, {"waveresnet": "respsann", "swiglu": "respsann"},
        ),
    ],
    ids=["equal losses", "one seed is chance", "each the same as a third", "the same as a copy"],
)  # fmt: skip
def test_trainings_that_all_end_in_one_loss_are_one_network(
    records: list[TrainingRecord], changes: dict[str, Any], expected: dict[str, str]
) -> None:
    config = asked("respsann", "sgrpsann", "waveresnet", "swiglu", **changes)

    assert same(gates(config, {}, records)) == expected


def test_a_third_copy_is_the_first_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BASES, "original", TransformerBlock)
    monkeypatch.setitem(BASES, "copy", TransformerBlock)

    found = gates(asked("original", "copy"), {}, [])

    assert same(found) == {"copy": "original", "gelu": "original"}


def test_equal_logits_of_other_parameters_are_no_one_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Idle(Respsann):
        def __init__(self, config: ModelConfig, layer: int) -> None:
            super().__init__(config, layer)
            self.idle = torch.nn.Parameter(torch.zeros(1))

    monkeypatch.setitem(BASES, "idle", Idle)

    found = {gate.arm: gate for gate in gates(asked("idle", "respsann", match="width"), {}, [])}

    assert found["idle"].nearest == "respsann"
    assert found["idle"].distance == 0.0
    assert same(list(found.values())) == {}


def test_an_arm_alone_has_no_nearest() -> None:
    [gate] = gates(asked("gelu"), {}, [])

    assert (gate.nearest, gate.distance, gate.refused) == ("", 0.0, "")


def test_gates_survive_their_csv_file() -> None:
    found = [
        Gate("respsann", 1 / 3, 1e-9, "gelu", 0.1, "", 'a, "b"\nc'),
        Gate("gelu", float("inf"), 1e-4, "", 0.0, "respsann", ""),
    ]

    assert from_texts(to_texts(found)) == found
