"""Fast paths are held to plain ones by their errors; broken ones are among the twins."""

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from psannlm.checks import fast_paths
from psannlm.checks.fast_paths import (
    FEW,
    LUCK,
    SPREAD,
    SPREADS,
    TWICE,
    Draw,
    Excess,
    Make,
    Problem,
    doubled,
    results,
)
from psannlm.checks.findings import Result
from psannlm.checks.networks import difference
from psannlm.model import blockwise
from psannlm.model.loss import IGNORED
from psannlm.train import compilation
from tests.checked import BASES, case_of, compiles, failed


def checked(base: str, **changes: Any) -> tuple[Result, set[str]]:
    """What the check found of a base, and the names of all that it tried."""
    result = fast_paths.check(case_of(base, **changes))
    return result, set(result.facts["errors"])


def test_a_base_is_tried_on_its_fast_paths_and_missing_kernels_have_a_reason() -> None:
    result, tried = checked("transformer", context_length=8)
    names = {name.removesuffix(", fp32") for name in tried}

    assert {"attention layer", "loss in chunks", "loss of each token"} <= names
    assert not any("sine" in name or "convolution" in name for name in names)
    for precision in ("fp32", "bf16"):
        for kernel in ("math", "flash", "efficient", "cudnn"):
            name = f"attention, {kernel} kernel, {precision}"
            assert (name in tried) == (name not in result.facts["not tried"])
    assert "attention, math kernel, fp32" in tried
    assert all(result.facts["not tried"].values())


def test_what_the_device_cannot_do_is_a_fact_with_its_reason(monkeypatch) -> None:
    refusals = {"fp32": "", "bf16": "no such products here"}
    monkeypatch.setattr(fast_paths, "missing_products", lambda _, precision: refusals[precision])
    monkeypatch.setattr(fast_paths, "missing_compiler", lambda device: "no compiler found")

    result, tried = checked("transformer", compile=True, context_length=8)

    assert result.facts["not tried"]["bf16"] == "no such products here"
    assert result.facts["not tried"]["compiled network"] == "no compiler found"
    assert {name.rpartition(", ")[2] for name in tried} == {"fp32"}
    assert not any("compiled network" in name for name in tried)


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["rope", "alibi", "sinusoidal"])
@pytest.mark.parametrize("base", BASES)
def test_fast_paths_of_every_base_pass(base: str, positions: str) -> None:
    precision = ["bf16", "fp16"]
    result, tried = checked(base, positions=positions, precision=precision, d_model=32, seed=5)

    assert not failed(result)
    assert {name.rpartition(", ")[2] for name in tried} == {"fp32", "bf16", "fp16"}


@pytest.mark.slow
@compiles
def test_the_compiled_network_is_held_to_the_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "_FAST_PRODUCTS", True)

    result, tried = checked("respsann", compile=True, n_layers=1, n_seeds=1, grad_checkpoint=True)

    assert {"compiled network, fp32", "compiled network, bf16"} <= tried
    assert not failed(result)


def test_a_compiler_that_gets_a_sum_wrong_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda module: lambda *given: 1.05 * module(*given))
    monkeypatch.setattr(compilation, "read_back", lambda: compilation.Compilation(frames=1))

    result, _ = checked("transformer", compile=True, n_layers=1, n_seeds=1, context_length=8)

    seen = [f"compiled network, {precision}" for precision in ("fp32", "bf16")]
    assert [name.partition(":")[0] for name in failed(result)] == seen


@pytest.mark.parametrize("error", [None, RuntimeError("no such\noperation")])
def test_a_network_that_ran_eagerly_is_no_compiled_one(error, uncompilable) -> None:
    uncompilable(error)

    result, tried = checked("transformer", compile=True, n_layers=1, n_seeds=1, context_length=8)

    reason = "RuntimeError: no such" if error else "torch.compile compiled nothing"
    for precision in ("fp32", "bf16"):
        assert reason in result.facts["not tried"][f"compiled network, {precision}"]
        assert {f"network, {precision}"} <= tried
    assert not any("compiled network" in name for name in tried)


MAKES: dict[str, Make] = {
    "sines": fast_paths.sines,
    "attention_layers": fast_paths.attention_layers,
    "attentions": functools.partial(fast_paths.attentions, backends={"math": SDPBackend.MATH}),
    "losses": fast_paths.losses,
    "gates": fast_paths.gates,
    "waves": fast_paths.waves,
}


def drawn(make: Make, precision: str = "fp32", **changes: Any) -> list[Problem]:
    return list(make(Draw(case_of("waveresnet", context_length=37, **changes), precision, 0)))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_every_path_is_the_plain_one_in_float64(monkeypatch, make: Make) -> None:
    monkeypatch.setattr(blockwise, "fits", lambda q: False)  # its scores are float32

    for problem in drawn(make):
        leaves = doubled(problem.leaves)
        plain = results(problem.plain, leaves, "fp32")
        for path in problem.fast.values():
            found = results(path, leaves, "fp32")
            torch.testing.assert_close(found, plain, rtol=1e-8, atol=1e-10)


