"""The page of published figures: each beside ours, with what arithmetic says of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from psannlm.evidence.page import Page
from psannlm.evidence.rows import Row
from psannlm.evidence.runs import Evidence
from psannlm.evidence.table import Table
from psannlm.evidence.text import UNKNOWN, interval, sortable
from psannlm.pages.registry import pages
from psannlm.publish import plausibility
from psannlm.publish.plausibility import IMPOSSIBLE, NOTHING, POSSIBLE, Judgement, judge
from psannlm.publish.published import Beside, Conditions, Figure, Published, Source, load
from psannlm.publish.run_facts import best_runs

UNMEASURED = "not measured yet"
NO_GPU = "no GPU evidence yet"
NO_MEASURE = "not part of what we repeat"
PROTOCOL = {"side", "check", "measure", "value"}
"""Columns by which the table is known that repeats the original's own protocol."""

OF_OURS = {"ours": "ours", "published": "the published package, measured here"}
"""Sides of the repeated protocol, and what people call them."""

LIMITS = """## What this does not show

- *Possible* is not confirmed: arithmetic can refute a figure, it cannot vouch for it.
- Parameters, bytes and FLOPs are those of our network of the same base and shape, from its \
construction. Another implementation may have a few more or fewer; no verdict hangs on them.
- The bundle does not state the width of the MLP: that the reserved memory is impossible rests on \
the usual one, that the allocated memory is rests on attention alone.
- What was really measured is read from the public repository at the commits named, not run again \
on its machine.
- Our numbers come from the device beside them. One of another device repeats the protocol, not \
the figure.
"""


@dataclass(frozen=True)
class Ours:
    """One number of ours beside a figure, or what there is instead."""

    about: str
    """What the number is of; empty where there is none."""

    text: str
    """The number with its unit and interval, or the word on why there is none."""

    where: str
    """Its conditions and device; empty where there is no number."""

    link: str
    """Markdown: page, run and row."""

    on_gpu: bool

    @property
    def short(self) -> str:
        """As a cell of a table says it."""
        parts = [self.text] + ([self.where] if self.where else [])
        return ", ".join(parts) + ("" if self.on_gpu or not self.where else f"; {NO_GPU}")

    @property
    def line(self) -> str:
        """As a section says it, in Markdown."""
        about = f"{self.about}: " if self.about else ""
        return f"{about}{self.short}" + (f" ({self.link})" if self.link else "")


def page(runs: Sequence[Evidence]) -> str:
    """The page, in Markdown.

    Args:
        runs: All sound runs; the best of each page stands beside the figures.

    Raises:
        ConfigError: The file of figures is malformed or was altered.
    """
    published = load()
    best = best_runs(runs)
    judged = {figure.id: judge(figure) for figure in published.figures}
    ours = {f.id: (same_protocol(f, best), fair(f, best)) for f in published.figures}
    parts = [
        "# Published figures",
        "",
        f"**What is asked.** The bundle of {published.bundle} states what PSANN-LM reaches on "
        "GPUs. What was measured for each of its figures, can it be right as it is stated, and "
        "what do we find, under the same protocol and under a fair one?",
        "",
        answer(published, judged, ours),
        "",
        sortable(_table(published, judged), f"Figures of the bundle of {published.bundle}"),
        "",
        sortable(_beside_table(published, ours), "Ours beside them, as far as we have measured"),
        "",
        *_two_bases(published),
        "## Figure by figure",
        "",
        f"Files and commits are those of the public repository `{published.repository}`.",
        "",
    ]
    for figure in published.figures:
        parts += _section(figure, judged[figure.id], *ours[figure.id])
    return "\n".join([*parts, LIMITS])


def answer(
    published: Published,
    judged: Mapping[str, Judgement],
    ours: Mapping[str, tuple[Sequence[Ours], Sequence[Ours]]],
) -> str:
    """How many figures stand as stated, and which do not, in Markdown."""
    counted = {
        verdict: [f for f in published.figures if judged[f.id].verdict == verdict]
        for verdict in (POSSIBLE, IMPOSSIBLE, NOTHING)
    }
    on_gpu = sum(any(one.on_gpu for both in ours[f.id] for one in both) for f in published.figures)
    n = len(published.figures)
    beside = f"{on_gpu} of them have" if on_gpu else "None has"
    lines = [
        f"**What was found.** Of {n} published figures {len(counted[POSSIBLE])} stand as stated, "
        f"as far as arithmetic can tell; {len(counted[IMPOSSIBLE])} are impossible as stated, and "
        f"{len(counted[NOTHING])} say nothing about what they are named for. {beside} GPU evidence "
        "of ours beside it.",
        "",
    ]
    for verdict, word in ((IMPOSSIBLE, "Impossible as stated"), (NOTHING, "Says nothing")):
        links = (f"[{title(f)}](#{_label(f)}), {f.printed}" for f in counted[verdict])
        lines.append(f"- {word}: {'; '.join(links) or 'none'}.")
    forward = [f for f in published.of("speed") if f.used.work == "forward"]
    lines.append(
        f"- {len(forward)} of {len(published.of('speed'))} figures of throughput are of a forward "
        "pass alone, in float32, of one network [under two names](#published-two-bases)."
    )
    return "\n".join(lines)


