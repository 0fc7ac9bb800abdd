"""GPU-07: what a network generates is what its full forward pass says, token by token.

Shape letters: B batch, T tokens, V vocabulary, N tokens that are written.
"""

import math
from typing import Any

import torch
from scipy.stats import chisquare
from torch import Tensor
from torch.nn.functional import cross_entropy

from psannlm.checks.findings import Case, Measure, Result
from psannlm.checks.networks import EPSILON, TRAINER, difference, optimizer_of, passages, perturbed
from psannlm.config.network import ModelConfig
from psannlm.device import repeatable
from psannlm.model.bases import build
from psannlm.model.generate import generate
from psannlm.model.mixers import wave_dilation
from psannlm.model.sampling import Sampling
from psannlm.model.transformer import Transformer

N_STEPPED = 4  # tokens read one by one behind a prompt; the rest of the context follows at once
N_DRAWS = 2000
FALSE_ALARM = 1e-6
SAMPLINGS = {
    "top-k": Sampling(temperature=1.0, top_k=5),
    "top-p": Sampling(temperature=1.0, top_p=0.7),
    "both, cooler": Sampling(temperature=0.7, top_k=40, top_p=0.9),
}
N_GIVEN = 8  # bytes of a text learned by heart that the network is given to go on from


def check(case: Case) -> Result:
    """Greedy against argmax, cached against full, supports of samples, a text by heart."""
    network, seed = case.network, case.config.seed
    model = perturbed(network, case.device, seed).eval()
    lengths = prompt_lengths(network)
    # Random tokens: none is foreseeable, so a memory that is wrong shows.
    generator = torch.Generator().manual_seed(seed)
    shape = len(lengths), network.context_length
    text = torch.randint(network.vocab_size, shape, generator=generator).to(case.device)
    drawn, draws = sample(model, text[0, : min(2, text.shape[1] - 1)], seed)
    learned, written = memorise(case)
    measures = (_cached(model, text, lengths), _greedy(model, text, lengths), *drawn, *learned)
    return Result(measures=measures, facts={"prompt_lengths": lengths, **draws, **written})


