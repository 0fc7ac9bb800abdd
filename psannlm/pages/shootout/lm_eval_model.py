"""A trained network as lm-evaluation-harness asks it: likelihoods of texts, and continuations.

Imported only where lm-eval is known to be there; `harness` sees to that.

Every text follows an end of text, as each document does in training. A context and its continuation
are encoded as one text, so that a word begins with its space as in training; white space at the end
of a context counts to the continuation. Where a token would reach over the border, both are encoded
by themselves. What is longer than the network was trained on loses its beginning.

Shape letters: B batch, T tokens, N targets, D d_model.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from psannlm.config.schema import ConfigError
from psannlm.device import autocast
from psannlm.model.generate import generate
from psannlm.model.loss import IGNORED, token_losses
from psannlm.model.sampling import GREEDY, Sampling
from psannlm.model.transformer import Transformer
from psannlm.train.tokenizer import Tokenizer

NEW_TOKENS = 256
"""The most new tokens where a task names no number."""


class Window(NamedTuple):
    """Tokens that are predicted, and those before them; together one more than the context."""

    before: list[int]
    """At least one."""

    targets: list[int]


class HarnessModel(TemplateLM):  # type: ignore[misc]
    """A network with its tokenizer, in the form that lm-eval calls.

    Args:
        model: In evaluation mode, on `device`.
        tokenizer: The one it was trained with.
        device: Where the network is.
        precision: Of matrix products.
        batch: B, the most texts at a time.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        device: torch.device,
        precision: str,
        batch: int,
    ) -> None:
        super().__init__()
        self.network, self.spelling = model, tokenizer
        self.precision, self.batch = precision, batch
        self.longest = model.config.context_length
        self._device = device

    @property
    def eot_token_id(self) -> int:
        """What stands before every text."""
        return self.spelling.end_of_text

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Ids of a text, after an end of text unless `add_special_tokens` is False."""
        start = [] if add_special_tokens is False else [self.eot_token_id]
        return [*start, *self.spelling.encode(string)]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        pair: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
        if self.spelling.decode(pair[0] + pair[1]) == context + continuation:
            return pair
        return self.tok_encode(context), self.spelling.encode(continuation)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether each token of it was the likeliest."""
        return self._scores([list(self._windows(*ids)) for _, *ids in requests])

    def loglikelihood_rolling(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-likelihood of each whole text, every token of it predicted once."""
        start = [self.eot_token_id]
        texts = [self.spelling.encode(request.args[0]) for request in requests]
        scores = self._scores([list(self._rolling(start, ids)) for ids in texts])
        return [likelihood for likelihood, _ in scores]

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """What follows each context, up to the first of the strings that the task stops at.

        New tokens take half of the network's context at most; the prompt is cut to the rest.
        """
        asked = [GenerationRequest.of(request.args[1], self.longest // 2) for request in requests]
        order = sorted(range(len(requests)), key=lambda i: (repr(asked[i].how), asked[i].n_tokens))
        found: dict[int, str] = {}
        for (how, n_tokens), group in groupby(order, lambda i: asked[i][:2]):
            prompts = {
                i: self.tok_encode(requests[i].args[0])[n_tokens - self.longest :] for i in group
            }
            written = self._continue(prompts, how, n_tokens)
            found |= {i: _until(text, asked[i].stops) for i, text in written.items()}
        return [found[i] for i in range(len(requests))]

    def _windows(self, context: list[int], continuation: list[int]) -> Iterator[Window]:
        """One window, or several if the continuation alone is longer than the network's context."""
        room = self.longest + 1 - len(continuation)
        if room >= 1:
            yield Window(context[-room:], continuation)
        else:
            yield from self._rolling(context[-1:], continuation)

    def _rolling(self, start: list[int], ids: list[int]) -> Iterator[Window]:
        """Windows in which each of `ids` is predicted once, the last with all context it can have.

        As lm-eval cuts them.
        """
        windows = get_rolling_token_windows(ids, start[0], self.longest, context_len=1)
        for window in windows:
            yield Window(*make_disjoint_window(window))

    def _scores(self, texts: Sequence[Sequence[Window]]) -> list[tuple[float, bool]]:
        """Of each text, over its windows: the log-likelihood, and whether greedy decoding gives it.

        Of no window: 0 and True.
        """
        places = [(row, window) for row, windows in enumerate(texts) for window in windows]
        places.sort(key=lambda place: -len(place[1].before) - len(place[1].targets))
        nats, greedy = [0.0] * len(texts), [True] * len(texts)
        for start in range(0, len(places), self.batch):
            part = places[start : start + self.batch]
            losses, hits = self._predict([window for _, window in part])
            for (row, _), loss, hit in zip(part, losses.tolist(), hits.tolist(), strict=True):
                nats[row] += loss
                greedy[row] &= hit
        return [(-loss, hit) for loss, hit in zip(nats, greedy, strict=True)]

    @torch.no_grad()
    def _predict(self, windows: Sequence[Window]) -> tuple[Tensor, Tensor]:
        """Nats of each window's targets, (B,) float64, and whether all were likeliest, (B,).

        Rows are filled up on the right, where a causal network does not look.
        """
        width = max(len(before) + len(targets) for before, targets in windows) - 1  # T
        tokens = torch.full((len(windows), width), self.eot_token_id)
        wanted = torch.full((len(windows), width), IGNORED)
        for row, (before, targets) in enumerate(windows):
            ids = torch.tensor(before + targets)
            tokens[row, : len(ids) - 1] = ids[:-1]
            wanted[row, len(before) - 1 : len(ids) - 1] = ids[len(before) :]
        tokens, wanted = tokens.to(self.device), wanted.to(self.device)
        counts = wanted != IGNORED
        with autocast(tokens.device, self.precision):
            hidden = self.network.hidden(tokens)[counts]  # (N, D)
            losses, hits = token_losses(hidden, self.network.lm_head.weight, wanted[counts])
        rows = counts.nonzero()[:, 0]  # (N,)
        nats = losses.new_zeros(len(windows), dtype=torch.float64).index_add(
            0, rows, losses.double()
        )
        misses = rows.new_zeros(len(windows)).index_add(0, rows, (~hits).long())
        return nats, misses == 0

    def _continue(
        self, prompts: Mapping[int, list[int]], how: Sampling, n_tokens: int
    ) -> dict[int, str]:
        """Texts that follow prompts; the draw of each depends on its place alone."""
        order = sorted(prompts, key=lambda i: -len(prompts[i]))
        found: dict[int, str] = {}
        for start in range(0, len(order), self.batch):
            part = order[start : start + self.batch]
            with autocast(self.device, self.precision):
                written = generate(
                    self.network,
                    [prompts[i] for i in part],
                    n_tokens=n_tokens,
                    sampling=how,
                    end_of_text=self.eot_token_id,
                    seed=start,
                )
            texts = (self.spelling.decode(ids.tolist()) for ids in written)
            found |= dict(zip(part, texts, strict=True))
        return found


class GenerationRequest(NamedTuple):
    """What a task asks of a continuation."""

    how: Sampling
    n_tokens: int
    stops: tuple[str, ...]

    @classmethod
    def of(cls, given: Mapping[str, Any], most: int) -> "GenerationRequest":
        """Read the task's `generation_kwargs`; `most` new tokens at most.

        Raises:
            ConfigError: One of them is unknown here.
        """
        left = dict(given)
        stops = left.pop("until", None) or ()
        n_tokens = min(int(left.pop("max_gen_toks", NEW_TOKENS)), most)
        draws = left.pop("do_sample", left.get("temperature", 0.0) > 0)
        known = {name: left.pop(name) for name in Sampling.model_fields if name in left}
        if left:
            raise ConfigError(
                f"generation_kwargs must be among until, max_gen_toks, do_sample, "
                f"{', '.join(Sampling.model_fields)}, got {', '.join(left)}; leave the task out"
            )
        how = Sampling(**{"temperature": 1.0, **known}) if draws else GREEDY
        return cls(how, n_tokens, (stops,) if isinstance(stops, str) else tuple(stops))


def refuse_unknown(generation_kwargs: Mapping[str, Any]) -> None:
    """Refuse what a task asks of continuations and is unknown here.

    Raises:
        ConfigError: Names it.
    """
    GenerationRequest.of(generation_kwargs, 1)


def _until(text: str, stops: Iterable[str]) -> str:
    """`text` before the first of `stops`; an empty one stops nothing."""
    ends = [text.find(stop) for stop in stops if stop and stop in text]
    return text[: min(ends, default=len(text))]
