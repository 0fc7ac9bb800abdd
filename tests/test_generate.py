"""Generation continues each prompt as the whole forward pass would, whatever stands beside it."""

from typing import Any

import pytest
import torch
from networks import VARIANTS, moved, tiny, tokens_of
from torch import Tensor

from psannlm.config.schema import ConfigError
from psannlm.model.generate import generate
from psannlm.model.sampling import GREEDY, Sampling, pick
from psannlm.model.transformer import Transformer

WARM = Sampling(temperature=2.0)
EVERYTHING = Sampling(temperature=2.0, top_k=5, top_p=0.9, repetition_penalty=1.4)


def lively(options: dict[str, Any]) -> Transformer:
    """A network that does not repeat one token for ever, as biases make some do."""
    model = moved(tiny(**options), seed=3)
    with torch.no_grad():
        model.embedding.weight *= 4.0
    return model


def uneven_prompts(model: Transformer, lengths: tuple[int, ...] = (5, 2, 9, 5, 1)) -> list[Tensor]:
    return [tokens_of(model.config, 1, n, seed=10 + i)[0] for i, n in enumerate(lengths)]


@torch.no_grad()
def slowly(
    model: Transformer, prompt: Tensor, n_tokens: int, sampling: Sampling = GREEDY, seed: int = 0
) -> Tensor:
    """What `generate` makes of one prompt, by a pass over all tokens for each new one."""
    own = torch.Generator().manual_seed(seed)
    tokens = prompt[None]
    for number in torch.rand(n_tokens, dtype=torch.float64, generator=own):
        seen = torch.zeros(1, model.config.vocab_size, dtype=torch.bool).scatter(1, tokens, True)
        new = pick(model(tokens)[:, -1], sampling, seen, number[None])
        tokens = torch.cat([tokens, new[:, None]], dim=1)
    return tokens[0, len(prompt) :]


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_tokens_are_those_of_repeated_full_passes_over_each_prompt_alone(
    float64: None, options: dict[str, Any]
) -> None:
    model = lively(options)
    prompts = uneven_prompts(model)

    for sampling in (GREEDY, EVERYTHING):
        # The longest goes to the end of the context.
        new = generate(model, prompts, n_tokens=15, sampling=sampling, seed=7)

        for i, (prompt, row) in enumerate(zip(prompts, new, strict=True)):
            assert torch.equal(row, slowly(model, prompt, 15, sampling, seed=7 + i))
        assert max(row.unique().numel() for row in new) > 1


STEPS = [3, 1, 1, 4, 1, *[1] * 14]


@pytest.mark.parametrize("base", ["respsann", "sgrpsann", "waveresnet", "transformer"])
@torch.no_grad()
def test_in_half_precision_steps_err_no_more_than_twice_as_much_as_a_full_pass(base: str) -> None:
    model = moved(tiny(base=base))
    tokens = tokens_of(model.config, 3, 24)
    exact, state = model(tokens), model.state()

    with torch.autocast("cpu", torch.bfloat16):
        stepped = torch.cat([model(part, state) for part in tokens.split(STEPS, 1)], 1)
        whole = model(tokens)

    assert 0 < (stepped - exact).norm() < 2 * (whole - exact).norm()


@pytest.mark.parametrize("sampling", [GREEDY, EVERYTHING], ids=["greedy", "everything"])
def test_each_row_ends_where_it_would_write_the_end_of_text(sampling: Sampling) -> None:
    model = lively({"base": "sgrpsann"})
    prompts = [*uneven_prompts(model), torch.tensor([3, 0, 3])]  # in a prompt, 3 ends nothing
    whole = [row.tolist() for row in generate(model, prompts, n_tokens=15, sampling=sampling)]

    for end in range(7):
        cut = generate(model, prompts, n_tokens=15, sampling=sampling, end_of_text=end)

        expected = [row[: row.index(end)] if end in row else row for row in whole]
        assert [row.tolist() for row in cut] == expected


@pytest.fixture
def model() -> Transformer:
    return lively({})


@pytest.fixture
def read(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each step of the model reads."""
    read: list[int] = []
    hidden = model.hidden

    def counted(tokens: Tensor, *rest: Any) -> Tensor:
        read.append(tokens.shape[1])
        return hidden(tokens, *rest)

    monkeypatch.setattr(model, "hidden", counted)
    return read


def test_no_step_is_done_once_every_row_has_ended(model: Transformer, read: list[int]) -> None:
    [whole] = generate(model, [[1, 2]], n_tokens=15)
    end = int(whole[4])
    read.clear()

    generate(model, [[1, 2]], n_tokens=15, end_of_text=end)

    assert read == [2] + [1] * whole.tolist().index(end)


def test_a_long_prompt_is_read_at_once_when_nothing_is_left_to_write_before_its_end(
    model: Transformer, read: list[int]
) -> None:
    generate(model, uneven_prompts(model, (2, 20, 3)), n_tokens=3)

    # Prompts of 2 and 3 are done when 5 tokens are read; the one of 20 has 15 left, then writes 3.
    assert read == [2, 1, 1, 1, 15, 1, 1]


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "warm"])
def test_no_new_tokens_are_none(sampling: Sampling) -> None:
    new = generate(moved(tiny()), [[1] * 24, [2]], n_tokens=0, sampling=sampling)

    assert [row.tolist() for row in new] == [[], []]
    assert all(row.dtype == torch.long for row in new)


def test_generation_makes_no_graph_and_changes_no_prompt(model: Transformer) -> None:
    prompts = uneven_prompts(model)
    before = [prompt.clone() for prompt in prompts]
    graphs: list[Any] = []
    model.norm.register_forward_hook(lambda module, inputs, y: graphs.append(y.grad_fn))

    new = generate(model, prompts, n_tokens=5)

    assert set(graphs) == {None}
    assert all(torch.equal(a, b) for a, b in zip(prompts, before, strict=True))
    assert torch.is_grad_enabled()
    assert not any(row.is_inference() for row in new)


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[1], []], {}, r"prompt 1 must be a row of at least 1 token, got \(0,\)"),
        (torch.ones(1, 1, 5).long(), {}, r"prompt 0 must be a row .*, got \(1, 5\)"),
        ([[0.5]], {}, r"prompt 0 must be token ids, got torch\.float"),
        ([[1, 7, 2]], {}, "prompt 0 must have ids from 0 to 6, got 7"),
        ([[1, -1]], {}, "prompt 0 must have ids from 0 to 6, got -1"),
        ([[1]], {"n_tokens": -1}, "n_tokens must be at least 0, got -1"),
        ([[1]], {"end_of_text": 7}, "end_of_text must be from 0 to 6, got 7"),
        ([[1]], {"end_of_text": -1}, "end_of_text must be from 0 to 6, got -1"),
        ([[1], [1] * 5], {"n_tokens": 20}, r"prompt 1 .* context_length, got 5 \+ 20 and 24; ask"),
        ([[1] * 25], {"n_tokens": 0}, r"context_length, got 25 \+ 0 and 24"),
    ],
    ids=[
        "empty", "two dimensions", "no ids", "id too high", "id too low", "negative number",
        "end too high", "end too low", "too many", "too long",
    ],
)  # fmt: skip
def test_an_impossible_request_is_refused(
    prompts: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        generate(moved(tiny()), prompts, **{"n_tokens": 1} | options)
