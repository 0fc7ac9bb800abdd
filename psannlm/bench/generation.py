"""How much the memory saves when generating: `python -m psannlm.bench.generation`.

Both ways take turns in one process, so that whatever else the machine does meets both alike.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import typer
from torch import Tensor

from psannlm.config.network import ModelConfig
from psannlm.model.bases import BASES, build
from psannlm.model.generate import generate
from psannlm.model.transformer import Transformer


@dataclass(frozen=True)
class Comparison:
    """Seconds that the same new tokens took in each round."""

    n_tokens: int
    cached: tuple[float, ...]
    """A step for each token, by `generate`."""

    naive: tuple[float, ...]
    """A pass over all tokens for each."""

    @property
    def tokens_per_second(self) -> float:
        """With the memory, in the median round."""
        return self.n_tokens / statistics.median(self.cached)

    @property
    def ratio(self) -> float:
        """How many times as long a round takes without the memory, in the median."""
        pairs = zip(self.naive, self.cached, strict=True)
        return statistics.median(naive / cached for naive, cached in pairs)


def compare(
    config: ModelConfig,
    *,
    n_tokens: int,
    prompt_tokens: int,
    n_rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Time greedy generation of one row, with and without the memory, after a round of warm-up.

    Args:
        config: Of the network, which starts from seed 0.
        n_tokens: New tokens of a round.
        prompt_tokens: Length of the prompt.
        n_rounds: Timed rounds, each with both ways.
        clock: Tells seconds.

    Raises:
        ConfigError: Prompt and new tokens are together longer than context_length.
    """
    model = build(config, seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(config.vocab_size, (prompt_tokens,), generator=generator)
    cached, naive = [], []
    for _ in range(n_rounds + 1):
        start = clock()
        generate(model, [prompt], n_tokens=n_tokens)
        middle = clock()
        generate_naively(model, prompt, n_tokens)
        cached.append(middle - start)
        naive.append(clock() - middle)
    return Comparison(n_tokens, tuple(cached[1:]), tuple(naive[1:]))


@torch.inference_mode()
def generate_naively(model: Transformer, prompt: Tensor, n_tokens: int) -> Tensor:
    """The most likely continuation of one prompt (T,), by a pass over all tokens for each new one.

    Returns:
        The new token ids alone, (N,).
    """
    tokens = prompt[None]
    for _ in range(n_tokens):
        tokens = torch.cat([tokens, model(tokens)[:, -1].argmax(-1, keepdim=True)], dim=1)
    return tokens[0, len(prompt) :]


def main(
    n_tokens: int = 256,
    prompt_tokens: int = 16,
    n_rounds: int = 3,
    threads: int = 2,
    d_model: int = 256,
    n_layers: int = 4,
    vocab_size: int = 4096,
) -> None:
    """Generate one row with and without the memory, in every base; tells speed and ratio."""
    torch.set_num_threads(threads)
    for base in BASES:
        config = ModelConfig(
            base=base,
            vocab_size=vocab_size,
            context_length=prompt_tokens + n_tokens,
            d_model=d_model,
            n_layers=n_layers,
            n_heads=4,
            d_mlp=4 * d_model,
        )
        found = compare(config, n_tokens=n_tokens, prompt_tokens=prompt_tokens, n_rounds=n_rounds)
        typer.echo(
            f"{base:12} {found.tokens_per_second:8.0f} tokens/s with the memory, "
            f"{found.ratio:.1f} times as fast as without"
        )


if __name__ == "__main__":
    typer.run(main)
