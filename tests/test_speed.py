"""GPU-03: speeds that cannot be, and clocks that do not see the work."""

import math

import pytest
import torch

from psannlm.bench.timing import HostStopwatch
from psannlm.checks import speed
from psannlm.checks.speed import Speed, speed_measures, timing_measures
from tests.checked import case_of, failed

CPU = torch.device("cpu")


class FakeWork:
    """A step of a second, on clocks that only it moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def step(self) -> None:
        self.now += 1.0


class Distorted:
    """A stopwatch that tells of each step what `tell` makes of its seconds and their number."""

    def __init__(self, work: FakeWork, tell: object) -> None:
        self.inner, self.tell = HostStopwatch(work.clock), tell

    def lap(self, step: object, n_steps: int) -> list[float]:
        return [self.tell(s, n_steps) for s in self.inner.lap(step, n_steps)]


@pytest.mark.parametrize(
    ("tell", "wanted"),
    [
        (lambda s, n: s, [True, True]),
        (lambda s, n: 0.1 * s, [False, True]),
        (lambda s, n: 3 * s, [False, True]),
        (lambda s, n: s / n, [False, True]),
        (lambda s, n: s / n**2, [False, False]),
        (lambda s, n: 0.0, [False, False]),
        (lambda s, n: math.nan, [False, False]),
    ],
)
def test_a_stopwatch_is_held_to_the_wall_and_to_twice_the_work(
    tell: object, wanted: list[bool], monkeypatch: pytest.MonkeyPatch
):
    work = FakeWork()
    monkeypatch.setattr(speed, "_now", lambda _: work.now)

    measures = timing_measures("forward", work.step, Distorted(work, tell), 4, CPU)

    assert [m.passed for m in measures] == wanted


@pytest.mark.parametrize(
    ("forward", "train", "n_failed"),
    [
        (Speed(100.0, 50.0), Speed(33.0, 49.0), 0),
        (Speed(100.0, 50.0), Speed(200.0, 49.0), 1),
        (Speed(100.0, 101.0), Speed(33.0, 102.0), 2),
        (Speed(math.inf, math.inf), Speed(math.nan, math.nan), 5),
        (Speed(1e-9, 1.0), Speed(5e-10, 1.0), 2),
    ],
)
def test_speeds_that_cannot_be_fail(forward: Speed, train: Speed, n_failed: int):
    measures = speed_measures({"forward": forward, "train_step": train}, 100.0)

    assert sum(not m.passed for m in measures) == n_failed


@pytest.mark.slow
def test_nothing_is_timed_with_a_wrong_stopwatch(monkeypatch: pytest.MonkeyPatch):
    case = case_of("transformer", d_model=8, d_mlp=12, context_length=16)
    work = FakeWork()
    monkeypatch.setattr(speed, "LAP_SECONDS", 0.001)
    monkeypatch.setattr(speed, "stopwatch_for", lambda _: Distorted(work, lambda s, n: 1e9))
    monkeypatch.setattr(speed, "ceiling", lambda *_: pytest.fail("was measured"))

    result = speed.check(case)

    assert failed(result)
    assert result.facts == {"speeds": "none, as the stopwatch is wrong"}
