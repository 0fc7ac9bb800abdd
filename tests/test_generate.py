"""Generation continues prompts as the whole forward pass would, greedily or by its chances."""

from typing import Any

import pytest
import torch
from networks import VARIANTS, moved, tiny, tokens_of
from torch import Tensor

from psannlm.model.generate import generate


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_greedy_tokens_are_the_most_likely_of_repeated_full_passes(
    float64: None, options: dict[str, Any]
) -> None:
    config = tiny(**options)
    # Under some weights biases win and one token is repeated for ever; under these none is.
    model, prompt = moved(config, seed=3), tokens_of(config, 3, 5)
    with torch.no_grad():
        model.embedding.weight *= 4.0

    new = generate(model, prompt, 19)  # to the end of the context

    tokens = prompt
    with torch.no_grad():
        for _ in range(19):
            tokens = torch.cat([tokens, model(tokens)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(new, tokens[:, 5:])
    assert new.unique().numel() > 1


def chances_of_pairs(prompt: Tensor, temperature: float) -> Tensor:
    """The joint distribution of the next two tokens, (V, V)."""
    model = moved(tiny())
    followed = torch.cat([prompt.expand(7, -1), torch.arange(7)[:, None]], dim=1)
    with torch.no_grad():
        logits = model(followed) / temperature
    first, second = logits[0, -2].softmax(-1), logits[:, -1].softmax(-1)
    return first[:, None] * second


@pytest.mark.parametrize("temperature", [0.5, 2.0, 5.0])
def test_samples_follow_the_softmax_at_their_temperature(
    temperature: float, generator: torch.Generator
) -> None:
    model, n = moved(tiny()), 20_000
    prompt = torch.tensor([[1, 4, 2]])

    pairs = generate(model, prompt.repeat(n, 1), 2, temperature=temperature, generator=generator)

    counts = torch.bincount(pairs[:, 0] * 7 + pairs[:, 1], minlength=49).view(7, 7)

    def distance(chances: Tensor) -> float:
        """In total variation."""
        return (counts / n - chances).abs().sum().item() / 2

    # Over 49 cells the mean distance is at most sqrt(48 / n) / 2 = 0.025, and it exceeds its mean
    # by 0.02 with a chance of exp(-2 n 0.02^2) = 1e-7 at most (McDiarmid).
    assert distance(chances_of_pairs(prompt, temperature)) < 0.045
    assert distance(chances_of_pairs(prompt, 1.0)) > 0.09


def test_a_low_temperature_takes_the_most_likely_token(generator: torch.Generator) -> None:
    config = tiny()
    model, prompt = moved(config), tokens_of(config, 4, 5)

    cold = generate(model, prompt, 10, temperature=1e-4, generator=generator)

    assert torch.equal(cold, generate(model, prompt, 10))


def test_equal_generators_give_equal_samples_and_others_do_not() -> None:
    config = tiny()
    model, prompt = moved(config), tokens_of(config, 4, 5)

    first, again, other = (
        generate(model, prompt, 15, temperature=5.0, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_given_generator_leaves_the_global_random_state_alone(
    generator: torch.Generator,
) -> None:
    config = tiny()
    before = torch.get_rng_state()

    generate(moved(config), tokens_of(config, 4, 5), 5, temperature=1.0, generator=generator)

    assert torch.equal(torch.get_rng_state(), before)


def test_greedy_tokens_need_no_randomness() -> None:
    config = tiny()
    model, prompt = moved(config), tokens_of(config, 4, 5)
    before = torch.get_rng_state()

    first, again = generate(model, prompt, 15), generate(model, prompt, 15)

    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)


def test_prompts_of_a_batch_do_not_see_each_other() -> None:
    config = tiny()
    model, prompt = moved(config), tokens_of(config, 4, 5)

    together = generate(model, prompt, 10)

    alone = torch.cat([generate(model, row[None], 10) for row in prompt])
    assert torch.equal(together, alone)
    assert together.unique(dim=0).shape[0] > 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_new_tokens_are_none(temperature: float) -> None:
    new = generate(moved(tiny()), torch.ones(3, 24, dtype=torch.long), 0, temperature=temperature)

    assert new.shape == (3, 0)
    assert new.dtype == torch.long


def test_a_prompt_and_its_tokens_may_fill_the_context() -> None:
    new = generate(moved(tiny()), torch.ones(2, 23, dtype=torch.long), 1)

    assert new.shape == (2, 1)


def test_generation_keeps_no_graph_and_changes_no_prompt() -> None:
    config = tiny()
    model, prompt = moved(config), tokens_of(config, 2, 5)
    kept = prompt.clone()

    generate(model, prompt, 5)

    assert torch.equal(prompt, kept)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("shape", "n_tokens", "temperature", "message"),
    [
        ((2, 0), 1, 0.0, r"a prompt must be \(B, T\) with T at least 1, got \(2, 0\)"),
        ((5,), 1, 0.0, r"a prompt must be \(B, T\) with T at least 1, got \(5,\)"),
        ((1, 5), -1, 0.0, r"n_tokens must be at least 0, got -1"),
        ((1, 5), 1, -0.5, r"temperature must be at least 0, got -0\.5"),
        ((1, 5), 20, 0.0, r"no longer than context_length, got 5 \+ 20 and 24"),
        ((1, 25), 0, 0.0, r"no longer than context_length, got 25 \+ 0 and 24"),
    ],
    ids=["empty", "no batch", "negative number", "negative temperature", "too many", "too long"],
)
def test_an_impossible_request_is_refused(
    shape: tuple[int, ...], n_tokens: int, temperature: float, message: str
) -> None:
    prompt = torch.zeros(shape, dtype=torch.long)

    with pytest.raises(ValueError, match=message):
        generate(moved(tiny()), prompt, n_tokens, temperature=temperature)
