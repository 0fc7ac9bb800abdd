"""Broken twins of the fast paths, each of which the check FAST has to see."""

from typing import Any

import pytest
import torch
from torch import Tensor

from psannlm.model import blockwise, loss, mixers, positions, projection, sine, transformer
from psannlm.model.loss import IGNORED
from tests.twins import Twin


def wrong_sign_of_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    right = sine._DampedSine.backward

    def wrong(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        by_z, *others = right(ctx, outer)
        z, amplitude, frequency, decay = ctx.saved_tensors
        if by_z is None or decay is None:
            return by_z, *others
        damped = amplitude * torch.exp(-decay * z.abs()) * torch.sin(frequency * z)
        return by_z + (2 * outer * decay * z.sign() * damped).to(z.dtype), *others

    monkeypatch.setattr(sine._DampedSine, "backward", staticmethod(wrong))


def phase_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    right = sine.damped_sine_reference

    def wrong(
        z: Tensor, amplitude: Tensor, frequency: Tensor, decay: Tensor | None, decay_mode: Any
    ) -> Tensor:
        given = (t if t is None else t.to(z.dtype) for t in (amplitude, frequency, decay))
        return right(z, *given, decay_mode)

    monkeypatch.setattr(sine, "_wide", lambda dtype: dtype)
    monkeypatch.setattr(sine, "damped_sine_reference", wrong)


def no_gradient_of_the_last_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    right, sizes = loss._add_product, [0]

    def wrong(total: Tensor, a: Tensor, b: Tensor) -> None:
        sizes.append(len(b))
        if sizes[-1] >= sizes[-2]:
            right(total, a, b)

    monkeypatch.setattr(loss, "_add_product", wrong)


def mean_over_ignored_targets_too(monkeypatch: pytest.MonkeyPatch) -> None:
    right = loss.linear_cross_entropy

    def wrong(hidden: Tensor, weight: Tensor, targets: Tensor, **options: Any) -> Tensor:
        share = (targets != IGNORED).float().mean()
        return right(hidden, weight, targets, **options) * share

    monkeypatch.setattr(loss, "linear_cross_entropy", wrong)


def log_sums_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "_wide", lambda dtype: dtype)
    right = loss.token_losses

    def wrong(hidden: Tensor, weight: Tensor, *others: Any, **options: Any) -> tuple[Tensor, ...]:
        return right(hidden.bfloat16(), weight.bfloat16(), *others, **options)

    monkeypatch.setattr(loss, "token_losses", wrong)


def blocks_masked_one_off(monkeypatch: pytest.MonkeyPatch) -> None:
    right = blockwise.causal_attention

    def wrong(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        return right(q, k.roll(-1, 2), v.roll(-1, 2), scale)  # row i sees up to i + 1

    monkeypatch.setattr(blockwise, "causal_attention", wrong)


def shares_left_out_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    right = blockwise._columns

    def wrong(*arguments: Any) -> tuple[Tensor, Tensor]:
        *others, shares, scale = arguments
        return right(*others, torch.zeros_like(shares), scale)

    monkeypatch.setattr(blockwise, "_columns", wrong)


def attention_sees_all(monkeypatch: pytest.MonkeyPatch) -> None:
    right = transformer.scaled_dot_product_attention

    def wrong(q: Tensor, k: Tensor, v: Tensor, *, scale: float, **_: Any) -> Tensor:
        return right(q, k, v, scale=scale)

    monkeypatch.setattr(transformer, "scaled_dot_product_attention", wrong)


def angles_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    right = positions.Rotary.forward

    def wrong(rotary: positions.Rotary, x: Tensor, position: int) -> Tensor:
        return right(rotary.bfloat16().float(), x, position)

    monkeypatch.setattr(positions.Rotary, "forward", wrong)


def weight_gradient_from_what_the_norm_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    right = projection._Projection.backward

    def wrong(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        by_x, by_weight, *others = right(ctx, g)
        x = ctx.saved_tensors[0]
        if isinstance(ctx.function, torch.nn.RMSNorm) and by_weight is not None:
            by_weight = (g.flatten(0, -2).T @ x.flatten(0, -2).to(g.dtype)).to(by_weight.dtype)
        return by_x, by_weight, *others

    monkeypatch.setattr(projection._Projection, "backward", staticmethod(wrong))


def gate_taps_off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    right = mixers.response_to_taps
    monkeypatch.setattr(mixers, "response_to_taps", lambda n: right(n).roll(1, dims=1))


def wave_taps_turned_round(monkeypatch: pytest.MonkeyPatch) -> None:
    right = mixers.causal_convolution

    def wrong(x: Tensor, taps: Tensor, **options: Any) -> Tensor:
        return right(x, taps.flip(1), **options)

    monkeypatch.setattr(mixers, "causal_convolution", wrong)


def wave_dilation_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    right = mixers.causal_convolution

    def wrong(x: Tensor, taps: Tensor, *, dilation: int, **options: Any) -> Tensor:
        return right(x, taps, dilation=1, **options)

    monkeypatch.setattr(mixers, "causal_convolution", wrong)


FAST_TWINS = [
    Twin(name, "FAST", base, damage)
    for name, base, damage in (
        ("sine gradient with the decay's sign wrong", "respsann", wrong_sign_of_decay),
        ("phase of the sine in bfloat16", "respsann", phase_in_bfloat16),
        (
            "chunked loss without its last chunk's gradient",
            "transformer",
            no_gradient_of_the_last_chunk,
        ),
        ("mean loss over ignored targets too", "transformer", mean_over_ignored_targets_too),
        ("log-sum-exp of the loss in bfloat16", "transformer", log_sums_in_bfloat16),
        ("attention in blocks masked one off", "transformer", blocks_masked_one_off),
        (
            "attention in blocks without a share of its gradient",
            "transformer",
            shares_left_out_of_blocks,
        ),
        ("attention that sees what comes", "transformer", attention_sees_all),
        ("rotary angles in bfloat16", "transformer", angles_in_bfloat16),
        (
            "projection whose weight gradient takes what the norm reads",
            "transformer",
            weight_gradient_from_what_the_norm_reads,
        ),
        ("taps of the gate off by one", "sgrpsann", gate_taps_off_by_one),
        ("taps of the wave turned round", "waveresnet", wave_taps_turned_round),
        ("wave without its dilation", "waveresnet", wave_dilation_of_one),
    )
]
