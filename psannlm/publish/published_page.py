"""The page of published figures: each beside ours, with what arithmetic says of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from psannlm.evidence.runs import Evidence, Refused
from psannlm.evidence.table import Row
from psannlm.evidence.text import UNKNOWN, interval, sortable
from psannlm.pages.registry import pages
from psannlm.publish import published as figures
from psannlm.publish.published import IMPOSSIBLE, NOTHING, POSSIBLE, Beside, Conditions, Figure
from psannlm.publish.run_facts import best_runs

UNMEASURED = "not measured yet"
NO_GPU = "no GPU evidence yet"
NO_MEASURE = "not part of what we repeat"
# Columns by which the table is known that repeats the original's own protocol.
PROTOCOL = {"side", "check", "measure", "value"}
# Sides of the repeated protocol, and what people call them.
OF_OURS = {"ours": "ours", "published": "the published package, measured here"}
TWO_BASES = """(published-two-bases)=
## respsann against waveresnet

The bundle puts two bases side by side. What their difference can say:

{gaps}

Networks with the same parameters in the same shapes, doing the same products, are one network: \
what differs between their speeds is the noise of the measurement."""

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


class Ours(NamedTuple):
    """One number of ours beside a figure, or what there is instead."""

    about: str  # what the number is of; may be empty
    text: str  # the number with its unit and interval, or the word on why there is none
    where: str = ""  # its conditions and device; empty where there is no number
    link: str = ""  # Markdown: page, run and row
    on_gpu: bool = False

    @property
    def short(self) -> str:
        """As a cell of a table says it."""
        said = f"{self.text}, {self.where}" if self.where else self.text
        return said if self.on_gpu or not self.where else f"{said}; {NO_GPU}"

    @property
    def line(self) -> str:
        """As a section says it, in Markdown."""
        said = f"{self.about}: {self.short}" if self.about else self.short
        return f"{said} ({self.link})" if self.link else said


class Entry(NamedTuple):
    """A figure, what arithmetic says of it, and ours under the same and under a fair protocol."""

    figure: Figure
    judgement: figures.Judgement
    same: Sequence[Ours]
    fair: Sequence[Ours]


def page(runs: Sequence[Evidence | Refused]) -> str:
    """The page, in Markdown, of the best of all sound runs; ConfigError if a figure was altered."""
    published, best = figures.load(), best_runs(runs)
    entries = [
        Entry(one, figures.judge(one), same_protocol(one, best), fair(one, best))
        for one in published.figures
    ]
    judged = [(one.figure.title, one.figure.printed, one.judgement.verdict) for one in entries]
    verdicts = pd.DataFrame(judged, columns=["figure", "published", "arithmetic says"])
    gaps = (f"- *{verdict}*: {because}" for verdict, because in figures.gaps(published))
    parts = [
        "# Published figures",
        f"**What is asked.** The bundle of {published.bundle} states what PSANN-LM reaches on "
        "GPUs. What was measured for each of its figures, can it be right as it is stated, and "
        "what do we find, under the same protocol and under a fair one?",
        answer(entries),
        sortable(verdicts, f"Figures of the bundle of {published.bundle}"),
        sortable(_beside(entries), "Ours beside them, as far as we have measured"),
        TWO_BASES.format(gaps="\n".join(gaps)),
        "## Figure by figure",
        f"Files and commits are those of the public repository `{published.repository}`.",
        *map(_section, entries),
        LIMITS,
    ]
    return "\n\n".join(parts)


def answer(entries: Sequence[Entry]) -> str:
    """How many figures stand as stated, and which do not, in Markdown."""
    counts = Counter(entry.judgement.verdict for entry in entries)
    on_gpu = sum(any(one.on_gpu for one in (*entry.same, *entry.fair)) for entry in entries)
    beside = f"{on_gpu} of them have" if on_gpu else "None has"
    lines = [
        f"**What was found.** Of {len(entries)} published figures {counts[POSSIBLE]} stand as "
        f"stated, as far as arithmetic can tell; {counts[IMPOSSIBLE]} are impossible as "
        f"stated, and {counts[NOTHING]} say nothing about what they are named for. {beside} "
        "GPU evidence of ours beside it.\n",
    ]
    for verdict in (IMPOSSIBLE, NOTHING):
        named = (one.figure for one in entries if one.judgement.verdict == verdict)
        links = (f"[{one.title}](#published-{one.id}), {one.printed}" for one in named)
        lines.append(f"- {verdict.capitalize()}: {'; '.join(links) or 'none'}.")
    work = [one.figure.used.work for one in entries if one.figure.kind == "speed"]
    lines.append(
        f"- {work.count('forward')} of {len(work)} figures of throughput are of a forward pass "
        "alone, in float32, of one network [under two names](#published-two-bases)."
    )
    return "\n".join(lines)


def _beside(entries: Sequence[Entry]) -> pd.DataFrame:
    """A row a figure that something can stand beside; of several numbers the first."""
    return pd.DataFrame(
        {
            "figure": entry.figure.title,
            "published": entry.figure.printed,
            "ours, same protocol": entry.same[0].short,
            "ours, fair protocol": entry.fair[0].text,
            "which is": entry.fair[0].about,
            "measured": entry.fair[0].where or UNKNOWN,
            "GPU evidence": "yes" if entry.fair[0].on_gpu else NO_GPU,
        }
        for entry in entries
        if entry.fair
    )


def _section(entry: Entry) -> str:
    figure, judgement = entry.figure, entry.judgement
    facts = {k: v if isinstance(v, str) else f"{v:g}" for k, v in figure.facts.items()}
    device = {} if figure.used.device != figure.stated.device else {"device": ""}
    used = conditions(figure.used.model_copy(update=device))
    under = f" It ran with {used}." if used else ""
    sources = [f"`{one.file}`{_lines(one.lines)} at `{one.commit}`" for one in figure.source]
    lines = [
        f"(published-{figure.id})=",
        f"### {figure.title}",
        "",
        f"- **Published**: {figure.printed}, stated for {conditions(figure.stated)}.",
        f"- **What was measured**: {figure.measured.strip().format(**facts)}{under}",
        f"- **Source**: {'; '.join(sources)}.",
        f"- **Arithmetic says**: *{judgement.verdict}*. {judgement.because}",
    ]
    for name, ours in (("same", entry.same), ("a fair", entry.fair)):
        said = "; ".join(one.line for one in ours).rstrip(".") or "nothing to set beside it"
        lines.append(f"- **Ours, {name} protocol**: {said}.")
    return "\n".join(lines)


def conditions(known: Conditions) -> str:
    """Conditions as people read them; empty if none is known."""
    words = {"device": "", "base": "", "work": "", "timestamp": "run"}
    words |= {name: name for name in ("d_model", "n_layers", "n_heads", "d_mlp")}
    said = []
    for name, value in known.model_dump(exclude_defaults=True).items():
        shown = f"{value:,}" if isinstance(value, int) else value
        if name == "grad_checkpoint":
            said.append(f"gradient checkpointing {'on' if value else 'off'}")
        else:
            said.append(f"{words.get(name, name.replace('_', ' '))} {shown}".strip())
    return ", ".join(said)


def _lines(lines: str) -> str:
    return f", line{'' if lines.isdigit() else 's'} {lines}" if lines else ""


def same_protocol(figure: Figure, best: Mapping[str, Evidence]) -> list[Ours]:
    """Rows of the original's own protocol in the best run of its page, ours first."""
    if figure.protocol is None:
        return [Ours("", NO_MEASURE)]
    asked = figure.protocol.check, figure.protocol.measure
    rows = [
        row
        for name, run in best.items()
        for table in pages()[name].tables
        if set(table.names) >= PROTOCOL and table.file in run.manifest["artifacts"]
        for row in pages()[name].rows(run, file=table.file)
        if (row.values["check"], row.values["measure"]) == asked
        and figure.base in ("", row.values["base"])
    ]
    found = [
        _ours(row, about, row.values["value"], row.values["unit"] or "")
        for side, about in OF_OURS.items()
        for row in _nearest([row for row in rows if row.values["side"] == side], figure)
    ]
    return found or [Ours("", UNMEASURED)]


