"""Tables and sentences of the validation page, from its findings and the manifest."""

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from psannlm.checks import suite
from psannlm.checks.findings import Finding, Measure
from psannlm.evidence.text import UNKNOWN, duration, facts_table, printable
from psannlm.pages.validation import tables as validation_tables

SIGNS = {"passed": "✓", "failed": "✗", "skipped": "–"}
ALARM = "background:#b3261e;color:#fff;font-weight:bold"
"""Style of a failed check, legible on light and on dark; the word stands beside."""

HIGHLIGHTS: Mapping[str, str] = {
    "GPU-01": "^loss after",
    "GPU-02": "rel_diff$",
    "GPU-03": "^tokens of a step$|, tokens/s$",
    "GPU-04": "^saved bytes|^peak bytes|^time, ",
    "GPU-05": "^ranks$|worst parameter$|worst step$",
    "GPU-06": "^ranks$|worst parameter$|worst step$",
    "GPU-07": "^written$",
    "GPU-08": "that differ|not refused",
    "FAST": "^[^,]*(, [a-z ]+)?, (bf16|fp16): error as a multiple",
}
"""Of each check: which names of measures and facts tell its result in short, as an expression."""

NOT_TRIED = re.compile("^not tried, (.*)|(.*), skipped$")
"""Names of facts that say what of a check could not be tried."""

LONGEST_FACT = 160
"""Characters of a fact in the table; summary.json has all of it."""


def title(check: str) -> str:
    """A check by name and title."""
    return f"{check} {suite.CHECKS[check].title}"


def answer(findings: Sequence[Finding]) -> str:
    """How many checks passed, and of every other one why not, as Markdown."""
    found, n = validation_tables.counts(findings), len(findings)
    made = n - found["skipped"]
    if found["failed"]:
        head = f"**{found['failed']} of {made} checks failed**, {found['passed']} passed"
    elif made:
        head = f"**All {made} checks passed**"
    else:
        head = "**No check could be made**"
    if found["skipped"]:
        head += f"; {found['skipped']} could not be made here"
    lines = [f"- {head}. A check is counted once a base."]
    lines += [
        f"- **{title(f.check)}**, {f.base}: *failed*: {literal(f.reason)}."
        for f in findings
        if f.status == "failed"
    ]
    for (check, reason), bases in _skipped(findings).items():
        lines.append(f"- {title(check)}, {', '.join(bases)}: *skipped*: {literal(reason)}.")
    if left_out := [
        title(check) for check in suite.CHECKS if check not in {f.check for f in findings}
    ]:
        lines.append(f"- Not asked for: {', '.join(left_out)}.")
    if nearest := _nearest(findings):
        finding, measure = nearest
        lines.append(
            f"- Of what passed, {finding.check} of {finding.base} comes nearest to a bound: "
            f"{literal(in_words(measure))}."
        )
    return "\n".join(lines)


def _skipped(findings: Sequence[Finding]) -> dict[tuple[str, str], list[str]]:
    """Bases of each check that was skipped for the same reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        if finding.status == "skipped":
            found.setdefault((finding.check, finding.reason), []).append(finding.base)
    return found


def _nearest(findings: Sequence[Finding]) -> tuple[Finding, Measure] | None:
    """The measure with the least room, of those that may differ from their bound at all."""
    passed = [f for f in findings if f.status == "passed"]
    known = [(f, m) for f in passed for m in f.measures if m.value != m.bound]
    return max(known, key=lambda pair: pair[1].bound_ratio, default=None)


def highlights(findings: Sequence[Finding]) -> str:
    """What each check found, in short, as a list in Markdown: a line a number, all bases in it."""
    shown: dict[tuple[str, str], dict[str, str]] = {}
    for finding in findings:
        known = {m.name: m.value for m in finding.measures} | dict(_flat(finding.facts))
        for name, value in known.items():
            if re.search(HIGHLIGHTS.get(finding.check, "$^"), name):
                shown.setdefault((finding.check, name), {})[finding.base] = _short(value)
    return "\n".join(
        f"- {check}, {literal(f'{name}: {_each_base(values)}')}"
        for (check, name), values in shown.items()
    )


def _each_base(values: Mapping[str, str]) -> str:
    """The value of each base, once if it is that of all."""
    if len(values) > 1 and len(set(values.values())) == 1:
        return f"{next(iter(values.values()))} for all bases"
    return "; ".join(f"{base} {value}" for base, value in values.items())


def in_words(measure: Measure) -> str:
    """A measure beside its bound."""
    rule = "at most" if measure.upper else "at least"
    return f"{measure.name} {number(measure.value)}, bound {rule} {number(measure.bound)}"


def number(value: float) -> str:
    """A number as people read it: whole, with four digits, or as a power of ten."""
    size = abs(value)
    if size < 1e9 and (size >= 1000 or value == int(value)):
        return f"{value:,.0f}"
    return f"{value:.4g}" if 1e-3 <= size < 1000 else f"{value:.2e}"


def matrix(findings: Sequence[Finding]) -> str:
    """HTML of a table: a row a check, a column a base, the status in words."""
    bases = list(dict.fromkeys(finding.base for finding in findings))
    status = {(f.check, f.base): f for f in findings}
    head = "".join(f'<th scope="col">{html.escape(base)}</th>' for base in ["check", *bases])
    body = "".join(
        f'<tr><th scope="row">{html.escape(title(check))}</th>'
        + "".join(_cell(status.get((check, base))) for base in bases)
        + "</tr>"
        for check in dict.fromkeys(finding.check for finding in findings)
    )
    caption = "Status of every check and base"
    return (
        f'<div class="table-scroll" tabindex="0" role="region" aria-label="{caption}">'
        f'<table class="dataframe matrix"><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(finding: Finding | None) -> str:
    if finding is None:
        return f"<td>{UNKNOWN}</td>"
    style = f' style="{ALARM}"' if finding.status == "failed" else ""
    reason = f' title="{html.escape(finding.reason, quote=True)}"' if finding.reason else ""
    return f"<td{style}{reason}>{SIGNS[finding.status]} {finding.status}</td>"


def rows(findings: Sequence[Finding]) -> pd.DataFrame:
    """Every measure as people read it; a finding without any is a row with its reason."""
    return pd.DataFrame([row for finding in findings for row in _rows(finding)])


def _rows(finding: Finding) -> Iterator[dict[str, str]]:
    head = {"check": finding.check, "base": finding.base}
    tail = {"device": finding.device, "check took": duration(finding.seconds)}
    if not finding.measures:
        unknown = dict.fromkeys(("value", "bound", "value by bound"), UNKNOWN)
        head |= {"measure": UNKNOWN, "status": finding.status}
        yield head | unknown | {"reason": finding.reason} | tail
    for m in finding.measures:
        judged = {
            "measure": m.name,
            "status": "passed" if m.passed else "failed",
            "value": number(m.value),
            "bound": f"{'≤' if m.upper else '≥'} {number(m.bound)}",
            "value by bound": f"{m.bound_ratio:.2g}",
            "reason": m.why,
        }
        yield head | judged | tail


def facts(findings: Sequence[Finding]) -> pd.DataFrame:
    """What checks noted beside their measures: a row a fact."""
    found = [
        {"check": finding.check, "base": finding.base, "fact": name, "value": _short(value)}
        for finding in findings
        for name, value in _flat(finding.facts)
    ]
    return pd.DataFrame(found, columns=["check", "base", "fact", "value"])


def _flat(facts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Facts, and those within facts, each by its whole name."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}, ")
        else:
            yield f"{before}{name}", value


def _short(value: Any) -> str:
    """A fact in a line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, list | tuple):
        return _cut(", ".join(_short(inner) for inner in value))
    return _cut(UNKNOWN if value is None else printable(str(value)).replace("\n", "⏎"))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_FACT else f"{text[: LONGEST_FACT - 1]}…"


