"""Errors against float64 are measured as they are defined, and luck decides nothing."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from psannlm.checks.exactness import FEW, LUCK, SPREAD, Excess, Problem, excesses, results
from psannlm.checks.fast_paths import TWICE

Change = Callable[[Tensor], Tensor]


def problem(
    fast: Change,
    *,
    plain: Change = torch.sin,
    exact: Change = torch.sin,
    x: Tensor | None = None,
    n: int = 64,
    seed: int = 0,
    n_terms: int = 1,
) -> Problem:
    """sin(x) of n random numbers in float32, or what else is given."""
    if x is None:
        x = torch.randn(n, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    paths = {"plain": plain, "exact": exact, "fast": {"fast": fast}}
    return Problem(leaves={"x": x}, precision="fp32", n_terms=n_terms, **paths)


def excess(*problems: Problem) -> Excess:
    ((name, found),) = excesses(problems)
    assert name == "fast"
    return found


def off_by(error: float) -> Change:
    return lambda x: torch.sin(x) * (1 + error)


def test_error_is_the_relative_norm_of_the_difference() -> None:
    n = 10**6  # numbers enough that chance has no say
    found = excess(problem(off_by(0.03), plain=off_by(0.02), n=n))

    assert found.fast == pytest.approx(0.03, rel=1e-4)
    assert found.plain == pytest.approx(0.02, rel=1e-4)
    assert found.ratio == pytest.approx(1.5, rel=0.005)


def test_a_wrong_gradient_is_the_worst_tensor_even_if_the_output_is_right() -> None:
    def fast(x: Tensor) -> Tensor:
        return torch.sin(x.detach()) + 0.9 * (torch.sin(x) - torch.sin(x).detach())

    found = excess(problem(fast))

    assert found.tensor == "gradient of x"
    assert found.fast == pytest.approx(0.1, rel=1e-3)
    assert found.ratio > 1e4


def test_norms_are_taken_over_all_seeds_together() -> None:
    xs = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (64, 6400)]

    found = excess(problem(torch.sin, x=xs[0]), problem(off_by(0.1), x=xs[1]))

    sizes = [x.double().sin().norm().item() for x in xs]
    assert found.fast == pytest.approx(0.1 * sizes[1] / math.hypot(*sizes), rel=1e-4)
    assert found.tensor == "output"  # the only one, as nothing is learned


def test_an_exact_plain_path_leaves_room_for_rounding_once() -> None:
    x = torch.linspace(0.1, 1.5, 1000)
    rounding = problem(torch.Tensor.bfloat16, plain=torch.clone, exact=torch.clone, x=x)
    in_bfloat16 = dataclasses.replace(rounding, plain=torch.Tensor.bfloat16)

    assert excess(rounding).floor < 1e-7
    once = float((x.bfloat16().double() - x.double()).norm() / x.double().norm())
    by_chance = math.exp(LUCK / math.sqrt(len(x)))
    assert excess(in_bfloat16).floor == pytest.approx(once * by_chance)
    assert excess(in_bfloat16).ratio == pytest.approx(1 / by_chance)


def test_long_sums_may_err_as_numbers_do_that_are_added_one_after_the_other() -> None:
    n_terms = 600
    found = excess(problem(off_by(1e-5), n_terms=n_terms))

    x = torch.rand(n_terms, 2000, generator=torch.Generator().manual_seed(3)) - 0.5
    total = torch.zeros(2000)
    for row in x:
        total += row
    exact = x.double().sum(0)
    error = float((total - exact).norm() / exact.norm())
    assert found.floor == pytest.approx(2**-24 * math.sqrt(n_terms / 6))
    # Rounding errors are spread evenly below u times a power of two: 0.29 to 0.58 u as a rule.
    assert 0.5 * found.floor < error < 1.2 * found.floor


def test_a_lone_number_is_held_to_the_plain_errors_of_all_tensors() -> None:
    def plain(x: Tensor) -> Tensor:  # its output is right, its gradient off by a tenth
        y = torch.sin(x).sum()
        return y.detach() + 1.1 * (y - y.detach())

    found = excess(
        problem(
            lambda x: 1.05 * torch.sin(x).sum(),
            plain=plain,
            exact=lambda x: torch.sin(x).sum(),
            x=torch.linspace(0.1, 1, FEW + 1).requires_grad_(),
        )
    )

    assert found.tensor == "output"
    assert found.ratio == pytest.approx(0.05 / (SPREAD * 0.1), rel=1e-3)


def with_noise(generator: torch.Generator, size: float) -> Change:
    """sin(x) of which every number has an error of its own."""

    def path(x: Tensor) -> Tensor:
        return torch.sin(x) + size * torch.randn(x.shape, generator=generator)

    return path


@pytest.mark.parametrize("n", [FEW + 1, 24, 768])
def test_no_seed_tells_paths_apart_that_err_equally(n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    equal, worse = with_noise(generator, 1e-4), with_noise(generator, 3e-4)

    ratios = [excess(problem(equal, plain=equal, n=n, seed=seed)).ratio for seed in range(1500)]

    assert max(ratios) <= TWICE
    # Of many numbers, an error thrice as large is seen.
    assert n < 768 or excess(problem(worse, plain=equal, n=n)).ratio > TWICE


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_errs_without_bound(bad: float) -> None:
    assert excess(problem(lambda x: torch.sin(x) * bad)).ratio == math.inf


def test_the_precision_is_that_of_autocast() -> None:
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()

    found = results(lambda w: w @ w, {"w": weight}, "bf16")

    assert found["output"].dtype == torch.bfloat16
    assert found["gradient of w"].dtype == torch.float32
