"""Numbers, intervals, tables and durations as text: one function each, for all pages."""

import html
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from psannlm.bench import provenance
from psannlm.evidence import parts

UNKNOWN = "—"
LONG = 60  # characters beyond which the text of a cell may break into lines
UNITS = {"bits/byte": "bits per byte", "nats/token": "nats per token"}  # as a sentence says them
VERDICTS = (  # in the order in which a sentence names them
    "faster", "better", "less", "fewer", "not separated", "equal", "slower", "worse", "more",
)  # fmt: skip

GOOD = {"passed", "reached", "faster", "better", "less", "fewer", "holds"}
BAD = {"failed", "not reached", "slower", "worse", "not less", "more", "refused", "does not hold"}
SIGNS = {"good": "✓", "bad": "✗", "open": "○"}
PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def number(value: Any, pattern: str) -> str:
    """The value in that format, or a dash where it is unknown."""
    return UNKNOWN if value is None or pd.isna(value) else format(value, pattern)


def interval(middle: Any, low: Any, high: Any, pattern: str) -> str:
    """A value with the interval around it, as far as they are known; `to` if numbers are signed."""
    if middle is None or pd.isna(middle):
        return UNKNOWN
    if low is None or pd.isna(low):
        return format(middle, pattern)
    between = "to" if pattern.startswith("+") else "–"
    return f"{middle:{pattern}} ({low:{pattern}} {between} {high:{pattern}})"


