"""Linear maps whose cheap input is computed again in backward instead of being saved for it.

A norm or a nonlinearity takes little time and yields as many numbers as a product needs. Eager
autograd saves them for the product's gradient, beside what the norm or nonlinearity itself saves;
autocast saves a copy of every weight besides. Here a projection saves its x alone.
Shape letters: C features of x, I inputs of the linear map, O outputs; ... = leading dimensions.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import get_gradient_edge

from psannlm.model.sine import DampedSine

Function = Callable[[Tensor], Tensor]


def project(x: Tensor, function: Function, linear: nn.Linear) -> Tensor:
    """linear(function(x)), of which eager training saves nothing but x for backward.

    Compiled code takes the plain path, as the compiler decides itself what it computes again; so
    does what needs no gradient, and a sine that `plain_sine` has made plain.

    Args:
        x: (..., C).
        function: (..., C) -> (..., I); cheap, the same whenever it is called. A module's
            parameters receive their gradients; a plain function has none.
        linear: (..., I) -> (..., O).

    Returns:
        (..., O), in the dtype of autocast if there is one.
    """
    if not recomputes(linear) or getattr(function, "plain", False):
        y: Tensor = linear(function(x))
        return y
    apply: Callable[..., Tensor] = _Projection.apply
    return apply(x, linear.weight, linear.bias, function, linear, *_parameters(function))


def unchanged(x: Tensor) -> Tensor:
    """The function of a projection that has nothing before it."""
    return x


def recomputes(module: nn.Module) -> bool:
    """Whether activations are computed again in backward: in eager training."""
    return module.training and torch.is_grad_enabled() and not torch.compiler.is_compiling()


def plain_sine(model: nn.Module) -> None:
    """Have autograd differentiate every damped sine of a network, and compute nothing again.

    Its numbers are the same up to rounding; its memory is what the written-out gradient saves.
    """
    for module in model.modules():
        if isinstance(module, DampedSine):
            module.plain = True


class _Projection(torch.autograd.Function):
    """The gradient, with s = function(x), y = s W^T + b and g the gradient of y.

    dW = g^T s,  db = g summed over rows,  ds = g W;  dx is what autograd makes of ds.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        function: Function,
        linear: nn.Linear,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.function, kind = function, x.device.type
        dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        ctx.autocast = kind, dtype, enabled, False  # as it is, but that it caches no weights
        # Parameters stay in memory anyway; saved, one that changes before backward is an error.
        ctx.save_for_backward(x, weight, *parameters)
        with torch.autocast(*ctx.autocast):
            y: Tensor = linear(function(x.detach()))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors[:2]
        wants_x, wants_weight, wants_bias, _, _, *wants_parameters = ctx.needs_input_grad
        with torch.enable_grad(), torch.autocast(*ctx.autocast):
            source = x.detach().requires_grad_(wants_x)
            # A view, as torch's module hooks cannot be told of a leaf inside autograd.grad.
            s = ctx.function(source.view_as(source))  # (..., I)
        rows = g.flatten(0, -2)  # (N, O)
        by_weight = by_bias = None
        if wants_weight:
            by_weight = (rows.T @ s.detach().flatten(0, -2).to(g.dtype)).to(weight.dtype)
        if wants_bias:
            by_bias = rows.sum(0).to(weight.dtype)
        inner = [source, *_parameters(ctx.function)]
        wants = (wants_x, *wants_parameters)
        wanted = [tensor for tensor, wants_it in zip(inner, wants, strict=True) if wants_it]
        found: Iterator[Tensor] = iter(())
        if wanted:
            by_s = (rows @ weight.to(g.dtype)).view_as(s).to(s.dtype)
            edge = get_gradient_edge(s)
            del s  # its numbers, which autograd does not need
            found = iter(torch.autograd.grad(edge, wanted, by_s))
        by_x, *by_parameters = (next(found) if wants_it else None for wants_it in wants)
        return by_x, by_weight, by_bias, None, None, *by_parameters


def _parameters(function: Function) -> tuple[Tensor, ...]:
    return tuple(function.parameters()) if isinstance(function, nn.Module) else ()
