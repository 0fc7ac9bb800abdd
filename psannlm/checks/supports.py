"""Whether samples keep to their support and to their distribution, by many draws.

Shape letters: N draws, V vocabulary.
"""

from typing import Any

import torch
from scipy.stats import chisquare
from torch import Tensor

from psannlm.checks.findings import Measure
from psannlm.model.generate import generate
from psannlm.model.sampling import Sampling
from psannlm.model.transformer import Transformer

N_DRAWS = 2000
FALSE_ALARM = 1e-6
LEAST_EXPECTED = 5.0
"""Draws that a cell of the test must expect: below, its statistic follows no chi-square."""

SAMPLINGS = {
    "top-k": Sampling(temperature=1.0, top_k=5),
    "top-p": Sampling(temperature=1.0, top_p=0.7),
    "both, cooler": Sampling(temperature=0.7, top_k=40, top_p=0.9),
}


def sampled(
    model: Transformer, prompt: Tensor, seed: int
) -> tuple[tuple[Measure, ...], dict[str, Any]]:
    """Draw the token after a prompt many times, in each way, against its exact distribution."""
    with torch.no_grad():
        logits = model(prompt[None])[0, -1].double().cpu()
    outside, probabilities, sizes = 0, [], {}
    for i, sampling in enumerate(SAMPLINGS.values()):
        rows = prompt.cpu().expand(N_DRAWS, -1)
        first = (seed * len(SAMPLINGS) + i) * N_DRAWS  # rows take a seed each, none takes it twice
        drawn = generate(model, rows, n_tokens=1, sampling=sampling, seed=first)
        counts = torch.bincount(torch.cat(drawn).cpu(), minlength=len(logits))
        exact = distribution(logits, sampling)
        outside += int(counts[exact == 0].sum())
        probabilities.append(chance_of(counts, exact))
    for name, sampling in SAMPLINGS.items():
        sizes[name] = int((distribution(logits, sampling) > 0).sum())
    measures = (
        Measure(
            name=f"draws outside the support, of {len(SAMPLINGS)} x {N_DRAWS}",
            value=outside,
            bound=0,
            why="A token that top-k or top-p leaves out has no chance at all.",
        ),
        Measure(
            name="chance of frequencies as odd as these, least of all ways to sample",
            value=min(probabilities),
            bound=FALSE_ALARM,
            upper=False,
            why=f"By Pearson's chi-square test right frequencies fall below it once in "
            f"{round(1 / FALSE_ALARM / len(SAMPLINGS)):,} seeds.",
        ),
    )
    return measures, {"draws": N_DRAWS, "tokens_in_support": sizes}


def distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """The chance of each token, (V,), found by walking down the ordered tokens one by one."""
    probabilities = (logits.double() / sampling.temperature).softmax(-1)
    order = sorted(range(len(probabilities)), key=lambda token: (-float(logits[token]), token))
    kept = order[: sampling.top_k]
    total = float(probabilities[kept].sum())
    found, reached = torch.zeros_like(probabilities), 0.0
    for token in kept:
        if sampling.top_p < 1 and reached >= sampling.top_p:
            break
        found[token] = probabilities[token]
        reached += float(probabilities[token]) / total
    return found / found.sum()


def chance_of(counts: Tensor, exact: Tensor) -> float:
    """How likely counts at least as far from what is expected are, where that is more than none.

    Tokens that are expected less than five times are counted as one, as Pearson's test asks.
    """
    inside = exact > 0
    n_inside = int(counts[inside].sum())
    expected = exact * n_inside
    rare = inside & (expected < LEAST_EXPECTED)
    common = inside & ~rare
    observed, wanted = counts[common].tolist(), expected[common].tolist()
    if bool(rare.any()):
        observed.append(int(counts[rare].sum()))
        wanted.append(float(expected[rare].sum()))
    if len(observed) < 2:
        return 1.0
    scale = n_inside / sum(wanted)  # rounding only
    return float(chisquare(observed, [w * scale for w in wanted]).pvalue)
