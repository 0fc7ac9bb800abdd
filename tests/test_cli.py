"""The command line speaks in messages and exit codes, never in tracebacks."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml

from psannlm import ROOT
from psannlm.__main__ import main
from psannlm.config.parse import read_parameters
from psannlm.files import sha256_of


def psannlm(*arguments: str):
    """The command in a process of its own, on one thread."""
    return subprocess.run(
        [sys.executable, "-m", "psannlm", *arguments],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture
def called(monkeypatch, capsys):
    """Runs the command in this process; returns its exit code and what it printed and said."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["psannlm", *arguments])
        monkeypatch.chdir(ROOT)
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return call


LIGHT = """
import contextlib, io, sys
from psannlm.__main__ import main

for words in ("", "check", "train", "generate", "corpus build"):
    sys.argv = ["psannlm", *words.split(), "--help"]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
        main()
    heavy = {"torch", "scipy", "matplotlib", "pandas", "papermill", "nbformat", "IPython"}
    if heavy & set(sys.modules) or "Usage" not in out.getvalue():
        sys.exit(f"{words}: {heavy & set(sys.modules)} {out.getvalue()}")
"""


def test_a_command_says_how_it_is_called_without_loading_torch():
    done = subprocess.run([sys.executable, "-c", LIGHT], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


GENERATE = ("generate", "--checkpoint", "nowhere", "--prompt", "a")
RUN = str(next((ROOT / "reports").glob("*/*/throughput.csv")).parent)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("report", "--preset", "smok"), "error: unknown preset 'smok', did you mean 'smoke'?"),
        (("report", "--resume", "reports/benchmarks/x"), "is no run folder"),
        (("report", "throughput"), "follows no --only"),
        (("rerun", "nowhere"), "error: nowhere is no run folder; there are, below reports/: "),
        (("rerun", RUN, "--row", "99"), "got 99; its rows are:\n  1: respsann, "),
        (("reprot",), "No such command 'reprot'"),
        (("corpus", "build", "tiny_book"), "unknown corpus 'tiny_book', did you mean 'tiny_boo"),
        (("corpus", "from", "nowhere.txt", "--out", "o.txt"), "nowhere.txt does not exist; name"),
        (("train",), "give either --config FILE or --resume FOLDER"),
        (("train", "--config", "no.yaml"), "error: no.yaml does not exist"),
        (("train", "--resume", "nowhere"), "nowhere/config.yaml does not exist"),
        ((*GENERATE,), "nowhere is no checkpoint"),
        ((*GENERATE, "--top-p", "2"), "top_p must be more than 0 and at most 1, got 2.0"),
        ((*GENERATE, "--device", "tpu"), "must be one of auto, cpu, cuda, got 'tpu'"),
    ],
)
def test_what_cannot_be_done_ends_in_a_message(called, arguments, message):
    code, _, said = called(*arguments)

    assert code == 2
    assert message in said


@pytest.mark.slow
def test_check_passes_on_the_committed_evidence(called):
    code, printed, _ = called("check")

    assert code == 0
    assert "0 refused" in printed


def test_a_corpus_of_ones_own_files_is_built_and_shown(called, tmp_path):
    (tmp_path / "mine.txt").write_text("".join(f"Paragraph {i} of mine.\n\n" for i in range(1000)))
    out = tmp_path / os.fsdecode(b"gr\xfc.txt")  # that no terminal can show

    code, printed, _ = called("corpus", "from", str(tmp_path / "mine.txt"), "--out", str(out))

    assert code == 0
    assert f"\\udcfc.txt: {out.stat().st_size:,} bytes, sha256 {sha256_of(out)}" in printed
    assert "paragraphs removed: none" in printed


@pytest.mark.slow
def test_a_network_is_trained_gone_on_with_and_made_to_write(tmp_path):
    parameters = read_parameters(ROOT / "params" / "smoke" / "tiny_corpus.yaml")
    few = {"train_megabytes": 0.02, "vocab_size": 300, "checkpoint_steps": 3, "device": "cpu"}
    few |= {"validation_megabytes": 0.01, "evaluations": 1}
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
