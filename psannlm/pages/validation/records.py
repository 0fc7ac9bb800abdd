"""Findings as files and tables, and the way back; what no validation could have found.

JSON has no numbers that are not finite: they are written as the words `nan`, `inf` and `-inf`.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from psannlm.checks import suite
from psannlm.checks.findings import Finding, ValidationConfig
from psannlm.evidence.page import RunInfo, Tables
from psannlm.evidence.store import RecordStore
from psannlm.evidence.table import BASE, DEVICE, REASON, Column, Table

STATUSES = ("passed", "failed", "skipped")
CHECK = Column("check", "Name of the check, GPU-01 to GPU-08.", heading="check", role="key")
BOUND = Column("bound", "The most or the least that the value may be.", heading="bound")
SUMMARY = Table(
    "summary.json",
    "Findings of every check and base, and their counts.",
    (
        Column("run", "Run folder, named by its start in UTC."),
        Column("preset", "Set of parameter files, smoke, cpu or gpu."),
        DEVICE,
        Column("status", "failed if any check failed, else passed."),
        Column("counts", "Number of findings passed, failed and skipped."),
        Column("seconds", "Time of all checks.", "s"),
        Column(
            "findings",
            "One entry a check and base, with status, worst measure, all measures and facts.",
        ),
    ),
)
LOG = Table("stdout.log", "What the run printed, a line a finding.", ())
FINDINGS = Table(
    SUMMARY.file,
    "Of each check and base the measure that comes nearest to its bound.",
    (
        CHECK,
        BASE,
        Column("status", "passed, failed or skipped.", heading="status"),
        Column("measure", "The measure nearest to its bound.", heading="measure"),
        Column("value", "What was found.", heading="value"),
        BOUND,
        DEVICE.but(heading="device"),
        Column("seconds", "Time of the check.", "s"),
        REASON,
    ),
)
MEASURES = Table(
    "measures.csv",
    "One row a measure, with its bound and why the bound is there.",
    (
        CHECK,
        BASE,
        Column("measure", "What was measured, in words, with its unit if it has one."),
        Column("value", "What was found."),
        BOUND,
        Column(
            "upper", "Whether the bound is the most that the value may be; otherwise the least."
        ),
        Column("passed", "Whether the value is a number within its bound."),
        Column(
            "strain", "Value by bound, turned over where the bound is the least; above 1 fails."
        ),
        Column("why", "Why the bound is where it is."),
    ),
)


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """Number of findings of each status."""
    return {status: sum(f.status == status for f in findings) for status in STATUSES}


def to_texts(records: Sequence[Finding], run: RunInfo[ValidationConfig]) -> dict[str, str]:
    """The log, a line a finding, and summary.json: the run, its counts, and every finding."""
    planned, found = len(suite.plan(run.config)), counts(records)
    lines = []
    for n, f in enumerate(records, start=1):
        said = f.reason or (suite.stated(f.worst) if f.worst else "")
        place = f"[{n:>{len(str(planned))}}/{planned}]"
        lines.append(f"{place} {f.check} {f.base} {f.status} in {f.seconds:.1f} s: {said}")
    if len(records) == planned:
        lines.append(", ".join(f"{number} {status}" for status, number in found.items()))
    whole = {
        "run": run.name,
        "preset": run.config.preset,
        "device": run.device,
        "status": next((status for status in ("failed", "passed") if found[status]), "skipped"),
        "counts": found,
        "seconds": math.fsum(finding.seconds for finding in records),
        "findings": [_plain(finding.as_json()) for finding in records],
    }
    summary = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return {LOG.file: "\n".join([*lines, ""]), SUMMARY.file: summary}


def from_texts(texts: Mapping[str, str]) -> list[Finding]:
    """The findings of a summary.json; raises ValueError or LookupError if it is none."""
    entries = json.loads(texts[SUMMARY.file])["findings"]
    return TypeAdapter(list[Finding]).validate_python(entries)


STORE: RecordStore[Finding] = RecordStore(
    (LOG, SUMMARY),
    lambda findings: {},  # the page writes them, as they name its run
    from_texts,
    lambda finding: f"{finding.check} {finding.base}",
    unit="check",
)


def tabulate(findings: Sequence[Finding]) -> Tables:
    """Both tables; a value that is no number is a word in them."""
    measures = [
        _plain(asdict(m) | {"measure": m.name, "passed": m.passed, "strain": m.bound_ratio})
        | {"check": finding.check, "base": finding.base}
        for finding in findings
        for m in finding.measures
    ]
    return {
        FINDINGS.file: pd.DataFrame([_plain(finding.as_json()) for finding in findings]),
        MEASURES.file: MEASURES.frame(measures),
    }


def _plain(value: Any) -> Any:
    """The value as JSON can hold it: mappings, lists, words, finite numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def problems(records: Sequence[Finding], config: ValidationConfig) -> Iterator[str]:
    """What the records of a complete run cannot be: denied by their measures or the request."""
    there, wanted = [finding.key for finding in records], suite.plan(config)
    for check, base in sorted({*there} ^ {*wanted}):
        what = "was asked for and is missing" if (check, base) in wanted else "was not asked for"
        yield f"{SUMMARY.file}: {check} of {base} {what}"
    for finding in records:
        for problem in _impossible(finding):
            yield f"{SUMMARY.file}: {finding.check}, {finding.base}: {problem}"


def _impossible(finding: Finding) -> Iterator[str]:
    follows = "failed" if suite.complaint(finding.measures) else "passed"
    if finding.measures and finding.status != follows:
        yield f"status is {finding.status!r}, its measures give {follows!r}"
    if not finding.measures and finding.status == "passed":
        yield "status is 'passed', yet nothing was measured"
    if (finding.status == "passed") != (finding.reason == ""):
        yield f"{finding.status}, and its reason is {finding.reason!r}"
    if not 0 < finding.seconds < math.inf:
        yield f"seconds must be positive and finite, got {finding.seconds!r}"
    if not finding.device:
        yield "no device"
