"""The suite behind the validation page: from a page to the files of its run folder.

Every finding is saved before the next check begins, so that a killed run repeats none.
"""

import sys
from collections.abc import Sequence

from psannlm import ROOT
from psannlm.bench.environment import utc_now
from psannlm.checks import suite
from psannlm.checks.config import ValidationConfig
from psannlm.checks.findings import Finding
from psannlm.corpora.corpus import load
from psannlm.evidence.runs import Run
from psannlm.evidence.session import Page
from psannlm.pages.validation import tables as validation_tables
from psannlm.pages.validation.tables import LOG, SUMMARY


class CheckFailedError(Exception):
    """A check that failed, in a run that came to its end; its text is all that a reader needs."""

    def _render_traceback_(self) -> list[str]:
        """Lets a notebook show the message alone: what failed is a network, not this code."""
        return [f"{type(self).__name__}: {self}"]


class Log:
    """What a run prints, kept beside its findings as it grows."""

    def __init__(self, run: Run) -> None:
        self._run = run
        known = LOG in run.artifacts
        self._text = (run.folder / LOG).read_text(encoding="utf-8") if known else ""

    def say(self, line: str) -> None:
        """Print a line, and keep it."""
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        self._text += f"{line}\n"
        self._run.write(LOG, self._text)


def validate(page: Page) -> list[Finding]:
    """Make the checks that the page's parameters ask for, or go on with them.

    Returns:
        All findings of the run, those from before an interruption first.

    Raises:
        ConfigError: The text that is fitted is missing or broken.
    """
    config, run = page.config, page.run
    assert isinstance(config, ValidationConfig)
    corpus = load(ROOT / config.corpus)
    run.state(corpus={"path": config.corpus, "sha256": corpus.sha256})
    findings = recorded(run)
    planned, log = suite.plan(config), Log(run)
    log.say(
        f"{utc_now():%Y-%m-%d %H:%M:%S} UTC, preset {config.preset}, on {page.device_name}: "
        f"{len(planned) - len(findings)} of {len(planned)} checks to make"
    )
    done = {(finding.check, finding.base) for finding in findings}
    for finding in suite.validate(config, page.device, done):
        findings.append(finding)
        n = len(findings)
        # The log first: a finding counts as made only once it stands in summary.json.
        log.say(f"[{n:>{len(str(len(planned)))}}/{len(planned)}] {line(finding)}")
        run.write(SUMMARY, validation_tables.summary(findings, run.manifest))
        page.report_progress(
            n, len(planned), " ".join(planned[min(n, len(planned) - 1)]), unit="check"
        )
    found = validation_tables.counts(findings)
    log.say(", ".join(f"{number} {status}" for status, number in found.items()))
    return validation_tables.of_run(run.folder)


def recorded(run: Run) -> list[Finding]:
    """The findings that a run holds; those of an interrupted one when it is resumed."""
    return validation_tables.of_run(run.folder) if SUMMARY in run.artifacts else []


def line(finding: Finding) -> str:
    """A finding in one line."""
    worst = finding.worst
    said = finding.reason or (suite.stated(worst) if worst else "")
    head = f"{finding.check} {finding.base} {finding.status} in {finding.seconds:.1f} s"
    return f"{head}: {said}"


def judge(findings: Sequence[Finding]) -> None:
    """End in an error if a check failed; called when the run is sealed, so nothing is lost.

    Raises:
        CheckFailedError: Names each failed check, its base, and what is out of bounds.
    """
    failed = [finding for finding in findings if finding.status == "failed"]
    if failed:
        lines = [f"{f.check} failed on {f.base}: {f.reason}" for f in failed]
        raise CheckFailedError("\n".join(lines))
