"""How headlines are written on pages: a number with its interval and unit, a verdict, a link."""

import html

from psannlm.evidence.rows import Row
from psannlm.evidence.text import UNKNOWN, interval
from psannlm.pages.validation.prose import number
from psannlm.publish.headline import Headline

PATTERNS = {
    "tokens/s": ",.0f",
    "MiB": ",.1f",
    "bits per byte": ".3f",
    "per token": ".1f",
    "s": ".3f",
    "of all": ".0%",
}
"""How numbers are written, by unit."""

GOOD = {"passed", "reached", "faster", "better", "less", "fewer", "holds"}
BAD = {"failed", "not reached", "slower", "worse", "not less", "more", "refused", "does not hold"}
SIGNS = {"good": "✓", "bad": "✗", "open": "○"}


def measured(headline: Headline, *, unit: bool = True) -> str:
    """The value with its interval and unit; a dash where it is unknown."""
    if headline.value is None:
        return UNKNOWN
    pattern = PATTERNS.get(headline.unit)
    if pattern is None and headline.unit.startswith("×"):
        pattern = ".3f"
    if pattern is None and headline.unit == "nats per token":
        pattern = "+.3f" if " less that of " in headline.quantity else ".3f"
    said = (
        number(headline.value)
        if pattern is None
        else interval(headline.value, headline.low, headline.high, pattern)
    )
    return f"{said} {headline.unit}".strip() if unit else said


def badge(verdict: str) -> str:
    """HTML of a verdict: a sign and the word, so that colour is never alone."""
    if not verdict:
        return ""
    tone = "good" if verdict in GOOD else "bad" if verdict in BAD else "open"
    return f'<span class="verdict {tone}">{SIGNS[tone]} {html.escape(verdict)}</span>'


def link(row: Row, text: str = "raw row") -> str:
    """A link, in Markdown, to a row on the page of raw rows."""
    return f"[{text}](#{row.label})"


def machine(row: Row) -> str:
    """The device that a row was measured on."""
    return str(row.run.manifest["environment"]["device"])


def date(row: Row) -> str:
    """The day on which its run began, in UTC."""
    return str(row.run.manifest["started_at"])[:10]


def page(name: str) -> str:
    """A link, in Markdown, from the landing page to the page of a notebook."""
    return f"[{name.replace('_', ' ')} page](results/{name})"
