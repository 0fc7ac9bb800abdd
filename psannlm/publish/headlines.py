"""Headline numbers: what the best runs give for every claim of the plan, each from a raw row."""

from collections.abc import Callable, Iterator, Mapping

from psannlm.evidence.runs import Evidence
from psannlm.pages.memory import headlines as memory_headlines
from psannlm.pages.peer import headlines as peer_headlines
from psannlm.pages.shootout import headlines as shootout_headlines
from psannlm.pages.throughput import headlines as throughput_headlines
from psannlm.pages.tiny_corpus import headlines as training_headlines
from psannlm.pages.validation import headlines as validation_headlines
from psannlm.publish.headline import PLAN, Headline

__all__ = ["PLAN", "Headline", "headlines"]

OF_PAGES: Mapping[str, Callable[[Evidence], Iterator[Headline]]] = {
    "tiny_corpus": training_headlines.headlines,
    "throughput": throughput_headlines.headlines,
    "memory": memory_headlines.headlines,
    "validation": validation_headlines.headlines,
    "shootout": shootout_headlines.headlines,
    "peer": peer_headlines.headlines,
}
"""Of each notebook: the headline numbers of one of its runs."""


def headlines(best: Mapping[str, Evidence]) -> list[Headline]:
    """The headline numbers of the best runs.

    Args:
        best: The best run of each notebook that has one, by name.
    """
    return [
        found for name, of_page in OF_PAGES.items() if name in best for found in of_page(best[name])
    ]
