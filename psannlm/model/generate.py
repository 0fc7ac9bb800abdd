"""Cached decoding: each new token costs one step, not a pass over all tokens before it.

Shape letters: B batch, T tokens of the prompt, N new tokens, V vocabulary.
"""

import torch
from torch import Tensor

from psannlm.model.transformer import Transformer


@torch.no_grad()
def generate(
    model: Transformer,
    prompt: Tensor,
    n_tokens: int,
    *,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continue prompts of equal length.

    Args:
        model: Put into evaluation mode by the caller.
        prompt: Token ids, (B, T), T at least 1.
        n_tokens: N.
        temperature: 0 takes the most likely token; above, logits are divided by it and sampled.
        generator: Of the samples, on the device of the model.

    Returns:
        The new token ids alone, (B, N).

    Raises:
        ValueError: The prompt is empty, a number is negative, or prompt and new tokens together
            are longer than the model's context.
    """
    _refuse(model, prompt, n_tokens, temperature)
    state = model.state()
    new: list[Tensor] = []
    tokens = prompt
    for _ in range(n_tokens):
        # Only the last position is continued, so the head is spared all the others.
        logits = model.lm_head(model.hidden(tokens, state)[:, -1])  # (B, V)
        if temperature == 0:
            tokens = logits.argmax(-1, keepdim=True)  # (B, 1)
        else:
            chances = torch.softmax(logits.float() / temperature, dim=-1)
            tokens = torch.multinomial(chances, 1, generator=generator)  # (B, 1)
        new.append(tokens)
    return torch.cat(new, dim=1) if new else prompt[:, :0]


def _refuse(model: Transformer, prompt: Tensor, n_tokens: int, temperature: float) -> None:
    if prompt.dim() != 2 or prompt.shape[1] == 0:
        raise ValueError(f"a prompt must be (B, T) with T at least 1, got {tuple(prompt.shape)}")
    if n_tokens < 0:
        raise ValueError(f"n_tokens must be at least 0, got {n_tokens}")
    if temperature < 0:
        raise ValueError(f"temperature must be at least 0, got {temperature}")
    if prompt.shape[1] + n_tokens > model.context_length:
        raise ValueError(
            "prompt and new tokens together must be no longer than context_length, "
            f"got {prompt.shape[1]} + {n_tokens} and {model.context_length}"
        )
