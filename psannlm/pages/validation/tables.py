"""The findings of a validation as files: summary.json, measures.csv, and both read back.

JSON has no numbers that are not finite: they are written as the words `nan`, `inf` and `-inf`.
"""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from psannlm.checks.findings import Finding, Measure

SUMMARY, MEASURES, LOG = "summary.json", "measures.csv", "stdout.log"
STATUSES = ("passed", "failed", "skipped")
COLUMNS = ("check", "base", "measure", "value", "bound", "upper", "passed", "strain", "why")


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """Number of findings of each status."""
    found: Counter[str] = Counter(finding.status for finding in findings)
    return {status: found[status] for status in STATUSES}


def overall(findings: Sequence[Finding]) -> str:
    """Status of the run: failed if any check failed, passed if any passed, else skipped."""
    found = counts(findings)
    return next((status for status in ("failed", "passed") if found[status]), "skipped")


def summary(findings: Sequence[Finding], manifest: Mapping[str, Any]) -> str:
    """Content of summary.json: the run, its counts, and every finding."""
    whole = {
        "run": manifest["run"],
        "preset": manifest["preset"],
        "device": manifest["environment"]["device"],
        "status": overall(findings),
        "counts": counts(findings),
        "seconds": math.fsum(finding.seconds for finding in findings),
        "findings": [plain(finding.as_json()) for finding in findings],
    }
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """The value as JSON can hold it: mappings, lists, words, finite numbers."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def read(text: str) -> list[Finding]:
    """The findings of a summary.json.

    Raises:
        ValueError, LookupError or TypeError: It is no such file.
    """
    return [_finding(entry) for entry in json.loads(text)["findings"]]


def of_run(folder: Path) -> list[Finding]:
    """The findings in a run folder."""
    return read((folder / SUMMARY).read_text(encoding="utf-8"))


def _finding(entry: Mapping[str, Any]) -> Finding:
    names = ("check", "base", "status", "device", "seconds", "reason", "facts")
    measures = tuple(_measure(values) for values in entry["measures"])
    return Finding(measures=measures, **{name: entry[name] for name in names})


def _measure(values: Mapping[str, Any]) -> Measure:
    known = {field.name: values[field.name] for field in fields(Measure)}
    return Measure(**known | {name: float(values[name]) for name in ("value", "bound")})


def measures_csv(findings: Sequence[Finding]) -> str:
    """Content of measures.csv: a row a measure, in the order of the findings."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for finding in findings:
        for m in finding.measures:
            numbers = (m.value, m.bound, m.upper, m.passed, m.bound_ratio)
            writer.writerow([finding.check, finding.base, m.name, *numbers, m.why])
    return out.getvalue()
