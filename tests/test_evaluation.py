"""The loss is the cross-entropy of the next token, and an evaluation counts each token once."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from networks import moved, tiny, tokens_of
from torch import Tensor

from psannlm.train.data import Tokens
from psannlm.train.distributed import Ranks
from psannlm.train.objective import NextToken
from psannlm.train.recorder import Evaluation, evaluate
from tests.tiny_trainings import ALONE

BASES = ("respsann", "sgrpsann", "waveresnet", "transformer")
T = 8
CONFIG = tiny(vocab_size=11, context_length=T)


def split_of(n_tokens: int, seed: int = 3) -> Tokens:
    ids = np.random.default_rng(seed).integers(11, size=n_tokens).astype(np.uint16)
    return Tokens(ids, n_bytes=2 * n_tokens, sha256="")


def document_tokens(*lengths: int, end: int = 4) -> Tokens:
    """A split of documents of so many tokens, none of them the end of text."""
    draw = np.random.default_rng(7)
    ids = [end]
    for length in lengths:
        ids += [*((draw.integers(10, size=length) + end + 1) % 11), end]
    return Tokens(np.array(ids, dtype=np.uint16), n_bytes=100, sha256="")


def evaluated(tokens: Tokens, batch: int = 2, ranks: Ranks = ALONE) -> Evaluation:
    objective = NextToken(moved(CONFIG, seed=5), "fp32", 7).train(batch == 2)
    found = evaluate(objective, tokens, T, batch=batch, ranks=ranks)
    assert objective.training is (batch == 2)  # mode and gradients stay as they were
    assert all(parameter.grad is None for parameter in objective.parameters())
    return found


@torch.no_grad()
def slow_costs(tokens: Tokens) -> list[tuple[float, bool]]:
    """Nats of each predicted token after the tokens of its own window before it, and its hit."""
    model, costs = moved(CONFIG, seed=5), []
    ids = torch.from_numpy(tokens.ids.astype(np.int64))
    for place in range(1, len(ids)):
        logits = model(ids[None, (place - 1) // T * T : place])[0, -1].double()
        i = int(ids[place])
        costs.append((-logits.log_softmax(-1)[i].item(), logits.argmax().item() == i))
    return costs


@pytest.mark.parametrize(
    ("n_tokens", "batch"),
    [(2, 2), (T, 2), (T + 1, 2), (T + 2, 2), (5 * T + 4, 1), (5 * T + 4, 3), (5 * T + 4, 50)],
)
def test_an_evaluation_is_that_of_a_slow_loop_over_every_token(n_tokens: int, batch: int) -> None:
    tokens = split_of(n_tokens)

    found = evaluated(tokens, batch)

    costs, hits = zip(*slow_costs(tokens), strict=True)
    assert found.n_tokens == n_tokens - 1
    assert found.loss == pytest.approx(sum(costs) / len(costs), rel=1e-6)
    assert found.top1 == sum(hits) / len(hits)


@dataclass(frozen=True)
class OneAfterAnother(Ranks):
    """Ranks that run in turn: the last of them hears the sum of all."""

    heard: list[Tensor] = field(default_factory=list)

    def sum(self, values: Tensor) -> Tensor:
        self.heard.append(values.clone())
        return torch.stack(self.heard).sum(0)


@pytest.mark.parametrize("world", [2, 3, 16])
def test_ranks_share_an_evaluation_without_changing_it(world: int, monkeypatch) -> None:
    tokens, heard = document_tokens(3, 20, 0, 17, T), []
    alone, calls, forward = evaluated(tokens, 1), [0] * world, NextToken.forward

    def counted(self: NextToken, *batch: Tensor) -> Tensor:
        calls[len(heard)] += 1
        return forward(self, *batch)

    monkeypatch.setattr(NextToken, "forward", counted)

    for rank in range(world):
        found = evaluated(tokens, 1, OneAfterAnother(rank, world, torch.device("cpu"), heard))

    assert found.loss == pytest.approx(alone.loss, rel=1e-12)
    assert (found.top1, found.n_tokens) == (alone.top1, alone.n_tokens)
    nats, n_tokens = zip(*found.documents, strict=True)
    assert nats == pytest.approx([document.nats for document in alone.documents], rel=1e-12)
    assert n_tokens == (4, 21, 1, 18, T + 1)
    assert sum(nats) == pytest.approx(found.loss * found.n_tokens, rel=1e-12)
    # FSDP2 gathers weights in each call: a rank that called less often would be waited for.
    assert calls == [math.ceil(found.n_tokens / T / world)] * world


@pytest.mark.parametrize("end", [0, 4])
@pytest.mark.parametrize("batch", [1, 2, 50])
def test_each_document_has_the_nats_of_its_tokens_and_of_the_end_after_it(
    float64: None, end: int, batch: int
) -> None:
    lengths = (3, 20, 0, 1, T - 1)
    tokens = document_tokens(*lengths, end=end)

    found = evaluated(tokens, batch)

    costs = [cost for cost, _ in slow_costs(tokens)]
    for document, length in zip(found.documents, lengths, strict=True):
        mine, costs = costs[: length + 1], costs[length + 1 :]
        assert document.n_tokens == len(mine)
        assert document.nats == pytest.approx(sum(mine), rel=1e-12)
    assert costs == []


def test_bits_and_perplexity_are_those_of_the_whole_text() -> None:
    # A model that gives each token a chance of 2**-3 needs 3 bits for it.
    found = Evaluation(loss=3 * math.log(2), top1=0.0, n_tokens=100, n_bytes=400)
    hopeless = Evaluation(loss=1000.0, top1=0.0, n_tokens=1, n_bytes=1)

    assert found.bits_per_byte == pytest.approx(300 / 400, rel=1e-15)
    assert found.perplexity == pytest.approx(8.0, rel=1e-15)
    assert hopeless.perplexity == math.inf
    assert evaluated(split_of(30)).n_bytes == split_of(30).n_bytes


@pytest.mark.parametrize("base", BASES)
def test_the_loss_is_the_mean_cross_entropy_of_the_token_that_follows(
    float64: None, base: str
) -> None:
    model = moved(tiny(base=base, vocab_size=11, context_length=T), seed=5)
    text = tokens_of(CONFIG, 3, T + 1)

    losses = [NextToken(model, "fp32", chunk)(text[:, :-1], text[:, 1:]) for chunk in (1, 5, 99)]

    with torch.no_grad():
        probabilities = model(text[:, :-1]).softmax(-1)
    costs = [-math.log(probabilities[b, t, text[b, t + 1]]) for b in range(3) for t in range(T)]
    for loss in losses:
        assert loss.item() == pytest.approx(sum(costs) / len(costs), rel=1e-12)
