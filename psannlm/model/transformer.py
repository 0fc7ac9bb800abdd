"""The transformer that all bases share: token ids in, logits out.

Shape letters: B batch, T tokens, D d_model, H heads, K head width, F d_mlp, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, relu, scaled_dot_product_attention, silu, softplus
from torch.utils.checkpoint import checkpoint

from psannlm.config.network import Architecture, ModelConfig
from psannlm.model import blockwise
from psannlm.model.mixers import Rows
from psannlm.model.positions import Alibi, Rotary, sinusoidal_table
from psannlm.model.projection import Function, project, recomputes, unchanged
from psannlm.model.sine import raw_parameter


@dataclass
class State:
    """What a model remembers between decoding steps: how far it is, and the rows of each layer."""

    position: int
    layers: list[Rows]


class Attention(nn.Module):
    """Multi-head attention in which a token sees itself and what came before.

    Scores are never stored where torch has a fused kernel for the device and dtype. A `norm` given
    to `forward` is applied to x first.

    Shape:
        (B, T, D) -> (B, T, D)
    """

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        self.n_heads, self.scale = config.n_heads, config.d_head**-0.5
        self.context_length = config.context_length
        self.to_qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)
        rope, alibi = config.positions == "rope", config.positions == "alibi"
        self.rotary = Rotary(config.d_head, config.context_length) if rope else None
        self.alibi = Alibi(config.n_heads) if alibi else None

    def forward(
        self, x: Tensor, past: Rows | None = None, position: int = 0, norm: Function = unchanged
    ) -> Tensor:
        qkv = project(x, norm, self.to_qkv)
        qkv = qkv.view(*x.shape[:-1], 3, self.n_heads, -1)  # (B, T, 3, H, K)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # each (B, H, T, K)
        if self.rotary is not None and past is not None:
            # Of one token, it is the number of operations that takes time.
            both = self.rotary(qkv[:, :, :2].transpose(1, 3), position)  # (B, H, 2, T, K)
            q, k = both.unbind(2)
        elif self.rotary is not None:
            q, k = self.rotary(q, position), self.rotary(k, position)
            if recomputes(self):
                v = v.contiguous()  # the only third of qkv that is needed again
        if self.alibi is not None:
            q, k = self.alibi.query(q), self.alibi.key(k, position)
            v = nn.functional.pad(v, (0, k.shape[-1] - v.shape[-1]))
        if past is not None:
            k, v = self._remember(past, k, v, position)
        return project(self._attend(q, k, v), self._merge, self.out)  # (B, T, D)

    def _merge(self, y: Tensor) -> Tensor:
        """Heads beside each other, without what positions added to them: (B, T, D)."""
        width = self.out.in_features // self.n_heads  # K
        return y[..., :width].transpose(1, 2).flatten(2)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        new, total = q.shape[2], k.shape[2]
        if new == total and torch.compiler.is_compiling() and blockwise.fits(q):
            return blockwise.causal_attention(q, k, v, self.scale)
        mask = None
        if 1 < new < total:
            mask = q.new_ones(new, total, dtype=torch.bool).tril(total - new)
        return scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=new == total, scale=self.scale
        )

    def _remember(self, past: Rows, k: Tensor, v: Tensor, position: int) -> tuple[Tensor, Tensor]:
        """Put k and v behind the remembered ones; returns all of them."""
        for name, rows in (("keys", k), ("values", v)):
            if name not in past:
                shape = (*rows.shape[:2], self.context_length, rows.shape[-1])
                past[name] = rows.new_empty(shape)
            past[name][:, :, position : position + rows.shape[2]] = rows
        end = position + k.shape[2]
        return past["keys"][:, :, :end], past["values"][:, :, :end]


class MLP(nn.Module):
    """Two projections and, between them, a nonlinearity; `forward` applies a `norm` first.

    The nonlinearity is made anew for each layer, as what it learns must not be shared.

    Shape:
        (B, T, D) -> (B, T, D)
    """

    def __init__(self, config: Architecture, nonlinearity: Function) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_mlp)
        self.nonlinearity = nonlinearity
        self.out = nn.Linear(config.d_mlp, config.d_model)

    def forward(self, x: Tensor, norm: Function = unchanged) -> Tensor:
        z = project(x, norm, self.up)  # (B, T, F)
        return project(z, self.nonlinearity, self.out)


class SwiGLU(nn.Module):
    """out(silu(gate(x)) * up(x)) (Shazeer 2020), as wide as an `MLP` has parameters.

    `forward` applies a `norm` to x first.

    Shape:
        (B, T, D) -> (B, T, D)
    """

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        width = swiglu_width(config.d_model, config.d_mlp)
        self.gate_up = nn.Linear(config.d_model, 2 * width)
        self.out = nn.Linear(width, config.d_model)

    def forward(self, x: Tensor, norm: Function = unchanged) -> Tensor:
        return project(project(x, norm, self.gate_up), _gated, self.out)


def _gated(z: Tensor) -> Tensor:
    gate, up = z.chunk(2, dim=-1)  # each (B, T, F')
    return silu(gate) * up


def swiglu_width(d_model: int, d_mlp: int) -> int:
    """F' at which three D x F' matrices have the parameters of two D x F ones, with biases."""
    return max(1, round(d_mlp * (2 * d_model + 1) / (3 * d_model + 2)))


def relu_squared(z: Tensor) -> Tensor:
    """max(z, 0) ** 2, elementwise."""
    return relu(z).square()


class GeluScaled(nn.Module):
    """a * gelu(f * z) with a and f learned per feature: the sine's gains without the sine.

    a and f start where the damped sine's A and f do, and stay positive in the same way.
    """

    def __init__(self, n_features: int, config: Architecture) -> None:
        super().__init__()
        self.raw_amplitude = raw_parameter(n_features, config.sine_amplitude)
        self.raw_frequency = raw_parameter(n_features, config.sine_frequency)

    @property
    def amplitude(self) -> Tensor:
        """a, (F,)."""
        return softplus(self.raw_amplitude)

    @property
    def frequency(self) -> Tensor:
        """f, (F,)."""
        return softplus(self.raw_frequency)

    def forward(self, z: Tensor) -> Tensor:
        return self.amplitude.to(z.dtype) * gelu(self.frequency.to(z.dtype) * z)


class Transformer(nn.Module):
    """Embedding, blocks, norm and an untied head.

    Each layer's block is made from the configuration and the layer's number. A sequence that is
    longer than context_length is a ValueError.

    Shape:
        (B, T) token ids -> (B, T, V) logits
    """

    positions: Tensor | None

    def __init__(self, config: ModelConfig, block: Callable[[ModelConfig, int], nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.grad_checkpoint = config.grad_checkpoint
        self.context_length = config.context_length
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        table = None
        if config.positions == "sinusoidal":
            table = sinusoidal_table(config.context_length, config.d_model)
        self.register_buffer("positions", table, persistent=False)
        self.blocks = nn.ModuleList(block(config, layer) for layer in range(config.n_layers))
        self.norm = nn.RMSNorm(config.d_model)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)

    def state(self) -> State:
        """An empty memory, for decoding sequences from their start."""
        return State(position=0, layers=[{} for _ in self.blocks])

    def hidden(self, tokens: Tensor, state: State | None = None) -> Tensor:
        """The features that the head turns into logits: (B, T) -> (B, T, D).

        With a state, the tokens follow those it has seen, and it then remembers them too.
        """
        start = 0 if state is None else state.position
        if start + tokens.shape[1] > self.context_length:
            raise ValueError(
                "a sequence must be no longer than context_length, "
                f"got {start + tokens.shape[1]} and {self.context_length}"
            )
        x = self.embedding(tokens)  # (B, T, D)
        if self.positions is not None:
            x = x + self.positions[start : start + tokens.shape[1]]
        for layer, block in enumerate(self.blocks):
            if state is None and self.grad_checkpoint and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x, None if state is None else state.layers[layer], start)
        if state is not None:
            state.position = start + tokens.shape[1]
        y: Tensor = self.norm(x)
        return y

    def forward(self, tokens: Tensor, state: State | None = None) -> Tensor:
        logits: Tensor = self.lm_head(self.hidden(tokens, state))  # (B, T, V)
        return logits
