"""Findings as files: summary.json and stdout.log, and the way back.

JSON has no numbers that are not finite: they are written as the words `nan`, `inf` and `-inf`.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from psannlm.checks import suite
from psannlm.checks.config import ValidationConfig
from psannlm.checks.findings import Finding, Measure
from psannlm.evidence.page import RunInfo
from psannlm.evidence.store import RecordStore
from psannlm.evidence.table import DEVICE, Column, Table

STATUSES = ("passed", "failed", "skipped")
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


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """Number of findings of each status."""
    found: Counter[str] = Counter(finding.status for finding in findings)
    return {status: found[status] for status in STATUSES}


def overall(findings: Sequence[Finding]) -> str:
    """Status of the run: failed if any check failed, passed if any passed, else skipped."""
    found = counts(findings)
    return next((status for status in ("failed", "passed") if found[status]), "skipped")


def to_texts(findings: Sequence[Finding], run: RunInfo[ValidationConfig]) -> dict[str, str]:
    """The log, and summary.json: the run, its counts, and every finding."""
    planned = len(suite.plan(run.config))
    lines = [
        f"[{n:>{len(str(planned))}}/{planned}] {line(f)}" for n, f in enumerate(findings, start=1)
    ]
    found = counts(findings)
    if len(findings) == planned:
        lines.append(", ".join(f"{number} {status}" for status, number in found.items()))
    whole = {
        "run": run.name,
        "preset": run.config.preset,
        "device": run.device,
        "status": overall(findings),
        "counts": found,
        "seconds": math.fsum(finding.seconds for finding in findings),
        "findings": [plain(finding.as_json()) for finding in findings],
    }
    summary = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return {LOG.file: "\n".join([*lines, ""]), SUMMARY.file: summary}


def line(finding: Finding) -> str:
    """A finding in one line."""
    worst = finding.worst
    said = finding.reason or (suite.stated(worst) if worst else "")
    head = f"{finding.check} {finding.base} {finding.status} in {finding.seconds:.1f} s"
    return f"{head}: {said}"


def from_texts(texts: Mapping[str, str]) -> list[Finding]:
    """The findings of a summary.json.

    Raises:
        ValueError, LookupError or TypeError: It is no such file.
    """
    return [_finding(entry) for entry in json.loads(texts[SUMMARY.file])["findings"]]


def plain(value: Any) -> Any:
    """The value as JSON can hold it: mappings, lists, words, finite numbers."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _finding(entry: Mapping[str, Any]) -> Finding:
    names = ("check", "base", "status", "device", "seconds", "reason", "facts")
    measures = tuple(_measure(values) for values in entry["measures"])
    return Finding(measures=measures, **{name: entry[name] for name in names})


def _measure(values: Mapping[str, Any]) -> Measure:
    known = {field.name: values[field.name] for field in fields(Measure)}
    return Measure(**known | {name: float(values[name]) for name in ("value", "bound")})


STORE: RecordStore[Finding] = RecordStore(
    (LOG, SUMMARY),
    lambda findings: {},  # the page writes them, as they name its run
    from_texts,
    lambda finding: f"{finding.check} {finding.base}",
    unit="check",
)
