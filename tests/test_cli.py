"""The command line speaks in messages and exit codes, never in tracebacks."""

import subprocess
import sys

import pytest

from psannlm import ROOT
from psannlm.files import sha256_of


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
        (
            ("corpus", "build", "tiny_book"),
            "unknown corpus 'tiny_book', did you mean 'tiny_books'?",
        ),
        (("corpus", "from", "nowhere.txt", "--out", "o.txt"), "nowhere.txt does not exist; name"),
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


@pytest.mark.slow
def test_a_corpus_of_ones_own_files_is_built_and_shown(tmp_path):
    (tmp_path / "mine.txt").write_text("".join(f"Paragraph {i} of mine.\n\n" for i in range(100)))
    out = tmp_path / "out.txt"

    done = psannlm("corpus", "from", str(tmp_path / "mine.txt"), "--out", str(out))

    assert done.returncode == 0, done.stderr
    assert f"{out}: {out.stat().st_size:,} bytes, sha256 {sha256_of(out)}" in done.stdout