def test_sines_are_tried_in_every_decay_mode_on_small_z_and_on_large() -> None:
    tried = drawn(fast_paths.sines)

    assert len(tried) == 3 * len(SPREADS)
    assert sum("decay" not in problem.leaves for problem in tried) == len(SPREADS)
    reaches = [(p.leaves["frequency"] * p.leaves["z"]).abs().max().item() for p in tried]
    assert sorted(reaches)[-3] > 100 * torch.pi


def test_some_chunks_divide_the_tokens_and_some_do_not() -> None:
    *in_chunks, _ = drawn(fast_paths.losses)
    given = [p.fast["loss in chunks"].keywords for p in in_chunks]

    assert [2 * 37 % options["chunk_tokens"] == 0 for options in given] == [False, False, True]
    assert all((options["targets"] == IGNORED).any() for options in given)


@pytest.mark.parametrize(("n_layers", "n_dilations"), [(3, 3), (6, 4)])
def test_the_wave_is_tried_at_every_dilation(n_layers: int, n_dilations: int) -> None:
    waves = drawn(fast_paths.waves, "fp16", n_layers=n_layers)

    assert len(waves) == n_dilations
    for problem in waves:
        features, *parameters = problem.leaves.values()
        assert features.dtype == torch.float16
        assert {parameter.dtype for parameter in parameters} == {torch.float32}


def test_attention_in_blocks_is_tried_where_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "_FAST_PRODUCTS", True)

    for precision, serves in (("bf16", True), ("fp32", False)):
        (problem,) = drawn(MAKES["attentions"], precision)
        assert ("attention, in blocks" in problem.fast) == serves


Change = Callable[[Tensor], Tensor]


def problem(
    fast: Change,
    plain: Change = torch.sin,
    exact: Change = torch.sin,
    n: int = 64,
    seed: int = 0,
    **leaves: Tensor,
) -> Problem:
    """sin(x) of n random numbers in float32, or what else is given."""
    drawn = torch.randn(n, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    return Problem({"x": drawn} | leaves, plain, {"fast": fast}, exact)


def excess(*problems: Problem, n_terms: int = 1) -> Excess:
    [(_, found)] = fast_paths.excesses(problems, "fp32", n_terms)
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
    in_bfloat16 = rounding._replace(plain=torch.Tensor.bfloat16)

    assert excess(rounding).floor < 1e-7
    once = difference(x.bfloat16(), x)
    by_chance = math.exp(LUCK / math.sqrt(len(x)))
    assert excess(in_bfloat16).floor == pytest.approx(once * by_chance)
    assert excess(in_bfloat16).ratio == pytest.approx(1 / by_chance)


def test_long_sums_may_err_as_numbers_do_that_are_added_one_after_the_other() -> None:
    n_terms = 600
    found = excess(problem(off_by(1e-5)), n_terms=n_terms)

    x = torch.rand(n_terms, 2000, generator=torch.Generator().manual_seed(3)) - 0.5
    error = difference(sum(x, torch.zeros(2000)), x.double().sum(0))
    assert found.floor == pytest.approx(2**-24 * math.sqrt(n_terms / 6))
    # Rounding errors are spread evenly below u times a power of two: 0.29 to 0.58 u as a rule.
    assert 0.5 * found.floor < error < 1.2 * found.floor


def test_a_lone_number_is_held_to_the_plain_errors_of_all_tensors() -> None:
    def plain(x: Tensor) -> Tensor:  # its output is right, its gradient off by a tenth
        y = torch.sin(x).sum()
        return y.detach() + 1.1 * (y - y.detach())

    def exact(x: Tensor) -> Tensor:
        return torch.sin(x).sum()

    x = torch.linspace(0.1, 1, FEW + 1).requires_grad_()
    found = excess(problem(lambda x: 1.05 * exact(x), plain, exact, x=x))

    assert found.tensor == "output"
    assert found.ratio == pytest.approx(0.05 / (SPREAD * 0.1), rel=1e-3)


@pytest.mark.parametrize("n", [FEW + 1, 24, 768])
def test_no_seed_tells_paths_apart_that_err_equally(n: int) -> None:
    generator = torch.Generator().manual_seed(n)

    def with_noise(size: float) -> Change:  # sin(x) of which every number has an error of its own
        return lambda x: torch.sin(x) + size * torch.randn(x.shape, generator=generator)

    equal, worse = with_noise(1e-4), with_noise(3e-4)
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
