"""A card per item of the plan: target, measured, verdict, machine, date, and the raw rows."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from psannlm.checks.suite import CHECKS
from psannlm.publication.headline import PLAN, Headline
from psannlm.publication.wording import badge, date, link, machine, measured, page
from psannlm.report.throughput_views import MODES

GRID = "::::{{grid}} 1 1 2 3\n:gutter: 2\n\n{cards}\n::::\n"
CARD = ":::{{grid-item-card}} {title} <small>{item}</small>\n{body}\n:::\n"
NO_RUN = "No complete run yet: `make report` makes the first."


def cards(found: Sequence[Headline]) -> str:
    """Grids of cards, one a part of the plan, as Markdown for the landing page.

    Args:
        found: The headlines of the best runs.
    """
    parts = (
        ("Perplexity of a tiny corpus", "BMRK-01", _perplexity),
        ("Speed", "BMRK-02", _speed),
        ("Memory with checkpointing", "BMRK-03", _memory),
        ("Checks", "GPU-01", _checks),
        ("Base comparison", "BMRK-04", _bases),
    )
    said = []
    for title, item, of_part in parts:
        here = [h for h in found if _part(h.claim) == _part(item)]
        shown = list(of_part(here)) if here else list(_missing(title, item))
        said.append(f"### {title}\n\n{GRID.format(cards=chr(10).join(shown))}")
    return "\n".join(said)


def _part(item: str) -> str:
    """Checks are one part of the plan, each other item one of its own."""
    return "checks" if item.startswith("GPU") or item in CHECKS else item


def _missing(title: str, item: str) -> Iterator[str]:
    """Cards that say that there is no evidence."""
    if _part(item) != "checks":
        yield CARD.format(title=title, item=item, body=NO_RUN)
        return
    for check in (name for name in PLAN if name.startswith("GPU")):
        yield CARD.format(title=_capital(CHECKS[check].title), item=check, body=NO_RUN)


def _perplexity(found: Sequence[Headline]) -> Iterator[str]:
    lines = [_line(h, h.quantity) for h in found]
    yield _card("Perplexity of a tiny corpus", found, lines, target=found[0].target)


def _speed(found: Sequence[Headline]) -> Iterator[str]:
    """A card a base, a line a batch, mode and precision."""
    for base, here in _by(found, lambda h: str(h.row.values["base"])):
        lines = []
        for _, pair in _by(here, lambda h: h.row.label):
            values = pair[0].row.values
            name = f"{MODES[values['mode']]}, {values['precision']}, "
            name += f"{int(values['batch_tokens']):,} tokens"
            ratio = [f"{measured(h)}" for h in pair[1:] if h.value is not None]
            lines.append(_line(pair[0], name, *ratio))
        yield _card(f"Speed of {base}", here, lines)


def _memory(found: Sequence[Headline]) -> Iterator[str]:
    """A card a base: rows without and with checkpointing, and what is saved."""
    for base, here in _by(found, lambda h: str(h.row.values["base"])):
        lines = []
        for _, same in _by(here, lambda h: h.row.label):
            first, *rest = [h for h in same if h.value is not None] or same
            name = first.about.split(", ", 1)[1]
            more = [f"{h.quantity} {measured(h)}" for h in rest]
            lines.append(_line(first, f"{name}: {first.quantity}", *more))
        yield _card(f"Memory of {base}", here, lines)


def _checks(found: Sequence[Headline]) -> Iterator[str]:
    """A card a check, of the plan or not; one that was not asked for says so."""
    by_check = dict(_by(found, lambda h: h.claim))
    for check in CHECKS:
        title = _capital(CHECKS[check].title)
        if check not in by_check:
            body = "Not asked for in the run that is shown."
            yield CARD.format(title=title, item=check, body=body)
            continue
        worst, *counts = by_check[check]
        count = ", ".join(
            f"{h.name.rsplit('.', 1)[1]} {h.value:.0f} {h.unit}" for h in counts if h.value
        )
        lines = [
            _line(worst, f"{count} bases; worst, {worst.row.values['base']}: {worst.quantity}")
        ]
        yield _card(title, [worst], lines, target=worst.target)


def _bases(found: Sequence[Headline]) -> Iterator[str]:
    """A card an arm; that of the baseline has no difference."""
    for base, here in _by(found, lambda h: str(h.row.values["base"])):
        first, *rest = here
        lines = [_line(first, first.quantity)]
        lines += [_line(h, h.quantity, judged=h.verdict != first.verdict) for h in rest]
        yield _card(f"{_capital(base)} against a transformer", here, lines)


def _card(title: str, found: Sequence[Headline], lines: Iterable[str], *, target: str = "") -> str:
    """A card: target, lines, and at its foot where and when."""
    row = found[0].row
    stated = [f"Target: {target}.", ""] if target else []
    foot = f"{machine(row)}, {date(row)}, {page(row.page)}"
    body = "\n".join([*stated, *lines, "", f"<small>{foot}</small>"])
    return CARD.format(title=title, item=found[0].claim, body=body)


def _line(headline: Headline, name: str, *more: str, judged: bool = True) -> str:
    """A number with its verdict and a link to its row."""
    numbers = "; ".join([f"**{measured(headline)}**", *more])
    said = f"- {name}: {numbers} {badge(headline.verdict) if judged else ''}"
    return f"{said.rstrip()} {link(headline.row)}"


def _by(
    found: Iterable[Headline], key: Callable[[Headline], str]
) -> list[tuple[str, list[Headline]]]:
    """Headlines gathered by a key, in the order in which it first comes."""
    groups: dict[str, list[Headline]] = {}
    for headline in found:
        groups.setdefault(key(headline), []).append(headline)
    return list(groups.items())


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
