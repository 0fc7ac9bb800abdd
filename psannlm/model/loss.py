"""Next-token cross-entropy from features and head, a chunk of tokens at a time.

Shape letters: N tokens, C tokens of a chunk, D d_model, V vocabulary.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, library

from psannlm.config.schema import ConfigError
from psannlm.model.sine import wide

IGNORED = -100  # the target that counts for nothing: `ignore_index` of torch's cross-entropy
CHUNK_TOKENS = 1024  # C: smaller chunks are no faster on an idle CPU, and slower on a busy one


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    chunk_tokens: int = CHUNK_TOKENS,
    compiled: bool = False,
) -> Tensor:
    """Cross-entropy of softmax(hidden weight^T), whose (N, V) logits are never stored.

    Gradients are computed with the loss, chunk by chunk, so that no product is done twice. Matrix
    products run in the dtype of autocast, everything else in float32 at least; gradients of the
    weight add up in float32. Works inside a compiled function too, as one operation of its graph.

    torch 2.13 has a function of this name. It knows no autocast, cannot be compiled, and rounds the
    loss of bfloat16 features to bfloat16: on a CPU under bfloat16 it takes three times as long as
    a compiled step that stores all logits, and this one no longer than that.

    Args:
        hidden: (N, D).
        weight: Of the head, (V, D).
        targets: Token ids, (N,); -100 is left out of loss and gradients.
        chunk_tokens: C.
        compiled: Whether what lies between the products is compiled; it always is inside a
            compiled function.

    Returns:
        Nats, of no dimension, float32 at least: the mean over the targets that count, not a number
        if none does.

    Raises:
        ConfigError: chunk_tokens is less than 1, or a shape does not fit.
    """
    _refuse(hidden, weight, targets, chunk_tokens)
    wants_gradients = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    compiled = compiled or torch.compiler.is_compiling()
    options = chunk_tokens, _product_dtype(hidden), wants_gradients, compiled
    result: Tensor = _summed_loss(hidden, weight, targets, *options)[0]
    return result / (targets != IGNORED).sum()


@torch.no_grad()
def token_losses(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, chunk_tokens: int = CHUNK_TOKENS
) -> tuple[Tensor, Tensor]:
    """What each token costs, and whether its target was the most likely one; no gradients.

    Arguments and errors are those of `linear_cross_entropy`; a target of -100 costs nothing and is
    never right.

    Returns:
        Nats, (N,), float32 at least, and truth values, (N,).
    """
    _refuse(hidden, weight, targets, chunk_tokens)
    losses = hidden.new_zeros(len(targets), dtype=wide(hidden.dtype))
    correct = torch.zeros_like(targets, dtype=torch.bool)
    dtype = _product_dtype(hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        head = weight.to(dtype)
        for part in _chunks(len(targets), chunk_tokens):
            logits = hidden[part].to(dtype) @ head.T  # (C, V)
            losses[part] = _losses(logits.to(losses.dtype), targets[part])[0]
            correct[part] = logits.argmax(-1) == targets[part]
    return losses, correct


@library.custom_op("psannlm::summed_loss", mutates_args=())
def _summed_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    chunk_tokens: int,
    dtype: torch.dtype,
    wants_gradients: bool,
    compiled: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The summed loss, and its gradients by hidden (N, D) and weight (V, D) if they are wanted."""
    total, by_hidden, by_weight = _results(hidden, weight, dtype, wants_gradients)
    share = _compiled_share() if compiled else _share
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        features, head = hidden.to(dtype), weight.to(dtype)
        # One piece of memory for the logits of all chunks: getting it anew takes longer than
        # what is done with it.
        logits = head.new_empty(min(chunk_tokens, len(targets)), len(head))  # (C, V)
        for part in _chunks(len(targets), chunk_tokens):
            slope = logits[: len(targets[part])]
            torch.mm(features[part], head.T, out=slope)
            total += share(slope, targets[part])
            if wants_gradients:
                torch.mm(slope, head, out=by_hidden[part])
                _add_product(by_weight, slope.T, features[part])
    return total, by_hidden, by_weight


