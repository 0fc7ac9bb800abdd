"""The command line speaks in messages and exit codes, never in tracebacks."""

import subprocess
import sys

import pytest

from psannlm import ROOT


def psannlm(*arguments: str):
    command = [sys.executable, "-m", "psannlm", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("report", "--preset", "smok"), "error: unknown preset 'smok', did you mean 'smoke'?"),
        (("report", "--only", "thruput"), "unknown notebook 'thruput', did you mean 'throughput'?"),
        (("report", "--resume", "reports/benchmarks/x"), "is no run folder"),
        (("report", "throughput"), "follows no --only"),
        (("reprot",), "No such command 'reprot'"),
    ],
)
def test_what_cannot_be_done_ends_in_a_message(arguments, message):
    done = psannlm(*arguments)

    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_check_passes_on_the_committed_evidence():
    done = psannlm("check")

    assert done.returncode == 0
    assert "0 refused" in done.stdout
