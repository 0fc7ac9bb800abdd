"""The tables of the validation page: one row a finding, one row a measure."""

from collections.abc import Sequence

import pandas as pd

from psannlm.checks.findings import Finding
from psannlm.evidence.page import Tables
from psannlm.evidence.table import BASE, DEVICE, REASON, Column, Table
from psannlm.pages.validation.records import SUMMARY, plain

CHECK = Column("check", "Name of the check, GPU-01 to GPU-08.", heading="check", role="key")
BOUND = Column("bound", "The most or the least that the value may be.", heading="bound")
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


def tabulate(findings: Sequence[Finding]) -> Tables:
    """Both tables; a value that is no number is a word in them."""
    measures = [
        {
            "check": finding.check,
            "base": finding.base,
            "measure": m.name,
            "value": plain(m.value),
            "bound": plain(m.bound),
            "upper": m.upper,
            "passed": m.passed,
            "strain": plain(m.bound_ratio),
            "why": m.why,
        }
        for finding in findings
        for m in finding.measures
    ]
    return {
        FINDINGS.file: pd.DataFrame([plain(finding.as_json()) for finding in findings]),
        MEASURES.file: MEASURES.frame(measures),
    }
