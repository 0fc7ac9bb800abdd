"""The ceiling is the fastest of a few square products, in the precision that is asked for."""

import pytest
import torch

from psannlm.bench import ceiling
from psannlm.bench.ceiling import measure_ceiling, rate
from psannlm.bench.timing import Timing

CPU = torch.device("cpu")


def timing(*seconds: float) -> Timing:
    return Timing(first_seconds=9.0, n_warmup=6, steady=True, seconds=seconds)


def test_a_rate_counts_all_timed_products_and_no_warm_up() -> None:
    assert rate(600, timing(1.0, 2.0, 3.0)) == 300.0


@pytest.mark.parametrize("order", [(8, 16, 32), (32, 16, 8), (16, 32, 8)])
def test_the_size_with_the_highest_rate_is_the_ceiling(monkeypatch, order) -> None:
    # Products of 16 take as long as those of 8, those of 32 a hundred times as long.
    seconds = iter({8: 1.0, 16: 1.0, 32: 100.0}[size] for size in order)
    monkeypatch.setattr(ceiling, "SIZES", {"cpu": order})
    monkeypatch.setattr(ceiling, "time_steps", lambda step, **_: timing(next(seconds)))

    flops, found = measure_ceiling(CPU, "fp32", min_seconds=1.0, min_steps=1)

    assert flops == 2 * 16**3
    assert found.seconds == (1.0,)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_products_are_square_and_in_the_precision_asked_for(monkeypatch, precision, dtype) -> None:
    products = []

    def run_once(step, *, min_seconds, min_steps, stopwatch) -> Timing:
        products.append(step())
        assert (min_seconds, min_steps) == (0.5, 7)  # the sizes share the time
        return timing(1.0)

    monkeypatch.setattr(ceiling, "SIZES", {"cpu": (8, 16)})
    monkeypatch.setattr(ceiling, "time_steps", run_once)

    measure_ceiling(CPU, precision, min_seconds=1.0, min_steps=7)

    assert [(product.shape, product.dtype) for product in products] == [
        ((8, 8), dtype), ((16, 16), dtype),
    ]  # fmt: skip
    assert products[1].float().std() == pytest.approx(4.0, rel=0.2)  # sqrt(16) of normal draws


def test_equal_seeds_measure_equal_matrices(monkeypatch) -> None:
    products = []
    monkeypatch.setattr(ceiling, "SIZES", {"cpu": (8,)})
    monkeypatch.setattr(
        ceiling, "time_steps", lambda step, **_: products.append(step()) or timing(1)
    )

    for seed in (0, 0, 1):
        measure_ceiling(CPU, "fp32", min_seconds=1.0, min_steps=1, seed=seed)

    assert torch.equal(products[0], products[1])
    assert not torch.equal(products[0], products[2])


def test_a_real_measurement_takes_the_time_it_is_given(monkeypatch) -> None:
    monkeypatch.setattr(ceiling, "SIZES", {"cpu": (16, 32)})

    flops, found = measure_ceiling(CPU, "fp32", min_seconds=0.02, min_steps=3)

    assert flops in (2 * 16**3, 2 * 32**3)
    assert sum(found.seconds) > 0.002
    assert rate(flops, found) > 0
