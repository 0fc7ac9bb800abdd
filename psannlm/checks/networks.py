"""Networks under a check: the real text they are fed, a few steps of training, what comes of them.

Shape letters: B batch, T tokens, N windows.
"""

import hashlib
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d
from torch.optim import AdamW

from psannlm.checks.findings import ValidationConfig
from psannlm.config.network import ModelConfig
from psannlm.config.schema import ConfigError
from psannlm.corpora.corpus import load
from psannlm.device import DTYPES, repeatable
from psannlm.model.bases import build
from psannlm.model.loss import CHUNK_TOKENS
from psannlm.model.transformer import Transformer
from psannlm.places import located
from psannlm.train.data import Tokens, stream
from psannlm.train.distributed import summing, whole
from psannlm.train.objective import NextToken
from psannlm.train.plan import Batches
from psannlm.train.tokenizer import byte_tokenizer

Batch = tuple[Tensor, Tensor]  # tokens and targets, each (B, T)
Named = Mapping[str, Tensor]  # tensors by the names of the parameters that they belong to

EPSILON = torch.finfo(torch.float32).eps  # distance from 1 to the next float32
TRAINER: dict[str, Any] = {"betas": (0.9, 0.95), "weight_decay": 0.1}
VECTOR_NOISE = 0.3  # of what is no matrix: gains, biases, sine parameters, filters, scalars


