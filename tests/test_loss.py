"""The chunked loss is the plain one: its value, its gradients, and less to keep for them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from saved_bytes import tensors_saved_by
from torch import Tensor, library
from torch.nn.functional import cross_entropy, linear

from psannlm.config.schema import ConfigError
from psannlm.device import autocast
from psannlm.model import loss
from psannlm.model.loss import IGNORED, linear_cross_entropy, token_losses
from tests.checked import compiles

N, V, D = 23, 11, 6


def problem(
    n: int = N, v: int = V, d: int = D, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Features, head and targets of which every fifth is ignored."""
    generator = torch.Generator().manual_seed(4)
    hidden = torch.randn(n, d, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(v, d, generator=generator, dtype=dtype).requires_grad_()
    targets = torch.randint(v, (n,), generator=generator)
    targets[::5] = IGNORED
    return hidden, weight, targets


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = linear(hidden, weight)
    wide = torch.promote_types(logits.dtype, torch.float32)
    return cross_entropy(logits.to(wide), targets)


def with_gradients(function: Callable[[], Tensor], *inputs: Tensor) -> list[Tensor]:
    value = function()
    return [value.detach(), *torch.autograd.grad(value, inputs)]


@pytest.mark.parametrize("learned", [("hidden", "weight"), ("hidden",), ("weight",)], ids="+".join)
@pytest.mark.parametrize("chunk_tokens", [1, 5, 22, 23, 1000])
def test_the_loss_and_its_gradients_are_those_of_plain_cross_entropy(
    chunk_tokens: int, learned: tuple[str, ...]
) -> None:
    hidden, weight, targets = problem(dtype=torch.float64)
    parts = {"hidden": hidden, "weight": weight}
    leaves = [part.requires_grad_(name in learned) for name, part in parts.items()]
    leaves = [leaf for leaf in leaves if leaf.requires_grad]
    given = hidden, weight, targets

    # Squared, as the gradient has to follow what is done with the loss.
    ours = with_gradients(
        lambda: linear_cross_entropy(*given, chunk_tokens=chunk_tokens).square(), *leaves
    )
    expected = with_gradients(lambda: plain(*given).square(), *leaves)

    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-13)


def test_a_second_backward_pass_is_an_error_not_a_gradient_scaled_twice() -> None:
    hidden, weight, targets = problem()
    value = linear_cross_entropy(hidden, weight, targets, chunk_tokens=5)
    value.backward(retain_graph=True)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_targets_that_are_all_ignored_have_no_mean() -> None:
    hidden, weight, targets = problem()
    targets[:] = IGNORED

    assert linear_cross_entropy(hidden, weight, targets).isnan()


def test_large_logits_cost_what_they_should() -> None:
    hidden = torch.tensor([[2e4], [2e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0]], requires_grad=True)

    value = linear_cross_entropy(hidden, weight, torch.tensor([0, 1]))

    assert value == 2e4
    assert torch.autograd.grad(value, hidden)[0].tolist() == [[0.0], [1.0]]


def test_nothing_as_large_as_the_logits_is_saved_and_no_gradient_is_copied() -> None:
    hidden, weight, targets = problem(n=64, v=32)

    saved = tensors_saved_by(
        lambda: linear_cross_entropy(hidden, weight, targets, chunk_tokens=8).backward()
    )

    assert max(tensor.numel() for tensor in saved) == hidden.numel() < 64 * 32 / 4
    assert weight.grad.data_ptr() in [tensor.data_ptr() for tensor in saved]