def _table(published: Published, judged: Mapping[str, Judgement]) -> pd.DataFrame:
    rows = [
        {
            "figure": title(figure),
            "published": figure.printed,
            "arithmetic says": judged[figure.id].verdict,
        }
        for figure in published.figures
    ]
    return pd.DataFrame(rows)


def _beside_table(
    published: Published, ours: Mapping[str, tuple[Sequence[Ours], Sequence[Ours]]]
) -> pd.DataFrame:
    """A row a figure that something can stand beside; of several numbers the first."""
    rows = []
    for figure in published.figures:
        same, other = ours[figure.id]
        if other:
            one = other[0]
            rows.append(
                {
                    "figure": title(figure),
                    "published": figure.printed,
                    "ours, same protocol": same[0].short,
                    "ours, fair protocol": one.text,
                    "which is": one.about,
                    "measured": one.where or UNKNOWN,
                    "GPU evidence": "yes" if one.on_gpu else NO_GPU,
                }
            )
    return pd.DataFrame(rows)


def title(figure: Figure) -> str:
    """What a figure is of, in words."""
    tokens = figure.stated.batch_tokens
    return figure.what.format(batch_tokens=f"{tokens:,}" if tokens else "")


def _two_bases(published: Published) -> list[str]:
    lines = [
        "(published-two-bases)=",
        "## respsann against waveresnet",
        "",
        "The bundle puts two bases side by side. What their difference can say:",
        "",
    ]
    lines += [f"- *{one.verdict}*: {one.because}" for one in plausibility.gaps(published)]
    return [
        *lines,
        "",
        "Networks with the same parameters in the same shapes, doing the same products, are one "
        "network: what differs between their speeds is the noise of the measurement.",
        "",
    ]


def _section(
    figure: Figure, judgement: Judgement, same: Sequence[Ours], other: Sequence[Ours]
) -> Iterator[str]:
    yield from (f"({_label(figure)})=", f"### {title(figure)}", "")
    yield f"- **Published**: {figure.printed}, stated for {conditions(figure.stated)}."
    device = {} if figure.used.device != figure.stated.device else {"device": ""}
    used = conditions(figure.used.model_copy(update=device))
    under = f" It ran with {used}." if used else ""
    yield f"- **What was measured**: {_filled(figure)}{under}"
    yield f"- **Source**: {'; '.join(map(_source, figure.source))}."
    yield f"- **Arithmetic says**: *{judgement.verdict}*. {judgement.because}"
    for name, ours in (("same", same), ("a fair", other)):
        lines = [one.line for one in ours] or ["nothing to set beside it."]
        yield f"- **Ours, {name} protocol**: " + "; ".join(lines).rstrip(".") + "."
    yield ""


def conditions(known: Conditions) -> str:
    """Conditions as people read them; empty if none is known."""
    said = []
    for name, value in known.known().items():
        plain = name.replace("_", " ")
        match name:
            case "device" | "base" | "work":
                said.append(str(value))
            case "grad_checkpoint":
                said.append(f"gradient checkpointing {'on' if value else 'off'}")
            case "timestamp":
                said.append(f"run {value}")
            case "d_model" | "n_layers" | "n_heads" | "d_mlp":
                said.append(f"{name} {value:,}")
            case _:
                said.append(f"{plain} {value:,}" if isinstance(value, int) else f"{plain} {value}")
    return ", ".join(said)


def _filled(figure: Figure) -> str:
    facts = {k: v if isinstance(v, str) else f"{v:g}" for k, v in figure.facts.items()}
    return figure.measured.strip().format(**facts)


def _source(source: Source) -> str:
    word = "line" if source.lines.isdigit() else "lines"
    lines = f", {word} {source.lines}" if source.lines else ""
    return f"`{source.file}`{lines} at `{source.commit}`"


def _label(figure: Figure) -> str:
    return f"published-{figure.id}"


def same_protocol(figure: Figure, best: Mapping[str, Evidence]) -> list[Ours]:
    """Rows of the original's own protocol repeated by us, ours first.

    Args:
        figure: What they stand beside.
        best: The best run of each page that has one.
    """
    if figure.protocol is None:
        return [_without(NO_MEASURE)]
    known = _protocol()
    run = best.get(known[0].name) if known else None
    if known is None or run is None or known[1].file not in run.manifest["artifacts"]:
        return [_without(UNMEASURED)]
    asked, base = figure.protocol, base_of(figure)
    rows = [
        row
        for row in known[0].rows(run, file=known[1].file)
        if (row.values["check"], row.values["measure"]) == (asked.check, asked.measure)
        and base in ("", row.values["base"])
    ]
    found = []
    for side, about in OF_OURS.items():
        mine = [row for row in rows if row.values["side"] == side]
        found += [_protocol_row(row, about) for row in _nearest(mine, figure)]
    return found or [_without(UNMEASURED)]