def number_in_words(value: float) -> str:
    """A number as people read it: whole, with four digits, or as a power of ten."""
    size = abs(value)
    if size < 1e9 and (size >= 1000 or value == int(value)):
        return f"{value:,.0f}"
    return f"{value:.4g}" if 1e-3 <= size < 1000 else f"{value:.2e}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown, its cells shown as they are."""
    lines = [f"| {' | '.join(map(literal, head))} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(literal(str(cell)) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def literal(text: str) -> str:
    """The text as Markdown that shows it as it is, in one line, also in a table's cell."""
    return re.sub(r"([\\`*_\[\]<>$|#~])", r"\\\1", text).replace("\n", " ")


def by_verdict(found: Iterable[tuple[str, str, str]]) -> str:
    """Names with their numbers, gathered under the verdicts they share; given as these three."""
    groups: dict[str, list[str]] = {}
    for name, number, verdict in found:
        groups.setdefault(verdict or "no verdict", []).append(f"{name} {number}".strip())
    order = sorted(groups, key=lambda word: VERDICTS.index(word) if word in VERDICTS else 99)
    return "; ".join(f"**{word}** {', '.join(groups[word])}" for word in order)


def failed_rows(table: pd.DataFrame) -> list[str]:
    """A sentence on how many rows of a table failed; none where none did."""
    failed = int((table["status"] != "ok").sum())
    said = f"{failed} of {len(table)} rows failed; each is in the table with its reason."
    return [said] if failed else []


def processes(n: int) -> str:
    """How many fresh processes, in words."""
    return f"{n} fresh process{'' if n == 1 else 'es'}"


def badge(verdict: str) -> str:
    """HTML of a verdict: a sign and the word, so that colour is never alone."""
    if not verdict:
        return ""
    tone = "good" if verdict in GOOD else "bad" if verdict in BAD else "open"
    return f'<span class="verdict {tone}">{SIGNS[tone]} {html.escape(verdict)}</span>'


def sortable(
    frame: pd.DataFrame,
    caption: str,
    *,
    none: str = "nothing was measured",
    filters: Collection[str] = (),
) -> str:
    """HTML of a table whose headings sort it, by mouse and by keyboard; of no rows, `none`.

    A cell that is a tuple shows its values side by side. The caption names the table for those
    who cannot see it. By the columns `filters`, rows can be chosen on a page that runs scripts.
    """
    if frame.empty:
        return f"<p>{html.escape(caption)}: {none}.</p>"
    head = "".join(_heading(frame, column, column in filters) for column in frame.columns)
    body = "".join(
        "<tr>" + "".join(map(_cell, row)) + "</tr>"
        for row in frame.itertuples(index=False, name=None)
    )
    return table(head, body, caption, f"dataframe sortable{' filterable' if filters else ''}")


def table(head: str, body: str, caption: str, marks: str) -> str:
    """HTML of a table that scrolls by itself, of the cells of its head and the rows of its body."""
    return (
        '<div class="table-scroll" tabindex="0" role="region" '
        f'aria-label="{html.escape(caption, quote=True)}">'
        f'<table class="{marks}"><caption>{html.escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _heading(frame: pd.DataFrame, column: Any, is_filter: bool) -> str:
    """The head of a column; a script that filters reads whether its cells have several values."""
    each = any(isinstance(value, tuple) for value in frame[column])
    mark = f' data-filter="{"each" if each else "whole"}"' if is_filter else ""
    return f'<th scope="col"{mark}>{html.escape(str(column))}</th>'


def _cell(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    mark = ' class="long"' if len(text) > LONG else ""
    return f"<td{mark}>{html.escape(text)}</td>"


def machine(manifest: Mapping[str, Any]) -> str:
    """HTML of a small table: device, software, code, time."""
    environment = manifest["environment"]
    cpu, gpu, software = environment["cpu"], environment["gpu"], environment["software"]
    facts = {
        "run": f"{manifest['run']} (UTC), preset {manifest['preset']}",
        "device": environment["device"],
        "host": f"{cpu['name']}, {cpu['cores']} cores, {cpu['memory_mib'] / 1024:.0f} GiB"
        + (", virtual" if cpu["virtual"] else ""),
        "instructions": ", ".join(cpu["instructions"] or ()) or UNKNOWN,
        "software": f"torch {software['packages']['torch']}, Python {software['python']}, "
        f"CUDA {software['cuda'] or UNKNOWN}",
        "threads": environment["settings"]["threads"],
        "code": provenance.code(manifest["git"]),
        "command": manifest["command"],
    }
    if "usable_cores" in cpu:
        known = (f"{name} {cpu[name]}" for name in ("family", "model", "stepping") if cpu[name])
        memory = f"{cpu['memory_limit_mib'] / 1024:.3g} GiB"
        facts |= {"processor": ", ".join(known) or UNKNOWN}
        facts |= {"usable": f"{cpu['usable_cores']:g} of {cpu['cores']} cores, {memory}"}
        facts |= {"conditions": _moment(manifest["conditions"]["start"])}
    if mixed := parts.sentence(manifest):
        facts["mixed"] = mixed
    if told := manifest.get("precision"):
        facts["precision"] = _precision(told, manifest["parameters"]["precision"])
    return facts_table(facts | ({"driver": gpu.get("driver", UNKNOWN)} if gpu else {}))


def _moment(start: Mapping[str, Any]) -> str:
    """What may disturb a run, as it begins."""
    said = {
        "load_1min": "load {}", "others_cores": "{} cores busy with other work",
        "clock_mhz": "{:,} MHz", "governor": "governor {}",
    }  # fmt: skip
    known = (text.format(start[n]) for n, text in said.items() if start.get(n) is not None)
    return ", ".join(known) or UNKNOWN


def _precision(told: Mapping[str, Any], used: str | list[str]) -> str:
    """What was asked, what that means here, and the rates that say so."""
    asked, meant = ([one] if isinstance(one, str) else one for one in (told["asked"], used))
    said = ", ".join(meant) if asked == meant else f"{', '.join(asked)} asked, {', '.join(meant)}"
    rates = ", ".join(
        f"{name} {flops(rate)}/s{' emulated' if name in told['emulated'] else ''}"
        for name, rate in told["flop_per_s"].items()
    )
    return f"{said} used; products of one thread: {rates}"


def emulated(manifest: Mapping[str, Any], names: Iterable[str]) -> Iterator[str]:
    """A sentence on each precision that a run has used and its device emulates, for its page."""
    rates = manifest.get("precision", {}).get("flop_per_s", {})
    for name in names:
        yield (
            f"- **{name} is emulated.** {manifest['environment']['device']} has no instructions "
            f"for it: a thread multiplies at {flops(rates[name])}/s, in fp32 at "
            f"{flops(rates['fp32'])}/s. What takes time was measured over few steps, and is "
            "neither ranked nor compared; losses and bytes are what they are elsewhere."
        )


def facts_table(facts: Mapping[str, Any]) -> str:
    """HTML of a table of names and values."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(k)}</th><td>{html.escape(str(v))}</td></tr>'
        for k, v in facts.items()
    )
    return f'<table class="dataframe facts"><tbody>{rows}</tbody></table>'


def flops(number: float) -> str:
    """A number of floating-point operations as people say it: 5.51 GFLOP, 1.2 PFLOP."""
    power = min(max(int(math.log10(number) // 3), 0), len(PREFIXES) - 1) if number > 0 else 0
    return f"{number / 1000**power:.3g} {PREFIXES[power]}FLOP"


def duration(seconds: float) -> str:
    """A time as people say it: 4.2 s, 12 min 3 s, 3 h 20 min."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def printable(text: str) -> str:
    """The text without what a page cannot hold: control characters and lone surrogates.

    What is taken out leaves a replacement character behind, so that nothing vanishes unseen.
    """
    unseen = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]"
    return re.sub(unseen, "\N{REPLACEMENT CHARACTER}", text)