def questions() -> str:
    """HTML of a table: what each check asks."""
    return facts_table({title(check): entry.question for check, entry in suite.CHECKS.items()})


def limits(findings: Sequence[Finding], device: str) -> str:
    """What these findings do not show: other devices, checks that were skipped or not asked for."""
    lines = []
    elsewhere = [f for f in findings if f.device != device and f.status != "skipped"]
    for where in dict.fromkeys(f.device for f in elsewhere):
        names = dict.fromkeys(f.check for f in elsewhere if f.device == where)
        lines.append(f"- {', '.join(names)} ran on {literal(where)}, not on {device}.")
    lines += dict.fromkeys(_not_tried(findings))
    for (check, reason), bases in _skipped(findings).items():
        lines.append(f"- Nothing about {title(check)} of {', '.join(bases)}: {literal(reason)}.")
    lines += [
        f"- How other devices behave: all else ran on {device}.",
        "- How fast or how frugal a base is: speed and memory have pages of their own. Here they "
        "are held against bounds that only something broken misses.",
        "- That there is no error: a check sees what it was built to see. Each is held by tests "
        "to fail on networks broken on purpose.",
    ]
    return "\n".join(lines)


def _not_tried(findings: Sequence[Finding]) -> Iterator[str]:
    """What checks that were made had to leave out, and why."""
    for finding in findings:
        for name, why in _flat(finding.facts):
            if named := NOT_TRIED.search(name):
                what = named[1] or named[2]
                yield f"- {finding.check} did not try {literal(what)}: {literal(_short(why))}"


def files(findings: Sequence[Finding], manifest: Mapping[str, Any]) -> dict[str, str]:
    """The files of a validation that state its result, by name; summary.json is there already."""
    return {
        validation_tables.MEASURES: validation_tables.measures_csv(findings),
        "README.md": readme(findings, manifest),
    }


def readme(findings: Sequence[Finding], manifest: Mapping[str, Any]) -> str:
    """README.md of a run folder: highlights, and of each check and base the worst measure."""
    found = validation_tables.counts(findings)
    lines = [
        f"# Validation, {manifest['run']}",
        "",
        f"Preset {manifest['preset']}, on {manifest['environment']['device']}: "
        + ", ".join(f"{n} {status}" for status, n in found.items())
        + ".",
        "",
        highlights(findings),
        "",
        "Of each check the measure that comes nearest to its bound; `measures.csv` has all.",
        "",
        "| check | base | status | measure | value | bound | device |",
        "|---|---|---|---|---:|---:|---|",
    ]
    for f in findings:
        worst = f.worst
        cells = [title(f.check), f.base, f.status]
        if worst is None:
            cells += [f.reason, UNKNOWN, UNKNOWN]
        else:
            sign = "≤" if worst.upper else "≥"
            cells += [worst.name, number(worst.value), f"{sign} {number(worst.bound)}"]
        lines.append("| " + " | ".join(literal(cell) for cell in [*cells, f.device]) + " |")
    return "\n".join([*lines, "", f"Made by `{manifest['command']}`.", ""])


def literal(text: str) -> str:
    """The text as Markdown that shows it as it is, in one line, also in a table's cell."""
    return re.sub(r"([\\`*_\[\]<>$|#~])", r"\\\1", text).replace("\n", " ")
