"""The notebooks of a plan through papermill, one after the other, then the book, or its PDF.

Each notebook runs in a papermill of its own; one that fails does not stop the others, and the
report says so at its end. A PDF is the whole book as one page, printed by Chromium with formulas
typeset.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import torch
import yaml
from tqdm import tqdm

from psannlm import ROOT
from psannlm.config.parse import read_parameters
from psannlm.config.schema import ConfigError
from psannlm.corpora import build, corpus
from psannlm.evidence.notebook import NOTEBOOKS, default_parameters
from psannlm.evidence.runs import MANIFEST, Evidence, EvidenceError, Refused, all_runs, load, pinned
from psannlm.evidence.session import MIXED, PROGRESS, RESUME
from psannlm.files import locked, write_atomically
from psannlm.rerun.outcome import refuse_other_text
from psannlm.run import estimate

EXECUTED = ROOT / "_build" / "executed"
INDEX = ROOT / "_build" / "html" / "index.html"
SINGLE = ROOT / "_build" / "singlehtml" / "intro.html"
PDF = ROOT / "_build" / "psannlm-report.pdf"
POLL_SECONDS = 0.2
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
KERNEL_SECONDS = 4  # until a kernel has ended whose papermill was killed
PATIENCE = 300  # seconds after which a browser is stopped
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--no-first-run", "--no-pdf-header-footer",
    "--generate-pdf-document-outline",
    # Milliseconds of the page's own clock, which runs ahead while MathJax typesets.
    "--virtual-time-budget=60000",
)  # fmt: skip


class Outcome(NamedTuple):
    """What became of one notebook."""

    notebook: str
    seconds: float
    reason: str  # empty if it ran to its end


def run_preset(preset: str, only: Sequence[str] = ()) -> list[Outcome]:
    """Run the notebooks of a preset, or some of them, in their order.

    Before anything runs, ConfigError tells all that is wrong with any of their parameter files,
    and what is planned is printed, with the minutes that it should take.
    """
    plan = estimate.plan(preset, only)
    sys.stdout.write(f"{estimate.in_words(plan)}\n")
    sys.stdout.flush()
    outcomes = []
    for one in plan:
        start = time.monotonic()
        try:
            build_missing_corpus(read_parameters(one.path))
        except ConfigError as error:  # of this notebook alone: the others need no corpus
            outcomes.append(Outcome(one.notebook, time.monotonic() - start, str(error)))
            continue
        output = EXECUTED / f"{preset}_{one.notebook}.ipynb"
        outcomes.append(run_notebook(one.notebook, one.arguments, output, pinned()))
    return outcomes


def build_missing_corpus(parameters: Mapping[str, Any]) -> None:
    """Build the corpus that a notebook trains on, if it is not there and a recipe makes it."""
    if made := corpus.recipe_to_build(ROOT / str(parameters.get("corpus", ""))):
        build.build(made.name)


def interrupted(folder: Path) -> Evidence:
    """The interrupted run in a folder; EvidenceError if there is none there."""
    here = folder.resolve()
    if not (here / MANIFEST).exists():
        known = (run for run in all_runs(here.parent.parent) if not isinstance(run, Refused))
        listed = ", ".join(run.name for run in known if not run.is_complete) or "none"
        raise EvidenceError(f"{folder} is no run folder; runs that can be resumed: {listed}")
    run = load(here)
    if run.is_complete:
        raise EvidenceError(f"{run.name} is complete; there is nothing to resume")
    with locked(here, patience=KERNEL_SECONDS):
        pass  # a run that is alive is refused before a notebook is started
    return run


def resume(folder: Path, *, mixed: bool = False) -> Outcome:
    """Go on with an interrupted run where it broke off; EvidenceError if there is none there.

    It may be `mixed`: go on with other code or software than it was begun with.
    """
    run = interrupted(folder)
    refuse_other_text(run)
    name = run.manifest["notebook"]
    declared = default_parameters(name)
    values = {k: v for k, v in run.manifest["parameters"].items() if k in declared}
    output = EXECUTED / f"{run.folder.name}_{name}.ipynb"
    with tempfile.TemporaryDirectory(prefix="psannlm-resume-") as temporary:
        path = Path(temporary, "parameters.yaml")
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        variables = {RESUME: str(run.folder)} | ({MIXED: "1"} if mixed else {})
        return run_notebook(name, ["-f", str(path)], output, variables)


def run_notebook(
    name: str, arguments: Sequence[str], output: Path, variables: dict[str, str] | None = None
) -> Outcome:
    """One notebook through papermill, with a progress bar of what it measures or trains.

    Executed, it lies in a folder of its own until it has ended, and then at `output`.
    """
    command = [sys.executable, "-m", "papermill", "--no-progress-bar"]
    command += [str((NOTEBOOKS / f"{name}.ipynb").relative_to(ROOT))]
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="psannlm-notebook-") as folder:
        progress, log_path = Path(folder, "progress.json"), Path(folder, "log.txt")
        executed = Path(folder, output.name)  # no other report writes it
        command += [str(executed), *arguments]
        environment = os.environ | (variables or {}) | {PROGRESS: str(progress)}
        with log_path.open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)
            try:
                _follow(process, name, progress)
            except KeyboardInterrupt:
                raise ConfigError(f"{name}: interrupted{_way_on(progress)}") from None
            finally:
                process.terminate()  # nothing, where it has ended
                process.wait()
        reason = _edited(progress)
        if process.returncode:
            reason = _reason(executed, log_path.read_text("utf-8")) + _way_on(progress)
        if executed.exists():
            output.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(output, executed.read_bytes())
    return Outcome(name, time.monotonic() - start, reason)


def _follow(process: "subprocess.Popen[bytes]", name: str, progress: Path) -> None:
    # A log is spared most of what a terminal overwrites.
    seconds = POLL_SECONDS if sys.stdout.isatty() else 10.0
    options = {"file": sys.stdout, "ncols": 88, "mininterval": seconds, "miniters": 1}
    with tqdm(desc=name, total=1, unit="", **options) as bar:
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            if told := _told(progress):
                bar.total, bar.unit = told["total"], told["unit"]
                bar.set_postfix_str(told["label"], refresh=False)
                bar.update(told["done"] - bar.n)


def _told(progress: Path) -> dict[str, Any]:
    """What the notebook last said of its progress; nothing before it has begun to measure."""
    return dict(json.loads(progress.read_text("utf-8") if progress.exists() else "{}"))


def _edited(progress: Path) -> str:
    """Why the run that told of its progress is not published; empty if it is not edited."""
    told = _told(progress)
    edited = load(Path(told["run"])).manifest.get("edited") if told else None
    return f"not published, for other cells ran: {'; '.join(edited)}" if edited else ""


def _way_on(progress: Path) -> str:
    """How to go on with what was measured, if anything was and the run is not at its end."""
    told = _told(progress)
    if not told or _edited(progress) or load(Path(told["run"])).is_complete:
        return ""
    return f"; go on with `python -m psannlm report --resume {told['run']}`"


def _reason(output: Path, log: str) -> str:
    """Why the notebook failed: its own error, or the last words of papermill."""
    try:
        cells = nbformat.read(output, as_version=4).cells
    except Exception:  # papermill failed before it wrote a notebook
        cells = []
    for found in (output for cell in cells for output in cell.get("outputs", [])):
        if found.output_type == "error":
            return f"{found.ename}: {found.evalue}"
    lines = [line for line in log.splitlines() if line.strip()]
    return lines[-1] if lines else "papermill ended without a word"


def build_book(builder: str = "html") -> bool:
    """Build the book, as html or singlehtml; a warning is an error and is said on stderr."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command += ["build", "book/", "-W", "-n", "--keep-going", "-q", "--builder", builder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
    return done.returncode == 0 and (INDEX.parents[1] / builder / INDEX.name).exists()