def _protocol() -> tuple[Page[Any, Any], Table] | None:
    """The page and the table that repeat the original's own protocol, if there are such."""
    tables = ((page, table) for page in pages().values() for table in page.tables)
    return next(((page, table) for page, table in tables if set(table.names) >= PROTOCOL), None)


def fair(figure: Figure, best: Mapping[str, Evidence]) -> list[Ours]:
    """Rows of ours that answer the question that the figure was taken to answer.

    Args:
        figure: What they stand beside.
        best: The best run of each page that has one.

    Raises:
        ValueError: A figure selects rows by a column that the page's table does not have.
    """
    return [_of_page(figure, beside, best.get(beside.page)) for beside in figure.beside]


def base_of(figure: Figure) -> str:
    """The base that a figure is of; empty where it is of none in particular."""
    return figure.stated.base or figure.used.base


def tokens_of(figure: Figure) -> int | None:
    """Tokens of a step of what was measured."""
    used = figure.used
    return used.batch * used.context_length if used.batch and used.context_length else None


def _of_page(figure: Figure, beside: Beside, run: Evidence | None) -> Ours:
    if run is None:
        return _without(UNMEASURED, beside.about)
    rows = pages()[beside.page].rows(run, beside.where.format(base=base_of(figure)))
    if beside.measure:
        return _measure(rows, beside)
    context = run.manifest["parameters"].get("context_length")
    rows = [row for row in rows if row.values["context_length"] == context]
    for row in _nearest(rows, figure):
        return _page_row(row, beside)
    return _without(UNMEASURED, beside.about)


def _nearest(rows: Sequence[Row], figure: Figure) -> list[Row]:
    """Rows of the figure's batch, else of the most processes, then the largest; bf16 if any is."""
    if not rows:
        return []
    wanted = tokens_of(figure)
    known = [row.values for row in rows]
    best = max((v["batch_tokens"] == wanted, v.get("n_ok") or 0, v["batch_tokens"]) for v in known)
    chosen = [row for row in rows if row.values["batch_tokens"] == best[-1]]
    half = [row for row in chosen if _precision(row.values) == "bf16"]
    return half or chosen


def _precision(values: Mapping[str, Any]) -> str:
    return str(values.get("precision") or values.get("amp") or "")


def _page_row(row: Row, beside: Beside) -> Ours:
    values = row.values
    if values[beside.column] is None:
        word = str(values["reason"]) if values["status"] != "ok" else _absent(row.run)
        return _without(word, beside.about)
    low, high = (values[name] if name else None for name in (beside.low, beside.high))
    text = interval(values[beside.column], low, high, _pattern(values[beside.column]))
    return _found(row, f"{text} {beside.unit}", beside.about)


def _protocol_row(row: Row, about: str) -> Ours:
    values = row.values
    value = values["value"]
    if value is None:
        failed = values["status"] != "ok" and values["reason"] is not None
        return _without(str(values["reason"]) if failed else _absent(row.run), about)
    return _found(row, f"{value:{_pattern(value)}} {values['unit'] or ''}".strip(), about)


def _measure(rows: Sequence[Row], beside: Beside) -> Ours:
    """The worst of a measure over all bases, with its bound."""
    found = list(_measures(rows, beside.measure))
    if not found:
        return _without(UNMEASURED, beside.about)
    upper = found[0][1]["upper"]
    row, worst = (max if upper else min)(found, key=lambda one: float(one[1]["value"]))
    word = "at most" if upper else "at least"
    value, bound = (f"{float(worst[n]):{_pattern(float(worst[n]))}}" for n in ("value", "bound"))
    bases = len({one.values["base"] for one, _ in found})
    text = f"{value} in the worst of {bases} base{'s' * (bases > 1)}, bound {word} {bound}"
    return _found(row, text, beside.about)


def _measures(rows: Sequence[Row], name: str) -> Iterator[tuple[Row, Mapping[str, Any]]]:
    for row in rows:
        for measure in row.values["measures"] or ():
            if measure["name"] == name:
                yield row, measure


def _found(row: Row, text: str, about: str) -> Ours:
    values, environment = row.values, row.run.manifest["environment"]
    where = [_precision(values)] if _precision(values) else []
    if values.get("batch_tokens"):
        where.append(f"{int(values['batch_tokens']):,} batch tokens")
    if values.get("context_length"):
        where.append(f"context {int(values['context_length']):,}")
    link = f"[{row.page}]({row.page}.ipynb), run {row.run.folder.name}, row {row.number}"
    link += "" if row.numbered else f" of {row.file}"
    device = f"on {environment['device']}"
    return Ours(about, text, ", ".join([*where, device]), link, bool(environment["gpu"]))


def _absent(run: Evidence) -> str:
    return UNKNOWN if run.manifest["environment"]["gpu"] else NO_GPU


def _without(word: str, about: str = "") -> Ours:
    return Ours(about, word, "", "", on_gpu=False)


def _pattern(value: float) -> str:
    return ",.0f" if abs(value) >= 1000 else ".4g"