def fair(figure: Figure, best: Mapping[str, Evidence]) -> list[Ours]:
    """Rows of the best runs that answer the question that the figure was taken to answer."""
    return [_of_page(figure, beside, best.get(beside.page)) for beside in figure.beside]


def _of_page(figure: Figure, beside: Beside, run: Evidence | None) -> Ours:
    unmeasured = Ours(beside.about, UNMEASURED)
    if run is None:
        return unmeasured
    rows = pages()[beside.page].rows(run, beside.where.format(base=figure.base))
    if beside.measure:
        return _worst(rows, beside) or unmeasured
    context = run.manifest["parameters"].get("context_length")
    for row in _nearest([r for r in rows if r.values["context_length"] == context], figure):
        ends = (row.values[name] if name else None for name in (beside.low, beside.high))
        return _ours(row, beside.about, row.values[beside.column], beside.unit, *ends)
    return unmeasured


def _nearest(rows: Sequence[Row], figure: Figure) -> list[Row]:
    """Rows of the figure's batch, else of the most processes, then the largest; bf16 if any is."""
    rows = [row for row in rows if not row.values.get("emulated")]
    if not rows:
        return []
    wanted = (figure.used.batch or 0) * (figure.used.context_length or 0)
    known = [row.values for row in rows]
    best = max((v["batch_tokens"] == wanted, v.get("n_ok") or 0, v["batch_tokens"]) for v in known)
    chosen = [row for row in rows if row.values["batch_tokens"] == best[-1]]
    return [row for row in chosen if _precision(row.values) == "bf16"] or chosen