def print_book(output: Path = PDF) -> Path:
    """Build the book as one page and print it; ConfigError says what is missing."""
    browser = find_browser()
    with locked(PDF.parent, patience=-1):  # the page is not built anew while it is printed
        if not build_book("singlehtml"):
            raise ConfigError(
                "the book must build without warnings before it is printed; they stand above: "
                "mend them and print again"
            )
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, printed(browser, SINGLE))
    return output


def find_browser() -> str:
    """The browser that prints: `$CHROMIUM`, or the first that is installed; else ConfigError."""
    named = os.environ.get("CHROMIUM")
    for name in (named,) if named else BROWSERS:
        if found := shutil.which(name):
            return found
    said = f"a PDF needs Chromium or Chrome, none of {', '.join(BROWSERS)} is on the path; install "
    said += "one, or name its program in CHROMIUM"
    if named:
        said = f"CHROMIUM must name a program that runs, got {named!r}; correct or unset it"
    raise ConfigError(said)


def printed(browser: str, page: Path) -> bytes:
    """The PDF of a page, as its print style has it; ConfigError if the browser leaves none."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        made = Path(folder) / "book.pdf"
        own = (f"--user-data-dir={folder}/profile", f"--print-to-pdf={made}", page.as_uri())
        try:
            done = subprocess.run(
                [browser, *FLAGS, *own], capture_output=True, text=True, timeout=PATIENCE
            )
        except OSError as error:
            said = f"{browser} cannot be started: {error.strerror}; name another in CHROMIUM"
            raise ConfigError(said) from None
        except subprocess.TimeoutExpired:
            said = f"{browser} must print within {PATIENCE} s and did not; try again with less load"
            raise ConfigError(said) from None
        if done.returncode or not made.is_file():
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            said = f"{browser} must print a PDF, it ended with {done.returncode}: {last}"
            raise ConfigError(f"{said}; name another in CHROMIUM")
        return made.read_bytes()


def gpu_hint(preset: str) -> str:
    """What to type where a GPU lies idle under a lesser preset; empty elsewhere."""
    if preset == "gpu" or not torch.cuda.is_available():
        return ""
    return f"{torch.cuda.get_device_name()} found: `make report PRESET=gpu` measures on it"
