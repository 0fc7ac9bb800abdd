"""The timing loop, with a clock that moves only when told to, and the ceiling it measures."""

import pytest
import torch

from psannlm.bench import ceiling
from psannlm.bench import timing as module
from psannlm.bench.ceiling import measure_ceiling, rate, stated_peak
from psannlm.bench.timing import (
    MAX_WINDOWS,
    WINDOW,
    CudaStopwatch,
    HostStopwatch,
    Timing,
    time_steps,
)
from tests.standing_alone import foreign_imports


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


def test_the_first_call_is_told_apart_and_warmup_ends_when_two_windows_agree():
    timing = timed(FakeWork(9.0, 3.0, 3.0, 3.0, 1.0))

    assert (timing.first_seconds, timing.steady) == (9.0, True)
    assert timing.n_warmup == 3 * WINDOW
    assert timing.seconds == (1.0, 1.0, 1.0, 1.0)


def test_warmup_that_never_settles_is_capped_and_said():
    timing = timed(FakeWork(*(1.5**i for i in range(100))))

    assert not timing.steady
    assert timing.n_warmup == MAX_WINDOWS * WINDOW


def test_steps_are_repeated_until_the_least_time_is_filled_and_every_call_is_counted():
    work = FakeWork(0.25)

    timing = timed(work, min_seconds=5.0, min_steps=4)

    assert len(timing.seconds) == 20
    assert work.n_calls == 1 + timing.n_warmup + 20


def test_every_step_is_kept_in_order():
    slow = [1.0] * (1 + 2 * WINDOW)

    timing = timed(FakeWork(*slow, 1.0, 7.0, 2.0, 1.0))

    assert timing.seconds == (1.0, 7.0, 2.0, 1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_steps_are_timed_to_their_end():
    a = torch.randn(8192, 8192, device="cuda")
    [short] = CudaStopwatch().lap(lambda: a[:64, :64] @ a[:64, :64], 1)
    [long] = CudaStopwatch().lap(lambda: a @ a, 1)

    # 2 * 8192**3 FLOPs take milliseconds on any GPU, the small product microseconds.
    assert long > 10 * short


def test_the_loop_needs_torch_alone():
    assert foreign_imports(module) == set()


CPU = torch.device("cpu")


def took(*seconds: float) -> Timing:
    return Timing(first_seconds=9.0, n_warmup=6, steady=True, seconds=seconds)


def test_a_rate_counts_all_timed_products_and_no_warm_up():
    assert rate(600, took(1.0, 2.0, 3.0)) == 300.0


@pytest.mark.parametrize("order", [(8, 16, 32), (32, 16, 8), (16, 32, 8)])
def test_the_size_with_the_highest_rate_is_the_ceiling(monkeypatch, order):
    # Products of 16 take as long as those of 8, those of 32 a hundred times as long.
    seconds = iter({8: 1.0, 16: 1.0, 32: 100.0}[size] for size in order)
    monkeypatch.setattr(ceiling, "SIZES", {"cpu": order})
    monkeypatch.setattr(ceiling, "time_steps", lambda step, **_: took(next(seconds)))

    flops, found = measure_ceiling(CPU, "fp32", min_seconds=1.0, min_steps=1)

    assert flops == 2 * 16**3
    assert found.seconds == (1.0,)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_products_are_square_and_in_the_precision_asked_for(monkeypatch, precision, dtype):
    products = []

    def run_once(step, *, min_seconds, min_steps, stopwatch) -> Timing:
        products.append(step())
        assert (min_seconds, min_steps) == (0.5, 7)  # the sizes share the time
        return took(1.0)

    monkeypatch.setattr(ceiling, "SIZES", {"cpu": (8, 16)})
    monkeypatch.setattr(ceiling, "time_steps", run_once)

    measure_ceiling(CPU, precision, min_seconds=1.0, min_steps=7)

    assert [(product.shape, product.dtype) for product in products] == [
        ((8, 8), dtype), ((16, 16), dtype),
    ]  # fmt: skip
    assert products[1].float().std() == pytest.approx(4.0, rel=0.2)  # sqrt(16) of normal draws


def test_equal_seeds_measure_equal_matrices(monkeypatch):
    products = []
    monkeypatch.setattr(ceiling, "SIZES", {"cpu": (8,)})
    monkeypatch.setattr(ceiling, "time_steps", lambda step, **_: products.append(step()) or took(1))

    for seed in (0, 0, 1):
        measure_ceiling(CPU, "fp32", min_seconds=1.0, min_steps=1, seed=seed)

    assert torch.equal(products[0], products[1])
    assert not torch.equal(products[0], products[2])


def test_a_real_measurement_takes_the_time_it_is_given(monkeypatch):
    monkeypatch.setattr(ceiling, "SIZES", {"cpu": (16, 32)})

    flops, found = measure_ceiling(CPU, "fp32", min_seconds=0.02, min_steps=3)

    assert flops in (2 * 16**3, 2 * 32**3)
    assert sum(found.seconds) > 0.002
    assert rate(flops, found) > 0


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("AMD EPYC, 2 cores", None),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA L40", None),
    ],
)
def test_a_stated_peak_is_found_by_the_whole_name_and_never_guessed(name, peak):
    assert stated_peak(name, "bf16") == peak
