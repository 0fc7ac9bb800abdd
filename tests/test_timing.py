"""The timing loop, with a clock that moves only when told to."""

import pytest
import torch

from psannlm.bench.timing import MAX_WINDOWS, WINDOW, CudaStopwatch, HostStopwatch, time_steps


class FakeWork:
    """Steps that take the given seconds, the last for ever, on a clock of their own."""

    def __init__(self, *durations: float) -> None:
        self.now, self.durations, self.n_calls = 0.0, list(durations), 0

    def clock(self) -> float:
        return self.now

    def step(self) -> None:
        self.n_calls += 1
        self.now += self.durations.pop(0) if len(self.durations) > 1 else self.durations[0]


def timed(work: FakeWork, min_seconds: float = 0.0, min_steps: int = 4):
    stopwatch = HostStopwatch(work.clock)
    return time_steps(work.step, stopwatch=stopwatch, min_seconds=min_seconds, min_steps=min_steps)


def test_the_first_call_is_told_apart():
    timing = timed(FakeWork(9.0, 1.0))

    assert timing.first_seconds == 9.0
    assert timing.seconds == (1.0, 1.0, 1.0, 1.0)


def test_warmup_ends_when_two_windows_agree():
    timing = timed(FakeWork(9.0, 3.0, 3.0, 3.0, 1.0))

    assert timing.steady
    assert timing.n_warmup == 3 * WINDOW
    assert set(timing.seconds) == {1.0}


def test_warmup_that_never_settles_is_capped_and_said():
    work = FakeWork(*(1.5**i for i in range(100)))

    timing = timed(work)

    assert not timing.steady
    assert timing.n_warmup == MAX_WINDOWS * WINDOW


def test_steps_are_repeated_until_the_least_time_is_filled():
    timing = timed(FakeWork(0.25), min_seconds=5.0, min_steps=4)

    assert len(timing.seconds) == 20


def test_every_step_is_kept_in_order():
    slow = [1.0] * (1 + 2 * WINDOW)

    timing = timed(FakeWork(*slow, 1.0, 7.0, 2.0, 1.0))

    assert timing.seconds == (1.0, 7.0, 2.0, 1.0)


def test_every_call_is_counted_somewhere():
    work = FakeWork(1.0)

    timing = timed(work)

    assert work.n_calls == 1 + timing.n_warmup + len(timing.seconds)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_steps_are_timed_to_their_end():
    a = torch.randn(8192, 8192, device="cuda")
    [short] = CudaStopwatch().lap(lambda: a[:64, :64] @ a[:64, :64], 1)
    [long] = CudaStopwatch().lap(lambda: a @ a, 1)

    # 2 * 8192**3 FLOPs take milliseconds on any GPU, the small product microseconds.
    assert long > 10 * short
