"""Tables and sentences of the validation page, from its findings and the manifest."""

import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from psannlm.checks import suite
from psannlm.checks.findings import Finding, Measure
from psannlm.evidence import text
from psannlm.evidence.text import UNKNOWN, literal, number_in_words
from psannlm.pages.validation.records import counts

SIGNS = {"passed": "✓", "failed": "✗", "skipped": "–"}
ALARM = "background:#b3261e;color:#fff;font-weight:bold"  # legible on light and on dark
# Of each check: which names of measures and facts tell its result in short, as an expression.
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
NOT_TRIED = re.compile("^not tried, (.*)|(.*), skipped$")  # names of facts
EMULATED = ", emulated"  # ends the name of a fact: in which shape a precision was tried
LONGEST_FACT = 160  # characters of a fact in the table; summary.json has all of it


def title(check: str) -> str:
    """A check by name and title."""
    return f"{check} {suite.CHECKS[check].title}"


def outcome(n: Mapping[str, int], *, passed: str = "", failed: str = "", skipped: str = "") -> str:
    """How many checks passed, failed and could not be made, each with what is said of it."""
    made = n["passed"] + n["failed"]
    if n["failed"]:
        said = f"**{n['failed']} of {made} checks failed**{failed}"
    else:
        said = f"**All {made} checks passed**{passed}" if made else "**No check could be made**"
    return said + (f"; {n['skipped']} could not be made here{skipped}" if n["skipped"] else "")


def answer(findings: Sequence[Finding]) -> str:
    """How many checks passed, and of every other one why not, as Markdown."""
    n = counts(findings)
    said = outcome(n, failed=f", {n['passed']} passed")
    lines = [f"- {said}. A check is counted once a base."]
    lines += [
        f"- **{title(f.check)}**, {f.base}: *failed*: {literal(f.reason)}."
        for f in findings
        if f.status == "failed"
    ]
    for (check, reason), bases in _skipped(findings).items():
        lines.append(f"- {title(check)}, {', '.join(bases)}: *skipped*: {literal(reason)}.")
    asked = {finding.check for finding in findings}
    if left_out := [title(check) for check in suite.CHECKS if check not in asked]:
        lines.append(f"- Not asked for: {', '.join(left_out)}.")
    # The measure with the least room, of those that may differ from their bound at all.
    passed = [finding for finding in findings if finding.status == "passed"]
    known = [(f, m) for f in passed for m in f.measures if m.value != m.bound]
    if known:
        nearest, m = max(known, key=lambda pair: pair[1].bound_ratio)
        rule, bound = "at most" if m.upper else "at least", number_in_words(m.bound)
        said = literal(f"{m.name} {number_in_words(m.value)}, bound {rule} {bound}")
        of = f"{nearest.check} of {nearest.base}"
        lines.append(f"- Of what passed, {of} comes nearest to a bound: {said}.")
    return "\n".join(lines)


