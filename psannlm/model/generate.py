"""Cached decoding: each new token costs one step, not a pass over all tokens before it.

Shape letters: B batch, T tokens of text, N new tokens, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from psannlm.config.schema import ConfigError
from psannlm.model.sampling import GREEDY, Sampling, pick
from psannlm.model.transformer import Transformer


def generate(
    model: Transformer,
    prompts: Sequence[Tensor | Sequence[int]] | Tensor,
    *,
    n_tokens: int,
    sampling: Sampling = GREEDY,
    end_of_text: int | None = None,
    seed: int = 0,
) -> list[Tensor]:
    """Continue prompts, each as if it were alone.

    Rows stand at the same position at every step and need no padding: from the end of the shortest
    prompt on, rows with a longer one go on reading while the others write.

    Args:
        model: Put into evaluation mode by the caller.
        prompts: Token ids of each row, one or more; the rows may differ in length.
        n_tokens: N, the most new tokens of a row.
        sampling: How the next token is chosen.
        end_of_text: A row ends where it would write this token; None lets it write N in any case.
        seed: Row i draws from a generator of its own with seed + i, whatever other rows there are.

    Returns:
        The new token ids alone, at most N a row, without the end of text.

    Raises:
        ConfigError: A prompt is empty or has an id that is no token, a number is negative, or a
            prompt and its new tokens are together longer than the model's context.
    """
    rows = [torch.as_tensor(prompt) for prompt in prompts]
    _refuse(model, rows, n_tokens, end_of_text)
    lengths = [len(row) for row in rows]
    if not rows or not n_tokens:
        return [row[:0].long() for row in rows]
    device = model.embedding.weight.device
    text = torch.zeros(len(rows), max(lengths) + n_tokens, dtype=torch.long)
    for row, prompt in enumerate(rows):
        text[row, : lengths[row]] = prompt
    text = text.to(device)
    uniform = _uniform_numbers(lengths, n_tokens, seed).to(device)
    with torch.inference_mode():
        ends = _write(model, text, lengths, n_tokens, sampling, uniform, end_of_text)
    return [text[row, lengths[row] : end].clone() for row, end in enumerate(ends)]


def _write(
    model: Transformer,
    text: Tensor,
    lengths: list[int],
    n_tokens: int,
    sampling: Sampling,
    uniform: Tensor,
    end_of_text: int | None,
) -> list[int]:
    """Write new tokens behind the prompts in `text`, (B, T); returns where each row ends."""
    state = model.state()
    written_from = torch.tensor(lengths, device=text.device)
    seen = torch.zeros(len(text), model.config.vocab_size, dtype=torch.bool, device=text.device)
    if sampling.repetition_penalty != 1:
        for row, length in enumerate(lengths):
            seen[row, text[row, :length]] = True
    ends = [length + n_tokens for length in lengths]
    read, position = 0, min(lengths)
    while True:
        # Only the last position is continued, so the head is spared all the others.
        logits = model.lm_head(model.hidden(text[:, read:position], state)[:, -1])  # (B, V)
        picked = pick(logits, sampling, seen, uniform[:, position])
        text[:, position] = torch.where(written_from <= position, picked, text[:, position])
        if sampling.repetition_penalty != 1:
            seen.scatter_(1, text[:, position, None], True)
        if end_of_text is not None:
            for row, token in enumerate(text[:, position].tolist()):
                if token == end_of_text and lengths[row] <= position < ends[row]:
                    ends[row] = position
        waiting = [length for length, end in zip(lengths, ends, strict=True) if end > position + 1]
        if not waiting:
            return ends
        # If all that is left to write stands behind longer prompts, those are read at once.
        read, position = position, max(position + 1, min(waiting))


def _uniform_numbers(lengths: list[int], n_tokens: int, seed: int) -> Tensor:
    """(B, T) in [0, 1), float64: for each row N of its own from the end of its prompt on."""
    numbers = torch.zeros(len(lengths), max(lengths) + n_tokens, dtype=torch.float64)
    for row, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(seed + row)
        drawn = torch.rand(n_tokens, dtype=torch.float64, generator=generator)
        numbers[row, length : length + n_tokens] = drawn
    return numbers


def _refuse(model: Transformer, rows: list[Tensor], n_tokens: int, end_of_text: int | None) -> None:
    vocab_size, longest = model.config.vocab_size, model.context_length
    if n_tokens < 0:
        raise ConfigError(f"n_tokens must be at least 0, got {n_tokens}")
    if end_of_text is not None and not 0 <= end_of_text < vocab_size:
        raise ConfigError(f"end_of_text must be from 0 to {vocab_size - 1}, got {end_of_text}")
    for number, row in enumerate(rows):
        name = f"prompt {number}"
        if row.dim() != 1 or not len(row):
            raise ConfigError(f"{name} must be a row of at least 1 token, got {tuple(row.shape)}")
        if row.is_floating_point():
            raise ConfigError(f"{name} must be token ids, got {row.dtype}")
        low, high = int(row.min()), int(row.max())
        if low < 0 or high >= vocab_size:
            wrong = low if low < 0 else high
            raise ConfigError(f"{name} must have ids from 0 to {vocab_size - 1}, got {wrong}")
        if len(row) + n_tokens > longest:
            raise ConfigError(
                f"{name} and new tokens together must be no longer than context_length, "
                f"got {len(row)} + {n_tokens} and {longest}; ask for fewer, or shorten the prompt"
            )
