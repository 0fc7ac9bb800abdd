"""GPU-03: speeds that cannot be, and clocks that do not see the work."""

import math
from collections.abc import Callable

import pytest
import torch

from psannlm.bench.timing import HostStopwatch
from psannlm.checks import speed
from psannlm.checks.speed import Speed, speed_measures, timing_measures
from tests.checked import case_of, failed

CPU = torch.device("cpu")


class FakeWork:
    """A step of a second, and a stopwatch that distorts its time."""

    def __init__(self, tell: Callable[[float, int], float]) -> None:
        self.now, self.tell = 0.0, tell

    def step(self) -> None:
        self.now += 1.0

    def lap(self, step: object, n_steps: int) -> list[float]:
        seconds = HostStopwatch(lambda: self.now).lap(step, n_steps)
        return [self.tell(s, n_steps) for s in seconds]


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
def test_a_stopwatch_is_held_to_the_wall_and_to_twice_the_work(monkeypatch, tell, wanted):
    work = FakeWork(tell)
    monkeypatch.setattr(speed, "_now", lambda _: work.now)

    measures = timing_measures("forward", work.step, work, 4, CPU)

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
    monkeypatch.setattr(speed, "LAP_SECONDS", 0.001)
    monkeypatch.setattr(speed, "stopwatch_for", lambda _: FakeWork(lambda s, n: 1e9))
    monkeypatch.setattr(speed, "ceiling", lambda *_: pytest.fail("was measured"))

    result = speed.check(case)

    assert failed(result)
    assert result.facts == {"speeds": "none, as the stopwatch is wrong"}
