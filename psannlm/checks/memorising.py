"""Whether a network that has learned a short text by heart can say it.

Shape letters: T tokens, V vocabulary.
"""

import math
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from psannlm.checks.courses import full_products, optimizer_of
from psannlm.checks.findings import Case, Measure
from psannlm.checks.texts import passages
from psannlm.device import repeatable
from psannlm.model.bases import build
from psannlm.model.generate import generate

N_GIVEN = 8
"""Bytes of the text that the network is given to go on from."""

N_LEARNED = 128
ENOUGH = math.log(2) / 2
"""Nats at which it stops: half of the bound, so that no rounding turns a token."""


def memorise(case: Case) -> tuple[tuple[Measure, ...], dict[str, Any]]:
    """Train on a passage until every token of it is likelier than all others; have it written."""
    model = build(case.network, seed=case.config.seed, device=case.device)
    length = min(N_LEARNED, case.config.context_length)
    text = passages(case.config, 1, length).to(case.device)
    optimizer = optimizer_of(model, case.config)
    steps = 0
    with repeatable(case.device), full_products():
        while True:
            losses = cross_entropy(model(text)[0, :-1], text[0, 1:], reduction="none")
            worst = float(losses.detach()[N_GIVEN - 1 :].max())
            if worst < ENOUGH or steps == case.config.fit_steps:
                break
            torch.autograd.backward(losses.mean())
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            steps += 1
    model.eval()
    new = generate(model, text[:, :N_GIVEN], n_tokens=length - N_GIVEN)[0]
    return (
        Measure(
            name="largest loss of a token of the text it was fitted to, nats",
            value=worst,
            bound=math.log(2),
            why="Below ln 2 a token has more than half of the chance, so no other is likelier.",
        ),
        Measure(
            name="share of that text that it writes from its first bytes",
            value=float((new == text[0, N_GIVEN:]).double().mean()),
            bound=1.0,
            upper=False,
            why="Where each token of the text is the likeliest, greedy generation must write it.",
        ),
    ), {
        "fit_steps_taken": steps,
        "text": _spelled(text[0].tolist()),
        "written": _spelled(new.tolist()),
    }


def _spelled(tokens: list[int]) -> str:
    return bytes(min(token, 255) for token in tokens).decode(errors="replace")