def perturbed(config: ModelConfig, device: torch.device, seed: int) -> Transformer:
    """A network with all parameters noisy.

    What starts neutral, such as alpha = 1 or a bias of zero, would hide mistakes. A matrix gets
    noise of 1 / sqrt(its inputs), so that features keep their size from layer to layer. Noise is
    drawn by name: two networks with the same parameters get the same.
    """
    model = build(config, seed=seed)
    matrices = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            digest = hashlib.sha256(f"noise {seed} {name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            size = parameter.shape[1] ** -0.5 if name in matrices else VECTOR_NOISE
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model.to(device)


def batches_of(
    config: ValidationConfig, n_windows: int, *, length: int | None = None, rows: int = 1
) -> Batches:
    """Batches of `rows` of the first N windows, `length` tokens or a context each, of training."""
    length = length or config.context_length
    return Batches(tokens_of(config, n_windows * length + 1), length, rows, config.seed)


def passages(config: ValidationConfig, count: int, length: int) -> Tensor:
    """Token ids, int64 (count, length): passages of the training split, one after the other.

    The mark that begins its first document is left out, so that all is text up to its end.
    """
    tokens = tokens_of(config, count * length + 1)
    return torch.from_numpy(tokens.ids[1:].astype(np.int64)).view(count, length)


def tokens_of(config: ValidationConfig, n_tokens: int) -> Tokens:
    """The first tokens of the training split; ConfigError if they or their ids cannot be had."""
    path = located(config.corpus)
    parts = stream(load(path).texts("train", n_tokens), byte_tokenizer())
    ids = np.asarray([token for part, _ in parts for token in part][:n_tokens], dtype=np.uint16)
    if len(ids) < n_tokens:
        raise ConfigError(
            f"{path} must hold {n_tokens:,} bytes of training text, got {len(ids):,}; "
            "name a longer corpus, or shorten batch or context_length"
        )
    if (largest := int(ids.max())) >= config.vocab_size:
        raise ConfigError(
            f"token ids must be below vocab_size {config.vocab_size}, got {largest}; "
            "give the network as many ids as the tokenizer has"
        )
    return Tokens(ids, n_bytes=n_tokens, sha256=hashlib.sha256(ids.tobytes()).hexdigest())


def loss_of(
    model: Transformer, batch: Batch, precision: str = "fp32", chunk_tokens: int = CHUNK_TOKENS
) -> Tensor:
    """The loss that the trainer minimises on a batch, in training mode."""
    device = next(model.parameters()).device
    objective = NextToken(model, precision, chunk_tokens).train()
    loss: Tensor = objective(*(part.to(device) for part in batch))
    return loss


def optimizer_of(module: nn.Module, config: ValidationConfig, **options: Any) -> AdamW:
    """AdamW of all learned parameters at one learning rate; `TRAINER` makes it the trainer's."""
    learned = [p for p in module.parameters() if p.requires_grad]
    return AdamW(learned, lr=config.learning_rate, fused=True, **options)


def train_step(
    model: Transformer, optimizer: AdamW, batch: Batch, precision: str = "fp32", scale: float = 1
) -> Tensor:
    """Take one optimizer step on a batch, (B, T) each; returns the loss before it.

    In backward the loss is multiplied by `scale`, which is taken out of the gradients afterwards.
    """
    loss = loss_of(model, batch, precision)
    torch.autograd.backward(loss * scale)
    for parameter in model.parameters():
        if parameter.grad is not None and scale != 1:
            parameter.grad /= scale
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def gradients_of(source: nn.Module | Named, loss: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
    """The gradient of a loss by each learned parameter, in float64; zeros if it has none.

    Scaled as in `train_step`. The parameters are those of a module, or given by name.
    """
    if isinstance(source, nn.Module):
        source = dict(source.named_parameters(remove_duplicate=False))
    learned = {name: p for name, p in source.items() if p.requires_grad}
    found = torch.autograd.grad(loss * scale, list(learned.values()), materialize_grads=True)
    return {name: g.double() / scale for name, g in zip(learned, found, strict=True)}


class Learned(NamedTuple):
    """What a few steps left behind: tensors whole, on the CPU, by the names of parameters."""

    gradients: Named  # of the first step, before the optimizer took it
    losses: Tensor  # of each step, before it, float64
    parameters: Named  # after the last step


def start(
    network: ModelConfig, config: ValidationConfig, device: torch.device, seed: int
) -> tuple[NextToken, AdamW]:
    """A fresh float32 network with its loss, and its optimizer."""
    objective = NextToken(build(network, seed=seed, device=device), "fp32", CHUNK_TOKENS)
    return objective, optimizer_of(objective, config, **TRAINER)


def learn(objective: nn.Module, optimizer: AdamW, steps: Iterable[Sequence[Tensor]]) -> Learned:
    """Train as the trainer does: gradients of all passes of a step, summed in the last one.

    A step is given as its passes, each (B, T + 1) token ids. If ranks share the objective, a
    `NextToken`, all of them must call this.
    """
    device = next(objective.parameters()).device
    gradients: Named = {}
    losses = []
    objective.train()
    with repeatable(device):
        for passes in steps:
            total = torch.zeros((), dtype=torch.float64, device=device)
            for i, text in enumerate(passes):
                text = text.to(device)
                with summing(objective, last=i == len(passes) - 1):
                    loss = objective(text[:, :-1], text[:, 1:]) / len(passes)
                    loss.backward()
                total += loss.detach()
            gradients = gradients or _whole({n: p.grad for n, p in objective.named_parameters()})
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(total.cpu())
    return Learned(gradients, torch.stack(losses), parameters_of(objective))


def parameters_of(objective: nn.Module) -> dict[str, Tensor]:
    """Whole parameters, on the CPU; all ranks must ask."""
    return _whole(dict(objective.named_parameters()))


def _whole(tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """Copies on the CPU, under the names that they have without DDP."""
    return {
        name.removeprefix("module."): whole(t).detach().cpu().clone()
        for name, t in tensors.items()
        if t is not None
    }


def leak(model: Transformer, tokens: Tensor) -> float:
    """How far changed tokens move logits before them, over the largest logit.

    Changes the first, the middle and the last token and those at its quarters, one at a time, in
    training mode and in evaluation mode; the worst of all is told. Tokens are (1, T).
    """
    length, was_training = tokens.shape[1], model.training
    places = sorted({0, min(1, length - 1), length // 4, length // 2, 3 * length // 4, length - 1})
    changed = tokens.repeat(len(places) + 1, 1)
    changed[torch.arange(len(places)) + 1, places] += 1
    changed %= model.config.vocab_size
    before = torch.arange(length) < torch.tensor(places)[:, None]
    worst = 0.0
    for training in (True, False):
        with torch.no_grad():
            logits = model.train(training)(changed).double()
        moved = (logits[1:] - logits[0]).abs().amax(-1) * before.to(logits)
        worst = max(worst, moved.max().item()) if logits.isfinite().all() else math.inf
    model.train(was_training)
    return worst / float(logits.abs().max().item())


def difference(found: Tensor, wanted: Tensor, terms: Tensor | None = None) -> float:
    """|found - wanted| / |wanted| in float64, or over |terms| if that is larger.

    What cancels by chance is small beside the terms that it is a sum of, and its rounding is not.
    Zero if both are equal, else infinite if all that it is divided by is zero.
    """
    gap = float((found.detach().double() - wanted.detach().double()).norm())
    size = max(float(t.detach().double().norm()) for t in (wanted, terms) if t is not None)
    return gap and (gap / size if size else math.inf)


def joined(named: Named) -> Tensor:
    """All tensors in one, float64, in the order of their names."""
    return torch.cat([named[name].double().flatten() for name in sorted(named)])


def largest_difference(found: Named, right: Named, terms: Named) -> tuple[float, str]:
    """The largest `difference` of a tensor from the one of its name, and the name.

    That of a tensor which only one side has is infinite.
    """
    gaps = {n: difference(found[n], right[n], terms.get(n)) for n in found.keys() & right.keys()}
    gaps |= dict.fromkeys(found.keys() ^ right.keys(), math.inf)
    return max((gap, name) for name, gap in gaps.items())


def n_different(found: Named, right: Named) -> int:
    """Elements whose bits differ; those of a tensor that only one side has differ all."""
    count = 0
    for name in right.keys() | found.keys():
        a, b = found.get(name), right.get(name)
        if a is None or b is None or (a.shape, a.dtype) != (b.shape, b.dtype):
            count += max(t.numel() for t in (a, b) if t is not None)
        else:
            # By bytes of memory, (N, bytes): -0 is not 0 there, and a NaN is itself.
            one, other = (t.contiguous().view(-1, 1).view(torch.uint8) for t in (a, b))
            count += int((one != other).any(1).sum())
    return count


def missing_products(device: torch.device, precision: str) -> str:
    """What torch says if it has not the products of a network, or their gradients; else empty."""

    def products() -> None:
        x = torch.ones(1, 8, 8, device=device, dtype=DTYPES[precision], requires_grad=True)
        y = conv1d(x @ x, x[0, :, None], groups=8) + x.softmax(-1)
        torch.autograd.grad(y.sum(), x)

    return refusal(products)


def refusal(attempt: Callable[..., Any], *arguments: Any) -> str:
    """What torch says if it cannot do it, empty if it can."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            attempt(*arguments)
        except RuntimeError as error:
            lines = [str(warning.message) for warning in said] or [str(error)]
            return " ".join(line.partition(" (Triggered")[0] for line in lines)
    return ""
