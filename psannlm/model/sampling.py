"""From logits to tokens: what may follow, with what probability, and the draw itself.

Shape letters: B batch, V vocabulary.
"""

from typing import ClassVar

import torch
from torch import Tensor

from psannlm.config.schema import Number, Rule, Strict, Whole

EVERY_TOKEN = 2**22  # as many as a vocabulary may have: a `top_k` that leaves none out


class Sampling(Strict):
    """How the next token is chosen; as it is made without arguments, the most likely one.

    The steps follow each other: penalty, temperature, top_k, top_p.
    """

    temperature: Number = 0.0  # logits are divided by it; 0 takes the most likely token
    top_k: Whole = EVERY_TOKEN  # only so many of the most likely may follow (Fan et al. 2018)
    top_p: Number = 1.0  # only the fewest that have it together (Holtzman et al. 2020)
    repetition_penalty: Number = 1.0  # divides logits of tokens seen before (see `penalised`)

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(("temperature",), lambda t: t >= 0, "temperature must be at least 0, got {}"),
        Rule(("top_k",), lambda k: k >= 1, "top_k must be at least 1, got {}"),
        Rule(("top_p",), lambda p: 0 < p <= 1, "top_p must be more than 0 and at most 1, got {}"),
        Rule(
            ("repetition_penalty",),
            lambda penalty: penalty > 0,
            "repetition_penalty must be more than 0, got {}; 1 changes nothing",
        ),
    )


GREEDY = Sampling()  # always the most likely token


def penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens seen before less likely, as CTRL does (Keskar et al. 2019).

    Their positive logits are divided by the penalty and their negative ones multiplied by it.
    The paper divides both, which would make a token with a negative logit more likely. `seen` is
    true of the tokens that the prompt or what was made since has, (B, V) as the logits.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """The probability of each token under temperature, top_k and top_p: (B, V) -> (B, V), float64.

    Of tokens that are equally likely, top_p takes those with the smaller ids first.
    """
    wide = logits.double()
    if sampling.temperature == 0:
        return torch.zeros_like(wide).scatter(-1, wide.argmax(-1, keepdim=True), 1.0)
    # The highest logit becomes 0, so that no temperature is too small to divide by.
    wide = (wide - wide.amax(-1, keepdim=True)) / sampling.temperature
    if sampling.top_k < wide.shape[-1]:
        highest, ids = wide.topk(sampling.top_k)
        wide = torch.full_like(wide, -torch.inf).scatter(-1, ids, highest)
    found = wide.softmax(-1)
    return found if sampling.top_p == 1 else _nucleus(found, sampling.top_p)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The token in which a uniform number falls if probabilities are laid side by side by id.

    Both are float64: probabilities, (B, V), need not add up to 1; `uniform`, (B,), is in [0, 1).
    Returns token ids, (B,); one of probability zero is never drawn.
    """
    ends = probabilities.cumsum(-1)  # (B, V)
    point = uniform[:, None] * ends[:, -1:]
    return torch.searchsorted(ends, point, right=True).squeeze(-1)


def pick(logits: Tensor, sampling: Sampling, seen: Tensor, uniform: Tensor) -> Tensor:
    """The next token of each row: (B, V) -> (B,).

    `seen`, (B, V), is that of `penalised`, idle without a penalty; `uniform`, (B,), is that of
    `draw`, idle at temperature 0.
    """
    if sampling.repetition_penalty != 1:
        logits = penalised(logits, seen, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    return draw(probabilities(logits, sampling), uniform)


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """The fewest most likely tokens that have `top_p` together, renormalised to add up to 1."""
    ordered, ids = torch.sort(probabilities, dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    found = torch.zeros_like(probabilities).scatter(-1, ids, ordered.where(before < top_p, 0.0))
    return found / found.sum(-1, keepdim=True)
