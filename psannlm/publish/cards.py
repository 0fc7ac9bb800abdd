"""A card per item of the plan: target, measured, verdict, machine, date, and the raw rows."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from psannlm.checks.suite import CHECKS
from psannlm.pages.throughput.prose import MODES
from psannlm.publish.headline import PLAN, Headline
from psannlm.publish.phrases import badge, date, link, machine, measured, page

GRID = "::::{{grid}} 1 1 2 {columns}\n:gutter: 2\n\n{cards}\n::::\n"
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
        grid = GRID.format(columns=3 if item == "GPU-01" else 2, cards="\n".join(shown))
        said.append(f"### {title}\n\n{grid}")
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
    """One card: the perplexity, and beside it what does not depend on the tokenizer."""
    first, *rest = found
    more = [f"{h.quantity} {measured(h)}" for h in rest]
    title = f"Perplexity of {first.row.values['base']}"
    yield _card(title, found, [_line(first, first.quantity, *more)], target=first.target)


def _speed(found: Sequence[Headline]) -> Iterator[str]:
    """A card a base, a line a batch, mode and precision."""
    for base, here in _by(found, lambda h: str(h.row.values["base"])):
        lines = []
        for _, pair in _by_row(here):
            values = pair[0].row.values
            name = f"{MODES[values['mode']]}, {values['precision']}, "
            name += f"{int(values['batch_tokens']):,} tokens"
            ratio = [f"{measured(h)}" for h in pair[1:] if h.value is not None]
            lines.append(_line(pair[0], name, *ratio))
        yield _card(f"Speed of {base}", here, lines)


def _memory(found: Sequence[Headline]) -> Iterator[str]:
    """A card a base, a line a precision: each number without checkpointing, then with it."""
    for base, here in _by(found, lambda h: str(h.row.values["base"])):
        lines = [_off_and_on(precision, same) for precision, same in _by(here, _precision)]
        yield _card(f"Checkpointing of {base}, off to on", here, lines)


def _off_and_on(precision: str, found: Sequence[Headline]) -> str:
    """A line of both rows of a precision."""
    rows = [h for h in found if not h.row.artifact and not h.name.endswith(".elapsed_s")]
    said = [
        f"{quantity} **{' to '.join(measured(h, unit=h is pair[-1]) for h in pair)}**"
        for quantity, pair in _by(rows, lambda h: h.quantity)
    ]
    saved = [h for h in found if h.row.artifact]
    for h in saved:
        share = h.name.endswith("_share")
        said.append(
            f"{measured(h, unit=False)} {badge(h.verdict)}"
            if share
            else f"{h.quantity} {measured(h)}"
        )
    links = [link(same[0].row, f"row {same[0].row.number}") for _, same in _by_row(rows)]
    links += [link(same[0].row, "saving") for _, same in _by_row(saved)]
    return f"- {precision}: {'; '.join(said)} ({', '.join(links)})"


def _precision(headline: Headline) -> str:
    values = headline.row.values
    return str(values.get("amp") or values.get("precision"))


def _by_row(found: Iterable[Headline]) -> list[tuple[str, list[Headline]]]:
    return _by(found, lambda h: h.row.label)


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
    """A card an arm, but for the baseline, which all are compared with."""
    for base, here in _by(found, lambda h: str(h.row.values["base"])):
        baseline = here[0].row.run.manifest["parameters"]["baseline"]
        if base == baseline:
            continue
        compared = [h for h in here if " less that of " in h.quantity]
        more = [f"{h.quantity} {measured(h)}" for h in here if h not in compared]
        first, *rest = compared
        lines = [_line(first, first.quantity, *more)]
        lines += [_line(h, h.quantity) for h in rest]
        yield _card(f"{base} against a transformer with {baseline}", here, lines)


def _card(title: str, found: Sequence[Headline], lines: Iterable[str], *, target: str = "") -> str:
    """A card: target, lines, and at its foot where and when."""
    row = found[0].row
    stated = [f"Target: {target}.", ""] if target else []
    foot = f"{machine(row)} · {date(row)} · {page(row.page)}"
    body = "\n".join([*stated, *lines, "", f"<small>{foot}</small>"])
    return CARD.format(title=title, item=found[0].claim, body=body)


def _line(headline: Headline, name: str, *more: str) -> str:
    """A number with its verdict, what else the row says, and a link to it."""
    said = f"- {name}: **{measured(headline)}** {badge(headline.verdict)}".rstrip()
    return f"{'; '.join([said, *more])} ({link(headline.row)})"


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