def _precision(values: Mapping[str, Any]) -> str:
    return str(values.get("precision") or values.get("amp") or "")


def _ours(row: Row, about: str, value: Any, unit: str, low: Any = None, high: Any = None) -> Ours:
    """A number of a row with its unit and interval, or why the row has none."""
    if value is None:
        failed = row.values["status"] != "ok" and row.values["reason"] is not None
        absent = UNKNOWN if row.run.manifest["environment"]["gpu"] else NO_GPU
        return Ours(about, str(row.values["reason"]) if failed else absent)
    return _found(row, f"{interval(value, low, high, _pattern(value))} {unit}".strip(), about)


def _worst(rows: Sequence[Row], beside: Beside) -> Ours | None:
    """The worst of a measure over all bases, with its bound; None if no finding has it."""
    found = [
        (row, measure)
        for row in rows
        for measure in row.values["measures"] or ()
        if measure["name"] == beside.measure
    ]
    if not found:
        return None
    upper = found[0][1]["upper"]
    row, worst = (max if upper else min)(found, key=lambda one: float(one[1]["value"]))
    value, bound = (format(float(worst[n]), _pattern(float(worst[n]))) for n in ("value", "bound"))
    bases = len({one.values["base"] for one, _ in found})
    text = f"{value} in the worst of {bases} base{'s' * (bases > 1)}, bound "
    return _found(row, f"{text}{'at most' if upper else 'at least'} {bound}", beside.about)


def _found(row: Row, text: str, about: str) -> Ours:
    values, environment = row.values, row.run.manifest["environment"]
    known = {"batch_tokens": "{:,.0f} batch tokens", "context_length": "context {:,.0f}"}
    where = [text.format(values[name]) for name, text in known.items() if values.get(name)]
    where = [*filter(None, [_precision(values)]), *where, f"on {row.run.machine}"]
    link = f"[{row.page}]({row.page}.ipynb), run {row.run.folder.name}, row {row.number}"
    link += "" if row.numbered else f" of {row.file}"
    return Ours(about, text, ", ".join(where), link, bool(environment["gpu"]))


def _pattern(value: float) -> str:
    return ",.0f" if abs(value) >= 1000 else ".4g"
