"""The loss is the cross-entropy of the next token."""

import math

import pytest
import torch
from networks import moved, tiny, tokens_of

from psannlm.config.network import ModelConfig
from psannlm.model.loss import IGNORED
from psannlm.model.transformer import Transformer
from psannlm.train.objective import NextToken

BASES = ("respsann", "sgrpsann", "waveresnet", "transformer")
T = 8
CONFIG = tiny(vocab_size=11, context_length=T)


def network(config: ModelConfig = CONFIG) -> Transformer:
    return moved(config, seed=5)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("chunk_tokens", [1, 5, 1000])
def test_the_loss_is_the_mean_cross_entropy_of_the_token_that_follows(
    float64: None, base: str, chunk_tokens: int
) -> None:
    model = network(tiny(base=base, vocab_size=11, context_length=T))
    text = tokens_of(CONFIG, 3, T + 1)

    loss = NextToken(model, "fp32", chunk_tokens).train()(text[:, :-1], text[:, 1:])

    with torch.no_grad():
        probabilities = model(text[:, :-1]).softmax(-1)
    costs = [-math.log(probabilities[b, t, text[b, t + 1]]) for b in range(3) for t in range(T)]
    assert loss.item() == pytest.approx(sum(costs) / len(costs), rel=1e-12)


def test_an_evaluation_step_tells_nats_and_hit_of_every_token() -> None:
    model, text = network(), tokens_of(CONFIG, 3, T + 1)
    targets = text[:, 1:].clone()
    targets[2, 4:] = IGNORED

    nats, hits = NextToken(model, "fp32", 5).eval()(text[:, :-1], targets).view(2, 3, T)

    with torch.no_grad():
        logits = model(text[:, :-1]).double()
    assert (nats[2, 4:] == 0).all()
    assert (hits[2, 4:] == 0).all()
    places = [(b, t) for b in range(3) for t in range(T) if targets[b, t] != IGNORED]
    assert len(places) == 20
    for b, t in places:
        assert hits[b, t] == (logits[b, t].argmax() == targets[b, t])
        cost = -logits[b, t].log_softmax(-1)[targets[b, t]].item()
        assert nats[b, t].item() == pytest.approx(cost, rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_narrow_precision_stays_near_float32(precision: str) -> None:
    model, text = network(), tokens_of(CONFIG, 3, T + 1)

    wide, narrow = (
        NextToken(model, name, 100).train()(text[:, :-1], text[:, 1:])
        for name in ("fp32", precision)
    )

    assert narrow.dtype == torch.float32
    # bfloat16 keeps 8 bits of each product: some 2**-8 of logits of a few units.
    assert narrow.item() == pytest.approx(wide.item(), rel=0.03)
    assert narrow.item() != wide.item()
