"""Broken twins of the fast paths, each of which the check FAST has to see."""

from typing import Any

import pytest
import torch
from torch import Tensor

from psannlm.model import blockwise, loss, mixers, positions, projection, sine, transformer
from psannlm.model.loss import IGNORED
from tests.twins import replacing, seen_by


@seen_by("FAST", "respsann")
@replacing(sine._DampedSine, "backward")
def sine_gradient_with_the_decays_sign_wrong(right: Any, ctx: Any, outer: Tensor) -> Any:
    by_z, *others = right(ctx, outer)
    z, amplitude, frequency, decay = ctx.saved_tensors
    if by_z is None or decay is None:
        return by_z, *others
    damped = amplitude * torch.exp(-decay * z.abs()) * torch.sin(frequency * z)
    return by_z + (2 * outer * decay * z.sign() * damped).to(z.dtype), *others


@seen_by("FAST", "respsann")
def phase_of_the_sine_in_bfloat16(patch: pytest.MonkeyPatch) -> None:
    right = sine.damped_sine_reference

    def wrong(
        z: Tensor, amplitude: Tensor, frequency: Tensor, decay: Tensor | None, decay_mode: Any
    ) -> Tensor:
        given = (t if t is None else t.to(z.dtype) for t in (amplitude, frequency, decay))
        return right(z, *given, decay_mode)

    patch.setattr(sine, "wide", lambda dtype: dtype)
    patch.setattr(sine, "damped_sine_reference", wrong)


@seen_by("FAST", "transformer")
def chunked_loss_without_its_last_chunks_gradient(patch: pytest.MonkeyPatch) -> None:
    right, sizes = loss._add_product, [0]

    def wrong(total: Tensor, a: Tensor, b: Tensor) -> None:
        sizes.append(len(b))
        if sizes[-1] >= sizes[-2]:
            right(total, a, b)

    patch.setattr(loss, "_add_product", wrong)


@seen_by("FAST", "transformer")
@replacing(loss, "linear_cross_entropy")
def mean_loss_over_ignored_targets_too(
    right: Any, hidden: Tensor, weight: Tensor, targets: Tensor, **options: Any
) -> Tensor:
    return right(hidden, weight, targets, **options) * (targets != IGNORED).float().mean()


@seen_by("FAST", "transformer")
def log_sum_exp_of_the_loss_in_bfloat16(patch: pytest.MonkeyPatch) -> None:
    right = loss.token_losses

    def wrong(hidden: Tensor, weight: Tensor, *others: Any, **options: Any) -> tuple[Tensor, ...]:
        return right(hidden.bfloat16(), weight.bfloat16(), *others, **options)

    patch.setattr(loss, "wide", lambda dtype: dtype)
    patch.setattr(loss, "token_losses", wrong)


@seen_by("FAST", "transformer")
@replacing(blockwise, "causal_attention")
def attention_in_blocks_masked_one_off(
    right: Any, q: Tensor, k: Tensor, v: Tensor, scale: float
) -> Tensor:
    return right(q, k.roll(-1, 2), v.roll(-1, 2), scale)  # row i sees up to i + 1


@seen_by("FAST", "transformer")
@replacing(blockwise, "_columns")
def attention_in_blocks_without_a_share_of_its_gradient(right: Any, *given: Any) -> Any:
    *others, shares, scale = given
    return right(*others, torch.zeros_like(shares), scale)


@seen_by("FAST", "transformer")
@replacing(transformer, "scaled_dot_product_attention")
def attention_that_sees_what_comes(right: Any, *given: Tensor, scale: float, **_: Any) -> Tensor:
    return right(*given, scale=scale)


@seen_by("FAST", "transformer")
@replacing(positions.Rotary, "forward")
def rotary_angles_in_bfloat16(right: Any, rotary: Any, x: Tensor, position: int) -> Tensor:
    return right(rotary.bfloat16().float(), x, position)


@seen_by("FAST", "transformer")
@replacing(projection._Projection, "backward")
def weight_gradient_from_what_the_norm_reads(right: Any, ctx: Any, g: Tensor) -> Any:
    by_x, by_weight, *others = right(ctx, g)
    x = ctx.saved_tensors[0]
    if isinstance(ctx.function, torch.nn.RMSNorm) and by_weight is not None:
        by_weight = (g.flatten(0, -2).T @ x.flatten(0, -2).to(g.dtype)).to(by_weight.dtype)
    return by_x, by_weight, *others


@seen_by("FAST", "sgrpsann")
@replacing(mixers, "response_to_taps")
def taps_of_the_gate_off_by_one(right: Any, n: int) -> Tensor:
    return right(n).roll(1, dims=1)


@seen_by("FAST", "waveresnet")
@replacing(mixers, "causal_convolution")
def taps_of_the_wave_turned_round(right: Any, x: Tensor, taps: Tensor, **options: Any) -> Tensor:
    return right(x, taps.flip(1), **options)


@seen_by("FAST", "waveresnet")
@replacing(mixers, "causal_convolution")
def wave_without_its_dilation(right: Any, *given: Tensor, dilation: int, **options: Any) -> Tensor:
    return right(*given, dilation=1, **options)
