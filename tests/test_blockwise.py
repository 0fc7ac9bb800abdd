"""Blockwise attention: as exact as torch's kernel, causal, and without a T x T matrix."""

from collections.abc import Callable

import pytest
import torch
from saved_bytes import tensors_saved_by
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from psannlm.model import blockwise
from tests.checked import compiles

SCALE = 0.25

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def inputs(n_tokens: int, spread: float = 1.0) -> list[Tensor]:
    """q, k, v and a gradient of the output."""
    generator = torch.Generator().manual_seed(n_tokens)
    parts = [torch.randn(2, 3, n_tokens, 16, generator=generator) for _ in range(4)]
    parts[0] *= spread
    return [part.bfloat16() for part in parts]


def saved_sizes(attention: Attention, n: int) -> list[int]:
    """Elements of each tensor that is saved for the backward pass."""
    leaves = [part.requires_grad_() for part in inputs(n)[:3]]
    return [tensor.numel() for tensor in tensors_saved_by(lambda: attention(*leaves))]


def explicit(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    hidden = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
    scores = (q @ k.mT * SCALE).masked_fill(hidden, float("-inf"))
    return scores.softmax(-1) @ v


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q, k, v, is_causal=True, scale=SCALE)


def blocks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return blockwise.causal_attention(q, k, v, SCALE)


def results(attention: Attention, parts: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The output and the gradients of q, k and v, in float64."""
    q, k, v, g = (part.to(dtype) for part in parts)
    leaves = [part.requires_grad_() for part in (q, k, v)]
    y = attention(*leaves)
    return [part.detach().double() for part in (y, *torch.autograd.grad(y, leaves, g))]


def check_error(attention: Attention, parts: list[Tensor]) -> None:
    """Errors are at most twice those of torch's kernel."""
    exact = results(explicit, parts, torch.float64)
    theirs = results(fused, parts, torch.bfloat16)
    ours = results(attention, parts, torch.bfloat16)
    for x, y, z in zip(exact, theirs, ours, strict=True):
        # A lone row has no gradient in q and k; 1e-4 is what float32 leaves of such differences.
        assert (z - x).norm() <= 2 * (y - x).norm() + 1e-4


@pytest.mark.parametrize("spread", [1.0, 3.0])
@pytest.mark.parametrize("n_tokens", [1, 2, 100, 256, 300])
def test_error_is_at_most_twice_that_of_torchs_kernel(n_tokens: int, spread: float) -> None:
    check_error(blocks, inputs(n_tokens, spread))


@pytest.mark.parametrize("n_tokens", [1, 7, 16, 37])
def test_formula_holds_in_float32_whatever_the_size_of_a_block(
    n_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockwise, "ROWS", 16)
    parts = inputs(n_tokens)
    exact = results(explicit, parts, torch.float64)
    ours = results(blocks, parts, torch.float32)
    for x, z in zip(exact, ours, strict=True):
        torch.testing.assert_close(z, x, rtol=1e-4, atol=1e-5)


def test_row_does_not_see_what_comes_after_it() -> None:
    q, k, v, _ = inputs(300)
    y = blocks(q, k, v)
    for cut in (1, 255, 256, 257):
        changed = [torch.cat([part[:, :, :cut], part[:, :, cut:] + 1], 2) for part in (q, k, v)]
        torch.testing.assert_close(blocks(*changed)[:, :, :cut], y[:, :, :cut], rtol=0, atol=0)


def test_backward_pass_gets_no_tensor_of_all_pairs_of_tokens() -> None:
    sizes = saved_sizes(blocks, 600)
    assert len(sizes) == 5
    assert max(sizes) == 2 * 3 * 600 * 16


@pytest.mark.slow
@compiles
def test_compiled_it_is_as_exact_and_saves_no_tensor_of_all_pairs_of_tokens_either() -> None:
    compiled = torch.compile(blocks)  # of two blocks

    check_error(compiled, inputs(300))
    # Inputs, output and sums have 81 elements a token, all pairs would have 262.
    assert sum(saved_sizes(compiled, 300)) < 2 * 3 * 300 * 160