def _skipped(findings: Sequence[Finding]) -> dict[tuple[str, str], list[str]]:
    """Bases of each check that was skipped for the same reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        if finding.status == "skipped":
            found.setdefault((finding.check, finding.reason), []).append(finding.base)
    return found


def highlights(findings: Sequence[Finding]) -> str:
    """What each check found, in short, as a list in Markdown: a line a number, all bases in it."""
    shown: dict[tuple[str, str], dict[str, str]] = {}
    for finding in findings:
        known = {m.name: m.value for m in finding.measures} | dict(_flat(finding.facts))
        for name, value in known.items():
            if re.search(HIGHLIGHTS.get(finding.check, "$^"), name):
                shown.setdefault((finding.check, name), {})[finding.base] = _short(value)
    lines = []
    for (check, name), values in shown.items():
        said = "; ".join(f"{base} {value}" for base, value in values.items())
        if len(values) > 1 and len(set(values.values())) == 1:
            said = f"{next(iter(values.values()))} for all bases"
        lines.append(f"- {check}, {literal(f'{name}: {said}')}")
    return "\n".join(lines)


def matrix(findings: Sequence[Finding]) -> str:
    """HTML of a table: a row a check, a column a base, the status in words."""
    bases = list(dict.fromkeys(finding.base for finding in findings))
    known = {finding.key: finding for finding in findings}
    head = "".join(f'<th scope="col">{html.escape(base)}</th>' for base in ["check", *bases])
    body = "".join(
        f'<tr><th scope="row">{html.escape(title(check))}</th>'
        + "".join(_cell(known.get((check, base))) for base in bases)
        + "</tr>"
        for check in dict.fromkeys(finding.check for finding in findings)
    )
    return text.table(head, body, "Status of every check and base", "dataframe matrix")


def _cell(finding: Finding | None) -> str:
    if finding is None:
        return f"<td>{UNKNOWN}</td>"
    style = f' style="{ALARM}"' if finding.status == "failed" else ""
    reason = f' title="{html.escape(finding.reason, quote=True)}"' if finding.reason else ""
    return f"<td{style}{reason}>{SIGNS[finding.status]} {finding.status}</td>"


def rows(findings: Sequence[Finding]) -> pd.DataFrame:
    """Every measure as people read it; a finding without any is a row with its reason."""
    found = []
    for f in findings:
        head = {"check": f.check, "base": f.base, "measure": UNKNOWN, "status": f.status}
        head |= dict.fromkeys(("value", "bound", "value by bound"), UNKNOWN)
        tail = {"device": f.device, "check took": text.duration(f.seconds)}
        for m in f.measures:
            judged = {"measure": m.name, "status": "passed" if m.passed else "failed"}
            judged |= {**_beside(m), "value by bound": f"{m.bound_ratio:.2g}", "reason": m.why}
            found.append(head | judged | tail)
        if not f.measures:
            found.append(head | {"reason": f.reason} | tail)
    return pd.DataFrame(found)


def _beside(m: Measure) -> dict[str, str]:
    sign = "≤" if m.upper else "≥"
    return {"value": number_in_words(m.value), "bound": f"{sign} {number_in_words(m.bound)}"}


def facts(findings: Sequence[Finding]) -> pd.DataFrame:
    """What checks noted beside their measures: a row a fact."""
    found = [(f.check, f.base, name, _short(v)) for f in findings for name, v in _flat(f.facts)]
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
        return number_in_words(value)
    if isinstance(value, list | tuple):
        said = ", ".join(map(_short, value))
    else:
        said = UNKNOWN if value is None else text.printable(str(value)).replace("\n", "⏎")
    return said if len(said) <= LONGEST_FACT else f"{said[: LONGEST_FACT - 1]}…"


def limits(findings: Sequence[Finding], device: str) -> str:
    """What these findings do not show: other devices, checks that were skipped or not asked for."""
    lines = []
    elsewhere = [f for f in findings if f.device != device and f.status != "skipped"]
    for where in dict.fromkeys(f.device for f in elsewhere):
        names = dict.fromkeys(f.check for f in elsewhere if f.device == where)
        lines.append(f"- {', '.join(names)} ran on {literal(where)}, not on {device}.")
    lines += dict.fromkeys(
        f"- {f.check} did not try {literal(named[1] or named[2])}: {literal(_short(why))}"
        for f in findings
        for name, why in _flat(f.facts)
        if (named := NOT_TRIED.search(name))
    )
    lines += dict.fromkeys(
        f"- {f.check} tried {name.removesuffix(EMULATED)}, which is emulated here, in a tiny "
        f"shape: {shape}."
        for f in findings
        for name, shape in _flat(f.facts)
        if name.endswith(EMULATED)
    )
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


def readme_rows(findings: Sequence[Finding]) -> pd.DataFrame:
    """Of each check and base the worst measure, or the reason of one without measures."""
    rows = []
    for f in findings:
        row = {"check": title(f.check), "base": f.base, "status": f.status, "device": f.device}
        worst = {"measure": f.worst.name, **_beside(f.worst)} if f.worst else {"measure": f.reason}
        rows.append(row | worst)
    return pd.DataFrame(rows)


# Pieces of the page beside its answer, by the name that the notebook uses.
SECTIONS: Mapping[str, Callable[[Sequence[Finding]], str]] = {
    "matrix": matrix,
    "highlights": highlights,
    "questions": lambda findings: text.facts_table(
        {title(check): entry.question for check, entry in suite.CHECKS.items()}
    ),
    "measures": lambda f: text.sortable(rows(f), "Every measure of every check and base"),
    "facts": lambda f: text.sortable(facts(f), "Facts that checks noted"),
}