@_summed_loss.register_fake
def _(hidden: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    _, _, dtype, wants_gradients, _ = rest
    return _results(hidden, weight, dtype, wants_gradients)


def _save_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.dtypes = inputs[0].dtype, inputs[1].dtype
    ctx.save_for_backward(*output[1:])
    ctx.set_materialize_grads(False)


def _scale_gradients(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
    by_hidden, by_weight = ctx.saved_tensors
    pairs = zip((by_hidden, by_weight), ctx.dtypes, strict=True)
    return (*(_scaled(gradient, dtype, outer[0]) for gradient, dtype in pairs), *(None,) * 5)


def _scaled(gradient: Tensor, dtype: torch.dtype, factor: Tensor) -> Tensor:
    """Gradient * factor, in place where it can be: a second one as large as the head would show.

    Its version then tells autograd that a further backward pass would scale it again.
    """
    if gradient.dtype == dtype and type(gradient) is Tensor:  # not one that a compiler traces
        return gradient.detach().mul_(factor)
    return gradient.to(dtype) * factor


_summed_loss.register_autograd(_scale_gradients, setup_context=_save_gradients)


def _results(
    hidden: Tensor, weight: Tensor, dtype: torch.dtype, wants_gradients: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Zeros to add to: the loss, its gradient by hidden (N, D), and by weight (V, D)."""
    n, v = (len(hidden), len(weight)) if wants_gradients else (0, 0)
    return (
        hidden.new_zeros((), dtype=wide(dtype)),
        hidden.new_empty((n, hidden.shape[1]), dtype=dtype),
        hidden.new_zeros((v, hidden.shape[1]), dtype=wide(dtype)),
    )


def _share(logits: Tensor, targets: Tensor) -> Tensor:
    """The summed loss of a chunk; its gradient by the logits, (C, V), takes their place."""
    x = logits.to(wide(logits.dtype))
    losses, log_sum = _losses(x, targets)
    token = torch.arange(x.shape[1], device=x.device)
    probabilities = (x - log_sum[:, None]).exp()
    slope = torch.where(token == targets[:, None], probabilities - 1, probabilities)
    logits.copy_(slope * (targets != IGNORED)[:, None])
    return losses.sum()


@functools.cache
def _compiled_share() -> Callable[[Tensor, Tensor], Tensor]:
    """`_share` compiled for each size of chunk; made when first asked for, as that loads much."""
    return torch.compile(_share, dynamic=False)


def _losses(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Nats of each target, (C,), 0 where it is ignored, and the log-sum-exp of its logits, (C,)."""
    counts = targets != IGNORED
    log_sum = logits.logsumexp(-1)
    hit = logits.gather(1, torch.where(counts, targets, 0)[:, None]).squeeze(1)
    return torch.where(counts, log_sum - hit, 0.0), log_sum


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Total += a b, in the dtype of `total`."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def _chunks(n_tokens: int, chunk_tokens: int) -> list[slice]:
    return [slice(start, start + chunk_tokens) for start in range(0, n_tokens, chunk_tokens)]


def _product_dtype(hidden: Tensor) -> torch.dtype:
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _refuse(hidden: Tensor, weight: Tensor, targets: Tensor, chunk_tokens: int) -> None:
    if chunk_tokens < 1:
        raise ConfigError(f"chunk_tokens must be at least 1, got {chunk_tokens}")
    x, w, t = (tuple(tensor.shape) for tensor in (hidden, weight, targets))
    if len(x) != 2 or x[1:] != w[1:] or x[:1] != t:
        rule = "hidden, weight and targets must be (N, D), (V, D) and (N,)"
        raise ConfigError(f"{rule}, got {x}, {w}, {t}")
