"""What no validation could have found: findings that their measures or the request deny."""

import math
from collections.abc import Iterator, Sequence

from psannlm.checks import suite
from psannlm.checks.config import ValidationConfig
from psannlm.checks.findings import Finding
from psannlm.pages.validation.records import SUMMARY


def impossible(findings: Sequence[Finding], config: ValidationConfig) -> Iterator[str]:
    """What is wrong with the findings of a complete run."""
    there, wanted = [(f.check, f.base) for f in findings], suite.plan(config)
    for check, base in (pair for pair in there if pair not in wanted):
        yield f"{SUMMARY.file}: {check} of {base} was not asked for"
    for check, base in (pair for pair in wanted if pair not in there):
        yield f"{SUMMARY.file}: {check} of {base} was asked for and is missing"
    for finding in findings:
        for problem in _problems(finding):
            yield f"{SUMMARY.file}: {finding.check}, {finding.base}: {problem}"


def _problems(finding: Finding) -> Iterator[str]:
    complaint = suite.complaint(finding.measures)
    if finding.measures:
        follows = "failed" if complaint else "passed"
        if finding.status != follows:
            yield f"status is {finding.status!r}, its measures give {follows!r}"
    elif finding.status not in ("failed", "skipped"):
        yield f"status is {finding.status!r}, yet nothing was measured"
    if (finding.status == "passed") != (finding.reason == ""):
        yield f"{finding.status}, and its reason is {finding.reason!r}"
    if not 0 < finding.seconds < math.inf:
        yield f"seconds must be positive and finite, got {finding.seconds!r}"
    if not finding.device:
        yield "no device"