def test_no_more_logits_than_those_of_a_chunk_are_ever_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hidden, weight, targets = problem()
    rows: list[int] = []
    losses = loss._losses

    def seen(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        rows.append(len(logits))
        return losses(logits, targets)

    monkeypatch.setattr(loss, "_losses", seen)
    linear_cross_entropy(hidden, weight, targets, chunk_tokens=10)
    token_losses(hidden, weight, targets, chunk_tokens=10)

    assert rows == [10, 10, 3] * 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_errs_no_more_than_twice_as_much_as_plain_cross_entropy(
    dtype: torch.dtype,
) -> None:
    hidden, weight, targets = problem(n=512, v=256, d=64)
    wide = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
    exact = with_gradients(lambda: plain(*wide, targets), *wide)

    def errors(function: Callable[..., Tensor]) -> list[float]:
        with torch.autocast("cpu", dtype):
            value = function(hidden, weight, targets)
        found = [value.detach(), *torch.autograd.grad(value, (hidden, weight))]
        assert all(tensor.dtype == torch.float32 for tensor in found)
        return [float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]

    ours = errors(lambda *inputs: linear_cross_entropy(*inputs, chunk_tokens=100))

    for error, bound in zip(ours, errors(plain), strict=True):
        assert error < 2 * bound


def test_products_run_in_the_dtype_of_autocast_and_the_softmax_does_not() -> None:
    hidden, weight, targets = problem()

    with torch.autocast("cpu", torch.bfloat16):
        value = linear_cross_entropy(hidden, weight, targets)
        losses, _ = token_losses(hidden, weight, targets)

    logits = hidden.bfloat16() @ weight.bfloat16().T
    expected = cross_entropy(logits.float(), targets)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(losses.sum() / (targets != IGNORED).sum(), expected)


@pytest.mark.parametrize("wants_gradients", [True, False])
def test_the_operation_keeps_the_rules_of_torch(wants_gradients: bool) -> None:
    hidden, weight, targets = problem()
    if not wants_gradients:
        hidden, weight = hidden.detach(), weight.detach()
    options = 5, torch.float32, wants_gradients, False

    library.opcheck(torch.ops.psannlm.summed_loss.default, (hidden, weight, targets, *options))


@pytest.mark.slow
@compiles
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("place", ["inside", "outside"])
def test_compiled_it_is_the_same_inside_and_outside_of_a_compiled_function(
    precision: str, place: str
) -> None:
    hidden, weight, targets = problem(n=100, v=64, d=32)

    def loss_of(hidden: Tensor, compiled: bool) -> Tensor:
        with autocast(torch.device("cpu"), precision):
            return linear_cross_entropy(hidden, weight, targets, chunk_tokens=64, compiled=compiled)

    inside = place == "inside"
    function = torch.compile(loss_of, fullgraph=True) if inside else loss_of
    ours = with_gradients(lambda: function(hidden, not inside), hidden, weight)

    expected = with_gradients(lambda: loss_of(hidden, False), hidden, weight)
    tolerance = 1e-5 if precision == "fp32" else 2e-2
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("chunk_tokens", [1, 5, 23, 1000])
def test_the_loss_of_each_token_is_that_of_plain_cross_entropy(chunk_tokens: int) -> None:
    hidden, weight, targets = problem(dtype=torch.float64)

    losses, correct = token_losses(hidden, weight, targets, chunk_tokens=chunk_tokens)

    logits = hidden.detach() @ weight.detach().T
    expected = cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-13)
    assert torch.equal(correct, logits.argmax(-1) == targets)
    assert 0 < correct.sum() < len(targets)
    assert not losses.requires_grad


@pytest.mark.parametrize(
    ("shapes", "chunk_tokens", "message"),
    [
        (((4, 3), (5, 3), (4,)), 0, "chunk_tokens must be at least 1, got 0"),
        (((4, 3), (5, 2), (4,)), 1, r"must be .*, got \(4, 3\), \(5, 2\), \(4,\)"),
        (((4, 3), (5, 3), (3,)), 1, r"must be .*, got \(4, 3\), \(5, 3\), \(3,\)"),
        (((2, 2, 3), (5, 3), (2, 2)), 1, r"must be .*, got \(2, 2, 3\), \(5, 3\), \(2, 2\)"),
    ],
    ids=["no chunk", "other width", "other length", "unflattened"],
)
@pytest.mark.parametrize("function", [linear_cross_entropy, token_losses])
def test_what_does_not_fit_is_refused(
    function: Callable[..., Any], shapes: Any, chunk_tokens: int, message: str
) -> None:
    *features, targets = (torch.zeros(shape) for shape in shapes)

    with pytest.raises(ConfigError, match=message):
        function(*features, targets.long(), chunk_tokens=chunk_tokens)
