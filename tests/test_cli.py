"""The command line speaks in messages and exit codes, never in tracebacks."""

import shutil
import subprocess
import sys

import pytest
import yaml

from psannlm import ROOT
from psannlm.config.parse import read_parameters
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
        (("rerun", "nowhere"), "error: nowhere is no run folder; there are, below reports/: "),
        (("reprot",), "No such command 'reprot'"),
        (
            ("corpus", "build", "tiny_book"),
            "unknown corpus 'tiny_book', did you mean 'tiny_books'?",
        ),
        (("corpus", "from", "nowhere.txt", "--out", "o.txt"), "nowhere.txt does not exist; name"),
        (("train",), "give either --config FILE or --resume FOLDER"),
        (("train", "--config", "no.yaml"), "error: no.yaml does not exist"),
        (("train", "--resume", "nowhere"), "nowhere/config.yaml does not exist"),
        (("generate", "--checkpoint", "nowhere", "--prompt", "a"), "nowhere is no checkpoint"),
        (
            ("generate", "--checkpoint", "nowhere", "--prompt", "a", "--top-p", "2"),
            "top_p must be more than 0 and at most 1, got 2.0",
        ),
        (
            ("generate", "--checkpoint", "nowhere", "--prompt", "a", "--device", "tpu"),
            "must be one of auto, cpu, cuda, got 'tpu'",
        ),
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
def test_a_row_that_a_run_does_not_have_is_refused_with_those_it_has():
    run = next((ROOT / "reports").glob("*/*/throughput.csv")).parent

    done = psannlm("rerun", str(run), "--row", "99")

    assert done.returncode == 2
    assert "got 99; its rows are:\n  1: label " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_corpus_of_ones_own_files_is_built_and_shown(tmp_path):
    (tmp_path / "mine.txt").write_text("".join(f"Paragraph {i} of mine.\n\n" for i in range(100)))
    out = tmp_path / "out.txt"

    done = psannlm("corpus", "from", str(tmp_path / "mine.txt"), "--out", str(out))

    assert done.returncode == 0, done.stderr
    assert f"{out}: {out.stat().st_size:,} bytes, sha256 {sha256_of(out)}" in done.stdout


@pytest.mark.slow
def test_a_network_is_trained_gone_on_with_and_made_to_write(tmp_path):
    parameters = read_parameters(ROOT / "params" / "smoke" / "tiny_corpus.yaml")
    few = {"train_megabytes": 0.02, "vocab_size": 300, "checkpoint_steps": 3, "device": "cpu"}
    config, folder = tmp_path / "few.yaml", tmp_path / "training"
    config.write_text(yaml.safe_dump(parameters | few))

    first = psannlm("train", "--config", str(config), "--out", str(folder))
    before = (folder / "loss.csv").read_bytes()
    shutil.rmtree(sorted(folder.glob("step_*"))[-1])
    again = psannlm("train", "--resume", str(folder))
    ask = ("generate", "--checkpoint", str(folder), "--tokens", "9")
    written = psannlm(*ask, "--prompt", "It was", "--prompt", "A")

    assert first.stdout == again.stdout
    assert first.stdout.splitlines()[-1] == str(folder)
    assert (folder / "loss.csv").read_bytes() == before
    assert written.stdout.startswith("It was")
    assert "\nA" in written.stdout
