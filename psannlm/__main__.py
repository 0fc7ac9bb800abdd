"""The command line: `python -m psannlm COMMAND`.

A command imports what it needs itself, so that none waits for torch to say how it is called.
"""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Annotated, get_args

from psannlm import REPORTS
from psannlm.config import packages

try:
    import typer
    from typer import Argument, Option

    from psannlm.bench.provenance import refuse_other_checkout
    from psannlm.config.parse import parse, read_parameters
    from psannlm.config.schema import ConfigError
    from psannlm.config.training import Device, TrainingConfig
except ModuleNotFoundError as error:
    sys.exit(packages.missing(error))

about = "The PSANN-LM benchmark report."
app = typer.Typer(
    help=about, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
corpus = typer.Typer(no_args_is_help=True, help="Build text to train on.")
app.add_typer(corpus, name="corpus")

Mixed = Annotated[bool, Option("--mixed", help="go on though code or software has changed")]


@app.command()
def report(
    preset: Annotated[str, Option(help="smoke, cpu or gpu: a folder under params/")] = "smoke",
    only: Annotated[list[str] | None, Option(help="notebooks to run; all if not given")] = None,
    more: Annotated[list[str] | None, Argument(help="further notebooks for --only")] = None,
    resume: Annotated[Path | None, Option(help="go on with this interrupted run")] = None,
    mixed: Mixed = False,
    book: Annotated[bool, Option(help="build the book afterwards")] = True,
    dry_run: Annotated[bool, Option(help="print plan, minutes and problems; run nothing")] = False,
) -> None:
    """Run the notebooks of a preset through papermill, then build the book.

    What is in the way is told before anything runs.
    """
    from psannlm.run import estimate, preflight
    from psannlm.run import preset as runner

    if more and not only:
        raise typer.BadParameter(f"{more[0]!r} follows no --only")
    if mixed and not resume:
        raise typer.BadParameter("--mixed goes with --resume FOLDER")
    wanted = [*(only or []), *(more or [])]
    known = preflight.of_run(resume, book) if resume else preflight.of_preset(preset, wanted, book)
    for problem in known:
        print(problem, file=sys.stderr if problem.is_error else sys.stdout, flush=True)
    if dry_run and not resume:
        with contextlib.suppress(ConfigError):  # which is among the problems
            print(estimate.in_words(estimate.plan(preset, wanted)))
    stopped = any(problem.is_error for problem in known)
    if stopped or dry_run:
        raise typer.Exit((1 if dry_run else 2) if stopped else 0)
    outcomes = [runner.resume(resume, mixed=mixed)] if resume else runner.run_preset(preset, wanted)
    failed = [outcome for outcome in outcomes if outcome.reason]
    for outcome in outcomes:
        word = f"failed: {outcome.reason}" if outcome.reason else "complete"
        print(f"{outcome.notebook}: {word} ({outcome.seconds:.0f} s)", flush=True)
    if hint := runner.gpu_hint(preset):
        print(hint)
    built = runner.build_book() if book else True
    if not built:
        print("the book was not built without warnings; they stand above")
    if failed:
        names = ", ".join(outcome.notebook for outcome in failed)
        print(f"{len(failed)} of {len(outcomes)} notebooks failed: {names}")
    if book and runner.INDEX.exists():
        print(runner.INDEX)
    if failed or not built:
        raise typer.Exit(1)


@app.command()
def train(
    config: Annotated[Path | None, Option(help="YAML as params/*/tiny_corpus.yaml")] = None,
    out: Annotated[Path | None, Option(help="folder of the training")] = None,
    resume: Annotated[Path | None, Option(help="go on in the folder of a training")] = None,
    mixed: Mixed = False,
) -> None:
    """Train a network on a corpus; under torchrun on several ranks.

    The same command again goes on where a killed training was.
    """
    from psannlm.bench.rates import agreed, is_emulated
    from psannlm.bench.steps import measure_ceiling, rate
    from psannlm.model.bases import BASES
    from psannlm.train import distributed, trainer
    from psannlm.train.recorder import ProgressBar

    if (config is None) == (resume is None):
        raise typer.BadParameter("give either --config FILE or --resume FOLDER")
    source = config or (resume or Path()) / trainer.CONFIG
    asked = parse(TrainingConfig, read_parameters(source), source=str(source), bases=tuple(BASES))
    folder = resume or out or trainer.default_folder(source, asked)
    begun = folder / trainer.CONFIG
    held = read_parameters(begun).get("precision") if begun.exists() else None
    with distributed.join(asked.device) as ranks:
        used = agreed(asked, ranks, held)

        def ceiling() -> float:
            device, precision = ranks.device, used.precision
            return rate(*measure_ceiling(device, precision, min_seconds=0.5, min_steps=3))

        # Ranks that share a CPU cannot each have all of it.
        alone = ranks.world == 1 or ranks.device.type == "cuda"
        known = ceiling if alone and not is_emulated(ranks.device.type, used.precision) else None
        found = trainer.train(
            used, folder, ranks, ceiling=known, watch=ProgressBar(), mixed=mixed
        ).metrics
        if ranks.is_first:
            for part in found.get("parts", ()):
                made = ", ".join(f"{name} {value}" for name, value in part.items())
                print(f"mixed: {made}")
            print(
                f"validation: loss {found['val_loss']:.4f} nats/token, perplexity "
                f"{found['perplexity']:.2f}, {found['bits_per_byte']:.4f} bits per byte, "
                f"top-1 {found['top1']:.1%}; {used.precision}\n{folder}"
            )


@app.command()
def generate(
    checkpoint: Annotated[Path, Option(help="folder of a checkpoint, or of a training")],
    prompt: Annotated[list[str], Option(help="text to continue; may be given often")],
    tokens: Annotated[int, Option(help="most new tokens")] = 100,
    temperature: Annotated[float, Option(help="0 takes the likeliest token")] = 0.8,
    top_k: Annotated[
        int | None, Option(help="sample from so many tokens only; from all if not given")
    ] = None,
    top_p: Annotated[float, Option(help="sample from so much probability only")] = 1.0,
    repetition_penalty: Annotated[float, Option(help="above 1 repeats less")] = 1.0,
    seed: Annotated[int, Option(help="of the samples")] = 0,
    device: Annotated[str, Option(help="auto, cpu or cuda")] = "auto",
    tokenizer: Annotated[Path | None, Option(help="its file, if it lies elsewhere")] = None,
) -> None:
    """Continue prompts with a trained network."""
    from psannlm.device import select_device
    from psannlm.model.sampling import Sampling
    from psannlm.train import pretrained

    asked = {"temperature": temperature, "top_p": top_p, "repetition_penalty": repetition_penalty}
    asked |= {} if top_k is None else {"top_k": top_k}
    sampling = parse(Sampling, asked, source="options of generate")
    devices = get_args(Device)
    if device not in devices:
        raise typer.BadParameter(f"--device must be one of {', '.join(devices)}, got {device!r}")
    network = pretrained.load(checkpoint, select_device(device), tokenizer=tokenizer)
    written = pretrained.continuations(
        network.model, network.tokenizer, prompt, tokens, sampling, seed=seed
    )
    for start, text in zip(prompt, written, strict=True):
        print(start + text)


@app.command()
def check() -> None:
    """Check evidence, claims and published figures: what the book refuses, by name."""
    from psannlm.evidence.runs import Evidence, Refused
    from psannlm.publish import claims
    from psannlm.run.check import checked_runs

    runs = checked_runs(REPORTS)
    _, problems = claims.checked(runs, claims.claims_about(REPORTS))
    for problem in problems:
        print(problem)
    sound = sum(isinstance(run, Evidence) and run.is_complete for run in runs)
    refused = sum(isinstance(run, Refused) for run in runs)
    print(f"{len(runs)} runs: {sound} complete and sound, {refused} refused")
    if problems:
        print(f"{len(problems)} problems")
        raise typer.Exit(1)


@app.command()
def pdf() -> None:
    """Print the book: one page of HTML, then a PDF."""
    from psannlm.run.preset import print_book

    print(print_book())


@app.command()
def readme() -> None:
    """Write what was found into README.md: a table and a figure, from the committed evidence."""
    from psannlm.publish.landing import refresh_readme

    refresh_readme()


@app.command()
def rerun(
    run: Annotated[Path, Argument(help="folder of a run, such as reports/benchmarks/RUN")],
    row: Annotated[int, Option(help="number of the row in its table, from 1")] = 1,
    repeats: Annotated[int | None, Option(help="fresh processes, or seeds of a shootout")] = None,
) -> None:
    """Measure a published row again: inside its interval or outside, and what differs here."""
    from psannlm.run.check import rerun as measured

    outcome = measured(run, row, repeats=repeats, say=lambda line: print(line, flush=True))
    print(f"\n{outcome.text}")
    raise typer.Exit({True: 0, False: 1, None: 2}[outcome.inside])


@corpus.command("build")
def build_corpus(
    name: Annotated[str, Argument(help="a recipe: a file of params/corpora/")],
) -> None:
    """Fetch, clean and split what a recipe names, into datasets/lm/NAME.txt."""
    from psannlm.corpora.build import build

    _show(build(name))


@corpus.command("from")
def corpus_from(
    files: Annotated[list[Path], Argument(help="files, or folders of .txt, .gz, .zip, .tar")],
    out: Annotated[Path, Option(help="the text to write, such as datasets/lm/mine.txt")],
    keep_duplicates: Annotated[bool, Option(help="keep paragraphs that repeat")] = False,
    keep_lines: Annotated[bool, Option(help="keep lines apart, of poems or code")] = False,
    split: Annotated[
        tuple[float, float], Option(help="shares held out for validation and for test")
    ] = (0.05, 0.05),
) -> None:
    """Clean and split one's own files."""
    from psannlm.corpora.build import build_from

    kept = {"keep_duplicates": keep_duplicates, "keep_lines": keep_lines}
    _show(build_from(files, out, split=split, **kept))


def _show(path: Path) -> None:
    from psannlm.corpora.build import losses
    from psannlm.corpora.corpus import beside, load
    from psannlm.corpora.recipe import SPLITS

    built = load(path)
    for split in SPLITS:
        documents = sum(document.split == split for document in built.documents)
        print(f"{split}: {built.n_bytes(split):,} bytes in {documents:,} documents")
    for loss in losses(json.loads(beside(path)[1].read_text("utf-8"))):
        print(loss)
    print(f"{path}: {path.stat().st_size:,} bytes, sha256 {built.sha256}")


def main() -> None:
    """Run the command line; what people can get wrong ends in a message, never in a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that a terminal cannot show
    try:
        refuse_other_checkout()
        app()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        sys.exit(packages.missing(error))


if __name__ == "__main__":
    main()