def prompt_lengths(network: ModelConfig) -> list[int]:
    """Lengths around which the memory of a base changes: its windows, one token less and more."""
    widest = max(wave_dilation(network, i) for i in range(network.n_layers))
    windows = network.gate_n_fft // 2, (network.wave_kernel - 1) * widest
    longest = network.context_length - N_STEPPED
    wanted = {window + more for window in windows for more in (-1, 0, 1)}
    wanted |= {1, 2, network.context_length // 2, longest}
    return sorted(n for n in wanted if 1 <= n <= longest) or [1]


@torch.no_grad()
def _cached(model: Transformer, text: Tensor, lengths: list[int]) -> Measure:
    """Logits of rows, (B, T), read in parts as if behind prompts of these lengths."""
    full = model(text)  # (B, T, V)
    gaps = [_gap(model, text[0], full[0], [1] * text.shape[1])]
    for row, logits, length in zip(text, full, lengths, strict=True):
        left = len(row) - length - N_STEPPED
        gaps.append(_gap(model, row, logits, [length, *[1] * N_STEPPED, *([left] if left else [])]))
    return Measure(
        name="difference of cached logits from those of a full pass, relative, worst position",
        value=max(gaps),
        bound=_rounding(model.config),
        why="Both add up the same float32 terms in another order: a sum of n terms moves by about "
        "sqrt(n) rounding errors, n over all sums on the way.",
    )


def _gap(model: Transformer, text: Tensor, full: Tensor, sizes: list[int]) -> float:
    """Largest relative difference of a position's logits, (T, V), from those read in parts."""
    state = model.state()
    found = torch.cat([model(part, state)[0] for part in torch.split(text[None], sizes, 1)])
    return max(difference(a, b) for a, b in zip(found.cpu(), full.cpu(), strict=True))


def _rounding(network: ModelConfig) -> float:
    """Relative error of logits that are computed in another order."""
    heads = 4 * network.d_model + network.context_length
    terms = network.n_layers * (heads + network.d_model + network.d_mlp)
    return float(EPSILON * math.sqrt(terms))


@torch.no_grad()
def _greedy(model: Transformer, text: Tensor, lengths: list[int]) -> Measure:
    """Tokens that follow the first tokens of each row, (B, T), beside those of full passes."""
    wrong = 0
    for row, length in zip(text, lengths, strict=True):
        n_tokens = min(16, len(row) - length)
        new = generate(model, [row[:length]], n_tokens=n_tokens)[0]
        logits = model(torch.cat([row[:length], new])[None])[0, length - 1 : -1]  # (N, V)
        lead = logits.amax(-1) - logits.gather(1, new[:, None]).squeeze(1)
        wrong += int((lead > 2 * _rounding(model.config) * logits.norm(dim=-1)).sum())
        wrong += n_tokens - len(new)
    return Measure(
        name="greedy tokens that are not the likeliest of a full pass",
        value=wrong,
        bound=0,
        why="The most likely token has no other above it by more than rounding may turn.",
    )


def sample(
    model: Transformer, prompt: Tensor, seed: int
) -> tuple[tuple[Measure, ...], dict[str, Any]]:
    """Draw the token after a prompt many times, in each way, against its exact distribution."""
    with torch.no_grad():
        logits = model(prompt[None])[0, -1].double().cpu()
    outside, p_values, sizes = 0, [], {}
    for i, (name, sampling) in enumerate(SAMPLINGS.items()):
        rows = prompt.cpu().expand(N_DRAWS, -1)
        first = (seed * len(SAMPLINGS) + i) * N_DRAWS  # rows take a seed each, none takes it twice
        drawn = generate(model, rows, n_tokens=1, sampling=sampling, seed=first)
        counts = torch.bincount(torch.cat(drawn).cpu(), minlength=len(logits))
        exact = distribution(logits, sampling)
        outside += int(counts[exact == 0].sum())
        p_values.append(p_value(counts, exact))
        sizes[name] = int((exact > 0).sum())
    measures = (
        Measure(
            name=f"draws outside the support, of {len(SAMPLINGS)} x {N_DRAWS}",
            value=outside,
            bound=0,
            why="A token that top-k or top-p leaves out has no chance at all.",
        ),
        Measure(
            name="chance of frequencies as odd as these, least of all ways to sample",
            value=min(p_values),
            bound=FALSE_ALARM,
            upper=False,
            why=f"By Pearson's chi-square test right frequencies fall below it once in "
            f"{round(1 / FALSE_ALARM / len(SAMPLINGS)):,} seeds.",
        ),
    )
    return measures, {"draws": N_DRAWS, "tokens_in_support": sizes}


def distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """The probability of each token, (V,), found by walking down the ordered tokens one by one."""
    probabilities = (logits.double() / sampling.temperature).softmax(-1)
    order = sorted(range(len(probabilities)), key=lambda token: (-float(logits[token]), token))
    highest = order[: sampling.top_k]
    total = float(probabilities[highest].sum())
    found, reached = torch.zeros_like(probabilities), 0.0
    for token in highest:
        if sampling.top_p < 1 and reached >= sampling.top_p:
            break
        found[token] = probabilities[token]
        reached += float(probabilities[token]) / total
    return found / found.sum()


def p_value(counts: Tensor, exact: Tensor) -> float:
    """By Pearson's test of the counts of tokens, (V,), whose exact probability is above zero."""
    observed = counts[exact > 0].double()
    wanted = exact[exact > 0] * observed.sum()
    rare = wanted < 5  # counted as one: with fewer, the statistic follows no chi-square
    if rare.any():
        observed, wanted = (torch.cat([t[~rare], t[rare].sum()[None]]) for t in (observed, wanted))
    if len(observed) < 2:
        return 1.0
    wanted = wanted * (observed.sum() / wanted.sum())  # rounding only
    return float(chisquare(observed.numpy(), wanted.numpy()).pvalue)


def memorise(case: Case) -> tuple[tuple[Measure, ...], dict[str, Any]]:
    """Train on a passage until every token of it is likelier than all others; have it written."""
    model = build(case.network, seed=case.config.seed, device=case.device)
    length = min(128, case.config.context_length)
    text = passages(case.config, 1, length).to(case.device)
    optimizer = optimizer_of(model, case.config, **TRAINER)
    with repeatable(case.device):
        for steps in range(case.config.fit_steps + 1):
            losses = cross_entropy(model(text)[0, :-1], text[0, 1:], reduction="none")
            worst = float(losses.detach()[N_GIVEN - 1 :].max())
            if worst < math.log(2) / 2 or steps == case.config.fit_steps:  # half of the bound
                break
            torch.autograd.backward(losses.mean())
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    new = generate(model.eval(), text[:, :N_GIVEN], n_tokens=length - N_GIVEN)[0]
    measures = (
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
    )
    facts = {"fit_steps_taken": steps, "text": _spelled(text[0]), "written": _spelled(new)}
    return measures, facts


def _spelled(tokens: Tensor) -> str:
    return bytes(min(token, 255) for token in tokens.tolist()).decode(errors="replace")
