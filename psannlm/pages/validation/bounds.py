"""What must hold between the files of a validation, and within each of its findings."""

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from psannlm.checks import suite
from psannlm.checks.config import ValidationConfig
from psannlm.checks.findings import Finding
from psannlm.config.parse import parse
from psannlm.evidence.runs import Evidence
from psannlm.pages.validation import tables as validation_tables
from psannlm.pages.validation.tables import COLUMNS, LOG, MEASURES, SUMMARY, plain

ROUNDED = 0.006
"""Relative. README.md gives three digits at least."""


def problems(run: Evidence) -> Iterator[str]:
    """What the files of a validation state wrongly: file, check, base and identity."""
    try:
        stated = json.loads(run.text(SUMMARY))
        findings = validation_tables.of_run(run.folder)
        config = parse(ValidationConfig, run.manifest["parameters"], source="parameters")
        for problem in (
            *_finding_problems(stated["findings"], findings),
            *_whole_problems(stated, findings, config, run),
        ):
            yield f"{SUMMARY}: {problem}"
        yield from _csv_problems(run.text(MEASURES), findings)
        yield from _readme_problems(run.text("README.md"), findings)
        yield from _log_problems(run.text(LOG), findings)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        yield f"{SUMMARY}: cannot be checked: {type(error).__name__}: {error}"


def _whole_problems(
    stated: Any, findings: Sequence[Finding], config: ValidationConfig, run: Evidence
) -> Iterator[str]:
    """The run as a whole: which checks there are, their counts, whose they are."""
    there = [(f.check, f.base) for f in findings]
    wanted = suite.plan(config)
    for check, base in (pair for pair in there if pair not in wanted or there.count(pair) > 1):
        yield f"{check} of {base} was not asked for, or stands there twice"
    for check, base in (pair for pair in wanted if pair not in there):
        yield f"{check} of {base} was asked for and is missing"
    expected = {
        "run": run.manifest["run"],
        "preset": run.manifest["preset"],
        "device": run.manifest["environment"]["device"],
        "status": validation_tables.overall(findings),
        "counts": validation_tables.counts(findings),
        "seconds": math.fsum(f.seconds for f in findings),
    }
    for name, value in expected.items():
        if stated[name] != value:
            yield f"{name} is {stated[name]!r}, its findings and the manifest give {value!r}"


def _finding_problems(stated: Sequence[Any], findings: Sequence[Finding]) -> Iterator[str]:
    """Status, reason, value and bound of each finding, from its measures."""
    for entry, finding in zip(stated, findings, strict=True):
        where = f"{finding.check}, {finding.base}"
        again = plain(finding.as_json())
        for name in ("value", "bound", "measure"):
            if entry[name] != again[name]:
                yield f"{where}: {name} is {entry[name]!r}, the worst measure has {again[name]!r}"
        for one, other in zip(entry["measures"], again["measures"], strict=True):
            if one["passed"] is not other["passed"]:
                yield f"{where}: {one['name']}: passed is {one['passed']}, its bound says otherwise"
        for problem in _status_problems(finding):
            yield f"{where}: {problem}"
        if not 0 < finding.seconds < math.inf:
            yield f"{where}: seconds must be positive and finite, got {finding.seconds!r}"
        if not finding.device:
            yield f"{where}: no device"


def _status_problems(finding: Finding) -> Iterator[str]:
    complaint = suite.complaint(finding.measures)
    if finding.measures:
        follows = "failed" if complaint else "passed"
        if finding.status != follows:
            yield f"status is {finding.status!r}, its measures give {follows!r}"
    elif finding.status not in ("failed", "skipped"):
        yield f"status is {finding.status!r}, yet nothing was measured"
    if (finding.status == "passed") != (finding.reason == ""):
        yield f"{finding.status}, and its reason is {finding.reason!r}"


def _csv_problems(text: str, findings: Sequence[Finding]) -> Iterator[str]:
    """Rows of measures.csv that are not the measures of the summary."""
    rows = list(csv.DictReader(io.StringIO(text)))
    again = list(csv.DictReader(io.StringIO(validation_tables.measures_csv(findings))))
    if len(rows) != len(again):
        yield f"{MEASURES}: {len(rows)} rows, {SUMMARY} has {len(again)} measures"
    for row, expected in zip(rows, again, strict=False):
        for name in COLUMNS:
            if row[name] != expected[name]:
                where = f"{expected['check']}, {expected['base']}, {expected['measure']}"
                yield f"{MEASURES}: {where}: {name} is {row[name]!r}, not {expected[name]!r}"


def _readme_problems(text: str, findings: Sequence[Finding]) -> Iterator[str]:
    """Rows of README.md with another status or value than the finding has."""
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", row)[1:-1]] for row in text.splitlines()]
    rows = [row for row in cells if len(row) > 4 and row[0].split(" ")[0] in suite.CHECKS]
    if len(rows) != len(findings):
        yield f"README.md: {len(rows)} rows, {SUMMARY} has {len(findings)} findings"
    for row, finding in zip(rows, findings, strict=False):
        where = f"README.md: {finding.check}, {finding.base}"
        if (row[0].split(" ")[0], row[1]) != (finding.check, finding.base):
            yield f"{where}: its row is of {row[0]}, {row[1]}"
        if row[2] != finding.status:
            yield f"{where}: status is {row[2]!r}, {SUMMARY} has {finding.status!r}"
        if (worst := finding.worst) and not _close(row[4], worst.value):
            yield f"{where}: value is {row[4]}, {SUMMARY} has {worst.value!r}"


def _close(shown: str, value: float) -> bool:
    number = float(shown.replace(",", ""))
    both_unknown = math.isnan(number) and math.isnan(value)
    return both_unknown or math.isclose(number, value, rel_tol=ROUNDED)


def _log_problems(text: str, findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        if f" {finding.check} {finding.base} {finding.status} in " not in text:
            yield f"{LOG}: no line of {finding.check}, {finding.base}, {finding.status}"
